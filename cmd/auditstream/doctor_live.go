package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// liveFlags are for a health check inside a container that has no curl.
type liveFlags struct {
	Live        bool   `help:"Only ask the serve of this machine whether it lives: for health checks. Needs no database."`
	HTTPAddr    string `name:"http-addr" env:"HTTP_ADDR" default:":8080" help:"With --live: the address that serve has."`
	TLSCertFile string `name:"tls-cert-file" env:"TLS_CERT_FILE" placeholder:"FILE" help:"With --live: serve speaks TLS."`
}

// liveTimeout is shorter than the time that container engines give a health check.
const liveTimeout = 4 * time.Second

// live requests /healthz and not /readyz. Engines restart a container that fails this check: with /readyz a database outage would also end
// all streams, and the restart would not end the outage.
func (c *doctorCmd) live(ctx context.Context, std streams) error {
	scheme := "http"
	if c.TLSCertFile != "" {
		scheme = "https"
	}
	addr, err := localAddr(c.HTTPAddr)
	if err != nil {
		return usageError{err}
	}
	address := scheme + "://" + addr + "/healthz"
	if err := askHealth(ctx, address); err != nil {
		return fmt.Errorf("no healthy serve at %s: %w", address, err)
	}
	_, err = fmt.Fprint(std.out, ok("serve lives: %s", address))
	return err
}

// localAddr returns the address by which this machine connects to a server that listens on addr.
func localAddr(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" || port == "0" {
		return "", fmt.Errorf("HTTP_ADDR: with %q serve cannot be asked: an address with a port other than 0 is needed, like :8080", addr)
	}
	if number, err := net.LookupPort("tcp", port); err == nil { // a URL cannot have a port's name
		port = fmt.Sprint(number)
	}
	switch ip := net.ParseIP(host); {
	case host == "" || ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.Equal(net.IPv6unspecified):
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}

func askHealth(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	client := http.Client{
		Transport: &http.Transport{ // without a proxy: the server is on this machine
			// The certificate has the public name, and the request has no secret.
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return errors.New("not an address")
	}
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	var health struct{ Status string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&health); err != nil || health.Status != "ok" {
		return errors.New("something else answers there")
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
)

// The exit statuses that watch has beside the others, for scripts.
const (
	exitAuditFailed = 3
	exitRefused     = 4
)

// maxWatched is how many audits a server shows on one stream.
const maxWatched = 100

type watchCmd struct {
	IDs   []int64 `arg:"" name:"id" help:"Audits to watch."`
	URL   string  `name:"url" env:"AUDITSTREAM_URL" default:"http://127.0.0.1:8080" help:"Where auditstream serves."`
	Token string  `name:"token" env:"AUDITSTREAM_TOKEN" placeholder:"JWT" help:"Token of the audits' owner. Prefer the variable: other users of the machine see flags."`
	Until int     `name:"until" default:"100" help:"Stop with status 0 once every audit has this progress, in per cent; 100: when it has completed."`
}

// Help is what kong shows beneath the usage.
func (*watchCmd) Help() string {
	return "In a terminal, shows a bar for each audit; otherwise prints one JSON line for each event. Several audits, 100 at most, share " +
		"one connection. Reconnects by itself. Exit status: 0 completed, 3 an audit has failed, " +
		"4 the server refuses (the token, or one of the audits), 1 stopped before that, 2 wrong usage."
}

// exitError ends the program with a status of its own.
type exitError struct {
	code int
	error
}

func (e exitError) Unwrap() error { return e.error }

func (c *watchCmd) Run(ctx context.Context, std streams) error {
	base, err := c.check()
	if err != nil {
		return err
	}
	client := newWatchClient()
	defer client.CloseIdleConnections()
	show := newWatchDisplay(std, c.IDs)
	defer show.close()
	f := &auditsWatch{client: client, base: base, token: c.Token, until: c.Until, show: show, open: c.IDs, states: make(map[int64]watched)}
	return f.follow(ctx)
}

func (c *watchCmd) check() (base string, err error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", usageError{errors.New("--url (AUDITSTREAM_URL) is no address of a server; give one like https://progress.example.com, without user, query and fragment")}
	}
	if len(c.IDs) > maxWatched {
		return "", usageError{fmt.Errorf("%d audits are too many for one stream; name at most %d", len(c.IDs), maxWatched)}
	}
	seen := make(map[int64]bool)
	for _, id := range c.IDs {
		if id < 1 || seen[id] {
			return "", usageError{fmt.Errorf("audit %d is below 1 or was named before; give whole numbers from 1 to 9223372036854775807, each once", id)}
		}
		seen[id] = true
	}
	if c.Until < 0 || c.Until > 100 {
		return "", usageError{fmt.Errorf("--until=%d is no percentage; give a whole number from 0 to 100", c.Until)}
	}
	c.Token = strings.TrimSpace(c.Token)
	return strings.TrimRight(u.String(), "/"), nil
}

// newWatchClient follows no redirects: the token is for the address that was given, and for no other.
func newWatchClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// printable takes away what would steer a terminal, or turn text around in it: the texts come from elsewhere.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// escaped is a line of the same JSON in which whatever would steer a terminal, or turn text around in it, is \uXXXX.
func escaped(data string) string {
	var line bytes.Buffer
	if json.Compact(&line, []byte(data)) != nil {
		return printable(data) // no JSON, which parseWatched refuses
	}
	var b strings.Builder
	for _, r := range line.String() {
		switch high, low := utf16.EncodeRune(r); {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// watched is what an event says, of an audit or of an error.
type watched struct {
	AuditID  int64  `json:"audit_id"`
	Status   string `json:"status"`
	Progress int    `json:"progress"`
	Message  string `json:"message"`
	Error    string `json:"error"`
}

func parseWatched(data string) (w watched, ok bool) {
	ok = json.Unmarshal([]byte(data), &w) == nil && (w.AuditID != 0 || w.Error != "")
	return w, ok
}

func (w watched) terminal() bool { return w.Status == "completed" || w.Status == "failed" }

package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

func TestDoctorLive(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		})
	}
	start := func(h http.Handler) string {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://")
	}
	well := start(answer(http.StatusOK, `{"status":"ok"}`))
	_, port, err := net.SplitHostPort(well)
	testkit.NoError(t, err)
	secure := httptest.NewTLSServer(answer(http.StatusOK, `{"status":"ok"}`))
	t.Cleanup(secure.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the kernel, and never answers
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	redirect := start(http.RedirectHandler("http://"+well+"/healthz", http.StatusFound))

	type test struct {
		args []string
		code int
		want string
	}
	testkit.Each(t, map[string]test{
		"lives":           {[]string{"--http-addr=" + well}, exitDone, "serve lives: http://" + well + "/healthz"},
		"every address":   {[]string{"--http-addr=:" + port}, exitDone, "http://127.0.0.1:" + port},
		"every IPv4":      {[]string{"--http-addr=0.0.0.0:" + port}, exitDone, "http://127.0.0.1:" + port},
		"TLS":             {[]string{"--http-addr=" + secure.Listener.Addr().String(), "--tls-cert-file=/nowhere"}, exitDone, "https://"},
		"TLS, not told":   {[]string{"--http-addr=" + secure.Listener.Addr().String()}, exitFailed, "it answers 400"},
		"gone":            {[]string{"--http-addr=" + gone.Listener.Addr().String()}, exitFailed, "connection refused"},
		"hangs":           {[]string{"--http-addr=" + silent.Addr().String()}, exitFailed, "context deadline exceeded"},
		"unwell":          {[]string{"--http-addr=" + start(answer(http.StatusInternalServerError, `{"status":"ok"}`))}, exitFailed, "it answers 500"},
		"somebody else":   {[]string{"--http-addr=" + start(answer(http.StatusOK, "<html>"))}, exitFailed, "something else answers there"},
		"leads elsewhere": {[]string{"--http-addr=" + redirect}, exitFailed, "it answers 302"},
		"any port":        {[]string{"--http-addr=:0"}, exitUsage, "a port other than 0 is needed"},
		"no port":         {[]string{"--http-addr=localhost"}, exitUsage, "a port other than 0 is needed"},
	}, func(t *testing.T, _ string, c test) {
		got := command(t, append([]string{"doctor", "--live"}, c.args...)...).want(t, c.code)
		mustContain(t, got.out+got.stderr, c.want)
		if lines := strings.Count(got.out+got.stderr, "\n"); lines != 1 {
			t.Errorf("%d lines, want one:\n%s%s", lines, got.out, got.stderr)
		}
	})
}

// The health check requests serve's own address by default.
func TestDoctorLiveHasTheDefaultsOfServe(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{":8080": "127.0.0.1:8080", "[::]:80": "[::1]:80", "10.0.0.1:80": "10.0.0.1:80", ":http": "127.0.0.1:80"} {
		if got, err := localAddr(in); err != nil || got != want {
			t.Errorf("localAddr(%s): %s, %v, want %s", in, got, err, want)
		}
	}
	flags := command(t, "doctor", "--help").want(t, exitDone).out
	serve := command(t, "serve", "--help").want(t, exitDone).out
	for _, flag := range []string{`--http-addr=":8080"`, "--tls-cert-file=FILE"} {
		mustContain(t, flags, flag)
		mustContain(t, serve, flag)
	}
}

package faults

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// route is a path that an instance serves, with 1 for its parameters.
type route struct {
	path  string
	admin bool
}

var pathLine = regexp.MustCompile(`(?m)^  (/\S*):$`)

// routes are those that the instance says it has, so that a new one is covered too, and the admin address's.
func routes(t testing.TB, i *harness.Instance) (all []route) {
	t.Helper()
	_, description := i.Get(t, "/openapi.yaml")
	for _, m := range pathLine.FindAllStringSubmatch(description, -1) {
		all = append(all, route{path: regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(m[1], "1")})
	}
	if len(all) < 5 {
		t.Fatalf("routes %v, want those of openapi.yaml", all)
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/symbol", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/pprof/trace", "/debug/pprof/cmdline"} {
		all = append(all, route{path, true})
	}
	return all
}

func address(i *harness.Instance, r route) string {
	if r.admin {
		return i.Admin
	}
	return i.URL
}

// raw sends the bytes of a request and returns the first answer, nil if there was none, and all bytes that came until the
// server closed or fell silent.
func raw(addr, request string) (first *http.Response, all string, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "http://"))
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return nil, "", err
	}
	if _, err := io.WriteString(conn, request); err != nil && !errors.Is(err, net.ErrClosed) {
		// The server may have answered and closed before it had read everything.
		all, readErr := io.ReadAll(conn)
		if readErr != nil && len(all) == 0 {
			return nil, "", nil
		}
		return parseFirst(request, all)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, "", nil // it has been closed: that is an answer too
	}
	answer, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && len(answer) == 0 {
		return nil, "", nil // reset
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, string(answer), fmt.Errorf("no end of the answer within %v: %q", harness.Patience, answer)
	}
	return parseFirst(request, answer)
}

func parseFirst(request string, answer []byte) (*http.Response, string, error) {
	if len(answer) == 0 {
		return nil, "", nil
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), &http.Request{Method: method})
	if err != nil {
		return nil, string(answer), fmt.Errorf("%w: %q", err, answer)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, string(answer), fmt.Errorf("%w: %q", err, answer)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, string(answer), nil
}

// answers are what an instance may say to a hostile request.
type answers int

const (
	ours   answers = 1 << iota // the contract's JSON
	served                     // what a good request gets
	gos                        // net/http's, before any handler is asked: see goAnswers
	closed                     // nothing at all
)

// goAnswers are all that net/http answers itself; each closes the connection. The text is fixed.
var goAnswers = map[int]*regexp.Regexp{
	400: regexp.MustCompile(`^400 Bad Request(: (missing required Host header|too many Host headers|malformed Host header|invalid header name|invalid header value))?$`),
	417: regexp.MustCompile(`^$`),
	431: regexp.MustCompile(`^431 Request Header Fields Too Large$`),
	501: regexp.MustCompile(`^Unsupported transfer encoding$`),
	505: regexp.MustCompile(`^505 HTTP Version Not Supported: unsupported protocol version$`),
}

// refusals are the statuses of the contract, and of the admin address.
var refusals = []int{400, 401, 403, 404, 405, 421}

// wantAnswer checks one answer; reflected is what must not come back.
func wantAnswer(resp *http.Response, all string, allowed answers, reflected string) error {
	if resp == nil {
		if allowed&closed == 0 {
			return errors.New("no answer")
		}
		return nil
	}
	if reflected != "" && strings.Contains(all, reflected) {
		return fmt.Errorf("the answer repeats what was sent: %.300q", all)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	contentType := resp.Header.Get("Content-Type")
	switch {
	case allowed&served != 0 && resp.StatusCode == 200:
		return nil
	case allowed&ours != 0 && contentType == "application/json" && slices.Contains(refusals, resp.StatusCode):
		var refusal map[string]string
		if resp.Request.Method != "HEAD" {
			if err := json.Unmarshal(body, &refusal); err != nil || len(refusal) != 1 || refusal["error"] == "" {
				return fmt.Errorf("status %d, body %q, want {\"error\":\"...\"}", resp.StatusCode, body)
			}
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := resp.Header.Get(name); got != want {
				return fmt.Errorf("status %d, %s: %q, want %s", resp.StatusCode, name, got, want)
			}
		}
		if (resp.StatusCode == 405) != (resp.Header.Get("Allow") != "") || (resp.StatusCode == 401) != (resp.Header.Get("WWW-Authenticate") != "") {
			return fmt.Errorf("status %d with the headers %v", resp.StatusCode, resp.Header)
		}
		return nil
	case allowed&gos != 0 && goAnswers[resp.StatusCode] != nil:
		if !goAnswers[resp.StatusCode].Match(body) || !resp.Close {
			return fmt.Errorf("status %d, body %q, close %t, want net/http's text and a close", resp.StatusCode, body, resp.Close)
		}
		return nil
	}
	return fmt.Errorf("status %d, Content-Type %q, body %.300q", resp.StatusCode, contentType, body)
}

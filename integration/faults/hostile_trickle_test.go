package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// Clients that send a byte now and then: each is answered, or hung up on, within the time that reading may take.
func TestHostileTrickleIsCutOff(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve)
	type outcome struct {
		what   string
		took   time.Duration
		answer string
		err    error
	}
	results := make(chan outcome)
	var clients int
	for _, r := range routes(t, i) {
		for what, request := range map[string][2]string{
			"headers": {"GET " + r.path + " HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "a"},
			"body":    {"POST " + r.path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", "a"},
		} {
			if what == "body" && r.path == "/debug/pprof/symbol" {
				continue // it reads the body
			}
			clients++
			go func() {
				o := outcome{what: what + " of " + r.path}
				o.took, o.answer, o.err = trickle(address(i, r), request[0], request[1])
				results <- o
			}()
		}
	}
	for range clients {
		o := <-results
		if o.err != nil {
			t.Errorf("%s: %v", o.what, o.err)
			continue
		}
		if strings.HasPrefix(o.what, "body") && !strings.Contains(o.answer, `{"error":"`) {
			t.Errorf("%s: answer %q after %v, want the contract's JSON", o.what, o.answer, o.took)
		}
		if strings.HasPrefix(o.what, "headers") && o.answer != "" {
			t.Errorf("%s: answer %q, want a close", o.what, o.answer)
		}
	}
	i.WaitMetric(t, "go_goroutines", harness.AtMost(60))
}

// trickle sends the head of a request and then a byte every 200 ms, until the server closes.
func trickle(addr, head, piece string) (took time.Duration, answer string, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	start := time.Now()
	if err := conn.SetDeadline(start.Add(harness.Patience)); err != nil {
		return 0, "", err
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return 0, "", err
	}
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_, _ = io.WriteString(conn, piece) // it may have been closed: the reader sees that
			}
		}
	})
	var got bytes.Buffer
	_, err = io.Copy(&got, conn)
	close(done)
	writer.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, got.String(), fmt.Errorf("the connection is open after %v", harness.Patience)
	}
	return time.Since(start), got.String(), nil // a reset is a close too
}

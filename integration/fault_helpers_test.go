package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
	"github.com/tmaxmax/go-sse"
)

// set commits state n of all audits in a psql process.
func (d database) set(t testing.TB, n int) {
	t.Helper()
	d.sql(t, fmt.Sprintf("update audits set total_pages = %d, progress = %d", n, n%100))
}

// insertMany adds running audits of alice's, in state 0.
func (d database) insertMany(t testing.TB, n int) []string {
	t.Helper()
	return strings.Fields(d.sql(t, fmt.Sprintf(`insert into audits (url, user_id, status, total_pages)
		select 'https://example.com', 'alice', 'running', 0 from generate_series(1, %d) returning id`, n)))
}

func exec1(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// launch starts an instance from any binary, for tests that end it in their own way: at the end it is killed.
func launch(t testing.TB, path, databaseURL string, env ...string) *instance {
	t.Helper()
	i, scheme := start(t, path, append([]string{"DATABASE_URL=" + databaseURL}, env...))
	t.Cleanup(func() {
		ended := i.keepsSecrets(t)
		i.signal(t, syscall.SIGKILL)
		<-i.done
		ended()
		i.showLog(t)
	})
	i.serves(t, scheme)
	return i
}

// rawClient sends a stream request over a bare TCP connection with a small receive buffer, and reads nothing.
func (i *instance) rawClient(t testing.TB, id, extra string) *net.TCPConn {
	t.Helper()
	u, err := url.Parse(i.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := smallBufferDialer().DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	_, err = fmt.Fprintf(conn, "GET /api/v1/sse/audits/%s/progress HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n%s",
		id, u.Host, alice(t), extra)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// smallBufferDialer makes connections with a small receive buffer. It is set before connecting: it decides how much the
// client may ever be sent unread.
func smallBufferDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return errors.Join(err, failed)
	}}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// readRaw reads the answer of a rawClient to the end of the stream.
func readRaw(r io.Reader, each func(sse.Event, progress)) error {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for event, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: 4 << 20}) {
		if err != nil {
			return err
		}
		var p progress
		if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
			return fmt.Errorf("event %q: %w", event.Data, err)
		}
		each(event, p)
	}
	return nil
}

// waitMetric waits until a sample satisfies accept.
func (i *instance) waitMetric(t testing.TB, name string, accept func(float64) bool) float64 {
	t.Helper()
	var value float64
	eventually(t, func() error {
		if value = i.metric(t, name); !accept(value) {
			return fmt.Errorf("%s is %v", name, value)
		}
		return nil
	})
	return value
}

func atLeast(n float64) func(float64) bool { return func(v float64) bool { return v >= n } }
func atMost(n float64) func(float64) bool  { return func(v float64) bool { return v <= n } }

// startTransaction begins a transaction of the application that is rolled back at the end of the test.
func startTransaction(t testing.TB, dsn string) pgx.Tx {
	t.Helper()
	tx, err := pgtest.Connect(t, dsn).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	return tx
}

// jitter is a random time below d, for tests that try many interleavings.
func jitter(d time.Duration) <-chan time.Time { return time.After(rand.N(d)) }

func lookPath(t testing.TB, remedy string, candidates ...string) string {
	t.Helper()
	for _, c := range candidates {
		if path, err := exec.LookPath(c); err == nil {
			return path
		}
		if _, err := os.Stat(c); err == nil {
			return c
		}
	}
	t.Fatalf("%s is needed: %s", candidates[0], remedy)
	return ""
}

package pgtest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"auditstream/internal/testkit"
)

// echo is a server that answers every line with its name and that line.
func echo(t *testing.T, name string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					_, _ = io.WriteString(conn, name+" "+lines.Text()+"\n")
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	return listener.Addr().String()
}

type peer struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, p *TCPProxy) peer {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return peer{conn, bufio.NewReader(conn)}
}

func (c peer) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c peer) hear(t *testing.T, want string) {
	t.Helper()
	c.limit(t, 10*time.Second)
	got, err := c.lines.ReadString('\n')
	if err != nil || got != want+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func (c peer) hearNothing(t *testing.T) {
	t.Helper()
	c.limit(t, 100*time.Millisecond)
	if got, err := c.lines.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q, %v, want nothing and an open connection", got, err)
	}
}

func (c peer) limit(t *testing.T, d time.Duration) {
	t.Helper()
	testkit.NoError(t, c.SetReadDeadline(time.Now().Add(d)))
}

func TestProxyPauseKeepsConnectionsOpenAndSilent(t *testing.T) {
	t.Parallel()
	p := Proxy(t, echo(t, "one"))
	old := dial(t, p)
	old.say(t, "before")
	old.hear(t, "one before")

	p.Pause()
	p.Pause() // twice is once
	old.say(t, "during")
	fresh := dial(t, p)
	fresh.say(t, "hello")
	old.hearNothing(t)
	fresh.hearNothing(t)

	p.Resume()
	p.Resume()
	old.hear(t, "one during")
	fresh.hear(t, "one hello")
}

func TestProxyPauseHidesThatTheTargetIsGone(t *testing.T) {
	t.Parallel()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	defer func() { _ = target.Close() }()
	p := Proxy(t, target.Addr().String())
	c := dial(t, p)
	server, err := target.Accept()
	testkit.NoError(t, err)
	p.Pause()
	_ = server.Close()
	c.hearNothing(t)
	p.Resume()
	c.limit(t, 10*time.Second)
	if _, err := c.lines.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end", err)
	}
}

func TestProxyDropAllResets(t *testing.T) {
	t.Parallel()
	p := Proxy(t, echo(t, "one"))
	for _, paused := range []bool{false, true} {
		c := dial(t, p)
		c.say(t, "before")
		c.hear(t, "one before")
		if paused {
			p.Pause()
		}
		p.DropAll()
		c.limit(t, 10*time.Second)
		if _, err := c.lines.ReadString('\n'); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("paused %v: got %v, want a dropped connection", paused, err)
		}
	}
}

func TestProxySetTargetLeadsNewConnectionsElsewhere(t *testing.T) {
	t.Parallel()
	p := Proxy(t, echo(t, "one"))
	old := dial(t, p)
	old.say(t, "a")
	old.hear(t, "one a")
	p.SetTarget(echo(t, "two"))
	fresh := dial(t, p)
	fresh.say(t, "b")
	fresh.hear(t, "two b")
	old.say(t, "c")
	old.hear(t, "one c")
}

func TestProxyCloseWhilePausedLeavesNothing(t *testing.T) {
	t.Parallel()
	p := Proxy(t, echo(t, "one"))
	c := dial(t, p)
	c.say(t, "before")
	c.hear(t, "one before")
	p.Pause()
	c.say(t, "during")
	dial(t, p)
	p.Close() // waits for all goroutines
	p.Close()
}

func TestProxyCarriesPostgreSQL(t *testing.T) {
	t.Parallel()
	_, dsn := ProxyDSN(t, New(t))
	if got := Psql(t, dsn, "select repeat('x', 100000)"); len(got) != 100000 {
		t.Errorf("got %d bytes, want 100000", len(got))
	}
}

package connpool

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/testkit"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// task writes blocks, one after the other.
type task struct {
	conn    *Conn
	claimed atomic.Bool
	blocks  chan []byte
	drained atomic.Bool
	gone    atomic.Bool
}

func (k *task) wake() {
	if !k.claimed.Swap(true) {
		k.conn.Schedule()
	}
}

func (k *task) Input() { k.gone.Store(true); k.wake() }
func (k *task) Drain() { k.drained.Store(true); k.wake() }

func (k *task) put(block []byte) { k.blocks <- block; k.wake() }

func (k *task) Run() {
	for {
		select {
		case block := <-k.blocks:
			if k.conn.Write(block[:len(block)/3], nil, block[len(block)/3:]) != nil {
				k.conn.Close()
				return
			}
			continue
		default:
		}
		switch {
		case k.drained.Load(), k.gone.Load():
			k.conn.Close()
			return
		}
		k.claimed.Store(false)
		if len(k.blocks) == 0 && !k.drained.Load() && !k.gone.Load() || k.claimed.Swap(true) {
			return
		}
	}
}

// start serves requests by taking their connections. tasks receives the task of each; gone counts the calls of Config.Gone.
func start(t *testing.T) (p *Pool, addr string, tasks chan *task, gone *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	tasks, gone = make(chan *task, 1000), new(atomic.Int64)
	p = New(Config{Addr: l.Addr(), Logger: slog.New(slog.DiscardHandler), Gone: func(net.Conn) { gone.Add(1) },
		Write: func(conn net.Conn, b []byte) error {
			_, err := conn.Write(b)
			return err
		}})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := p.Hijack(w)
		if conn == nil {
			t.Error("not taken")
			return
		}
		k := &task{conn: conn, blocks: make(chan []byte, 10)}
		k.claimed.Store(true)
		conn.Begin(k)
		conn.Serve()
		tasks <- k
	})}
	done := make(chan error, 3)
	go func() { done <- p.Run() }()
	for _, l := range []net.Listener{l, p.Listener()} {
		go func() { _ = server.Serve(l); done <- nil }()
	}
	t.Cleanup(func() {
		p.Drain()
		_ = server.Close()
		_ = l.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		p.End(ctx)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := p.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return p, l.Addr().String(), tasks, gone
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// More clients than writers do not read. Others are still served, and the substitute writers exit afterwards.
func TestWriterThatWaitsIsReplaced(t *testing.T) {
	t.Parallel()
	p, addr, tasks, gone := start(t)
	huge := []byte(strings.Repeat("x", 32<<20))
	stuck := 4 * runtime.GOMAXPROCS(0)
	for range stuck {
		conn := dial(t, addr)
		(<-tasks).put(huge)
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	good := dial(t, addr)
	(<-tasks).put([]byte("good\n"))
	if line, err := bufio.NewReader(good).ReadString('\n'); line != "good\n" || err != nil {
		t.Errorf("%q, %v beside %d that do not read", line, err, stuck)
	}
	p.mu.Lock()
	for _, c := range p.open {
		_ = c.sock.SetWriteDeadline(time.Now())
	}
	p.mu.Unlock()
	testkit.Eventually(t, "no writer is too many, and all connections that do not read are closed", func() bool {
		p.queue.Lock()
		defer p.queue.Unlock()
		return p.surplus == 0 && gone.Load() == int64(stuck)
	})
}

// All parts arrive in their order, whatever the socket accepts at a time.
func TestPartsArriveInOrder(t *testing.T) {
	t.Parallel()
	_, addr, tasks, _ := start(t)
	conn := dial(t, addr)
	k := <-tasks
	var want strings.Builder
	for n := range 8 {
		block := []byte(strings.Repeat(string(rune('a'+n)), 1<<uint(3*n)))
		want.Write(block)
		k.put(block)
	}
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want.String() {
		t.Errorf("%v, or other bytes", err)
	}
}

package redisnotify

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/redistest"
	"auditstream/internal/testkit"

	"github.com/redis/go-redis/v9"
)

// flood publishes without a pause until it is stopped.
func flood(t *testing.T, o *redis.Options, message func(n int) (channel, body string)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		client := redis.NewClient(o)
		defer client.Close()
		n := 0
		for ctx.Err() == nil {
			_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				for range 1000 {
					name, body := message(n)
					pipe.Publish(ctx, name, body)
					n++
				}
				return nil
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				break
			}
		}
	}()
	return func() {
		cancel()
		<-stopped
	}
}

// A flood of messages that are no hints, and of one that is. A hint in it arrives; or, when Redis disconnects the slow listener, the resync
// of its next subscription does.
func TestHintArrivesAmidAFlood(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l, heard := listen(t, s.URL())
	testkit.Eventually(t, "up", l.Up)
	names := []string{"audit.progress.", "audit.progress.x", "audit.progress.-1", "audit.progress.!relay2", "audit.progress.!" + strings.Repeat("y", 1000),
		"audit.progress." + strings.Repeat("9", 1000), "audit.progress.**", "audit.progress.\x00\xff\r\n", "elsewhere", "audit.progress.5"}
	stop := flood(t, options(t, s.URL()), func(n int) (string, string) { return names[n%len(names)], strings.Repeat("7", n%100) })
	testkit.Eventually(t, "the flood", func() bool { told, _ := heard.counts(5); return told > 1000 })
	for id := range int64(5) {
		_, before := heard.counts(0)
		publish(t, options(t, s.URL()), channel(1000+id), "")
		testkit.Eventually(t, "a hint", func() bool { told, resyncs := heard.counts(1000 + id); return told > 0 || resyncs > before })
	}
	stop()
	testkit.Eventually(t, "up", l.Up)
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for key := range heard.ids {
		if id := key.Int(); id != 5 && (id < 1000 || id >= 1005) {
			t.Errorf("told of %s, which nobody named", key)
		}
	}
}

// A body that exceeds Redis' own limit for a subscriber ends the subscription, which comes back. It does not fill the memory.
func TestEnormousBodyCostsTheSubscriptionAlone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--client-output-buffer-limit", "pubsub", "1mb", "1mb", "10")
	l, heard := listen(t, s.URL())
	testkit.Eventually(t, "up", l.Up)
	_, before := heard.counts(0)
	publish(t, options(t, s.URL()), channel(1), strings.Repeat("x", 8<<20))
	heard.resynced(t, before)
	if told, _ := heard.counts(1); told != 0 {
		t.Error("the message was delivered: the limit that SECURITY.md counts on did not hold")
	}
	testkit.Eventually(t, "up", l.Up)
	publish(t, options(t, s.URL()), channel(2), "")
	heard.hears(t, 2)
}

// A relay and an instance need exactly the rights that docs/redis.md names.
func TestACLUserNeedsNoMore(t *testing.T) {
	t.Parallel()
	rights := strings.Fields("on >hush resetchannels &audit.progress.* +@connection +psubscribe +publish")
	args := append([]string{"--user", "auditstream"}, rights...)
	args = append(args, append([]string{"--user", "reader"}, append(rights[:len(rights)-1:len(rights)-1], "-publish")...)...)
	s := redistest.Start(t, args...)
	url := func(user string) string { return fmt.Sprintf("redis://%s:hush@%s/0", user, s.Addr) }
	l, heard := listen(t, url("auditstream"))
	testkit.Eventually(t, "up", l.Up)
	p := runPublisher(t, url("auditstream"), never)
	p.Notify("3")
	heard.hears(t, 3)

	// A user who may not publish hears hints but sends no canary, so nothing is proven.
	deaf, hears := listen(t, url("reader"))
	hears.resynced(t, 0)
	p.Notify("4")
	hears.hears(t, 4)
	if deaf.Up() {
		t.Error("up without the right to publish a canary")
	}
	client := redis.NewClient(options(t, url("auditstream")))
	defer client.Close()
	for _, err := range []error{client.Publish(t.Context(), "elsewhere", "").Err(), client.Get(t.Context(), "key").Err()} {
		if err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("%v, want NOPERM", err)
		}
	}
}

// Whatever a server answers, the listener keeps trying and ends with its context.
func TestServersThatAreNoRedis(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"silent":         "",
		"garbage":        "HTTP/1.1 400 Bad Request\r\n\r\n",
		"null":           "*-1\r\n",
		"huge array":     "*2147483647\r\n",
		"huge string":    "$2147483647\r\nx",
		"another answer": "+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
		"half a message": "+OK\r\n*3\r\n$10\r\npsubscribe\r\n$16\r\naudit.progress.*\r\n:1\r\n*4\r\n$8\r\npmess",
		"odd messages":   "+OK\r\n*3\r\n$10\r\npsubscribe\r\n$16\r\naudit.progress.*\r\n:1\r\n*4\r\n$8\r\npmessage\r\n$1\r\nx\r\n$0\r\n\r\n$0\r\n\r\n*3\r\n$10\r\npsubscribe\r\n$1\r\nx\r\n:2\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, connections := serve(t, answer)
			l, heard := listen(t, "redis://"+addr+"/0")
			testkit.Eventually(t, "connections", func() bool { return connections.Load() >= 3 })
			if l.Up() {
				t.Error("up")
			}
			heard.mu.Lock()
			defer heard.mu.Unlock()
			if len(heard.ids) > 0 {
				t.Errorf("told of %v", heard.ids)
			}
		})
	}
}

// serve sends an answer on each connection, and nothing more.
func serve(t *testing.T, answer string) (addr string, connections *atomic.Int64) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	connections = new(atomic.Int64)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			serving.Go(func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1000))
				_, _ = conn.Write([]byte(answer))
				_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return server.Addr().String(), connections
}

// Run does not wait for a server that accepts and then says nothing.
func TestRunEndsWhileRedisIsSilent(t *testing.T) {
	t.Parallel()
	addr, connections := serve(t, "")
	source := NewSource(options(t, "redis://"+addr+"/0"))
	l, err := pgnotify.NewListener(pgnotify.ListenerConfig{Source: source, Sink: newSink()})
	testkit.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	testkit.Eventually(t, "a connection", func() bool { return connections.Load() > 0 })
	start := time.Now()
	cancel()
	if err := <-done; err != nil || time.Since(start) > 2*ioTimeout {
		t.Errorf("Run returned %v after %v, want nil within the library's time-outs", err, time.Since(start))
	}
}

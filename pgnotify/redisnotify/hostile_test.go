package redisnotify

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"auditstream/integration/redistest"
	"auditstream/pgnotify"

	"github.com/prometheus/client_golang/prometheus"
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

// A flood of all that is no hint, and of one that is: a hint amid it arrives, or, where Redis drops a listener that is slow, the
// resync of its next subscription.
func TestHintArrivesAmidAFlood(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l, heard := listen(t, s.URL())
	eventually(t, "up", l.Up)
	names := []string{"audit.progress.", "audit.progress.x", "audit.progress.-1", "audit.progress.!relay2", "audit.progress.!" + strings.Repeat("y", 1000),
		"audit.progress." + strings.Repeat("9", 1000), "audit.progress.**", "audit.progress.\x00\xff\r\n", "elsewhere", "audit.progress.5"}
	stop := flood(t, options(t, s.URL()), func(n int) (string, string) { return names[n%len(names)], strings.Repeat("7", n%100) })
	eventually(t, "the flood", func() bool { told, _ := heard.counts(5); return told > 1000 })
	for id := range int64(5) {
		_, before := heard.counts(0)
		publish(t, options(t, s.URL()), channel(1000+id), "")
		eventually(t, "a hint", func() bool { told, resyncs := heard.counts(1000 + id); return told > 0 || resyncs > before })
	}
	stop()
	eventually(t, "up", l.Up)
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for id := range heard.ids {
		if id != 5 && (id < 1000 || id >= 1005) {
			t.Errorf("told of %d, which nobody named", id)
		}
	}
}

// Calls to read everything are heeded once a second, however many there are.
func TestFloodOfCallsIsOneASecond(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	registry := prometheus.NewRegistry()
	l, heard := listen(t, s.URL(), func(cfg *ListenerConfig) { cfg.Registerer = registry })
	eventually(t, "up", l.Up)
	began := time.Now()
	stop := flood(t, options(t, s.URL()), func(int) (string, string) { return resyncChannel, "" })
	eventually(t, "the flood", func() bool {
		return counted(t, registry, "auditstream_notifications_total", pgnotify.NotifyResync) > 10_000
	})
	stop()
	_, resyncs := heard.counts(0)
	// One at once and one for each second; and for each subscription, as Redis may have dropped a listener that was slow.
	subscriptions := int(counted(t, registry, "auditstream_listener_connects_total", ""))
	if allowed := 2*subscriptions + 1 + int(time.Since(began).Seconds()); resyncs > allowed {
		t.Errorf("%d resyncs over %d subscriptions in %v, want %d at most", resyncs, subscriptions, time.Since(began), allowed)
	}
}

// A body that Redis itself finds too large for a subscriber costs the subscription, which comes back, and not the memory.
func TestEnormousBodyCostsTheSubscriptionAlone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--client-output-buffer-limit", "pubsub", "1mb", "1mb", "10")
	l, heard := listen(t, s.URL())
	eventually(t, "up", l.Up)
	_, before := heard.counts(0)
	publish(t, options(t, s.URL()), channel(1), strings.Repeat("x", 8<<20))
	eventually(t, "a new subscription", func() bool { _, resyncs := heard.counts(0); return resyncs > before })
	if told, _ := heard.counts(1); told != 0 {
		t.Error("the message was delivered: the limit that the README counts on did not hold")
	}
	eventually(t, "up", l.Up)
	publish(t, options(t, s.URL()), channel(2), "")
	eventually(t, "a hint", func() bool { told, _ := heard.counts(2); return told == 1 })
}

// The rights that the README asks for are enough, for a relay and for an instance, and they are needed.
func TestACLUserNeedsNoMore(t *testing.T) {
	t.Parallel()
	rights := strings.Fields("on >hush resetchannels &audit.progress.* +@connection +psubscribe +publish")
	args := append([]string{"--user", "auditstream"}, rights...)
	args = append(args, append([]string{"--user", "reader"}, append(rights[:len(rights)-1:len(rights)-1], "-publish")...)...)
	s := redistest.Start(t, args...)
	url := func(user string) string { return fmt.Sprintf("redis://%s:hush@%s/0", user, s.Addr) }
	l, heard := listen(t, url("auditstream"))
	eventually(t, "up", l.Up)
	p, err := NewPublisher(PublisherConfig{Redis: options(t, url("auditstream"))})
	if err != nil {
		t.Fatal(err)
	}
	start(t, p.Run)
	p.Notify(3)
	eventually(t, "a hint", func() bool { told, _ := heard.counts(3); return told == 1 })

	// Who may not publish hears, but sends no canary: nothing is proven.
	deaf, hears := listen(t, url("reader"))
	eventually(t, "a subscription", func() bool { _, resyncs := hears.counts(0); return resyncs > 0 })
	p.Notify(4)
	eventually(t, "a hint", func() bool { told, _ := hears.counts(4); return told == 1 })
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

package redisnotify

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// The library's goroutine that retries to dial ends up to a second after its client is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func options(t testing.TB, url string) *redis.Options {
	t.Helper()
	o, err := ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// publish sends a message like an application, or like anybody.
func publish(t *testing.T, o *redis.Options, channel, body string) {
	t.Helper()
	o.ReadTimeout, o.WriteTimeout, o.DialTimeout = patience, patience, patience
	client := redis.NewClient(o)
	defer client.Close()
	if err := client.Publish(t.Context(), channel, body).Err(); err != nil {
		t.Fatal(err)
	}
}

// sink counts the calls.
type sink struct {
	mu      sync.Mutex
	ids     map[store.Key]int
	resyncs int
}

func newSink() *sink { return &sink{ids: make(map[store.Key]int)} }

func (s *sink) Notify(row string) bool {
	key, ok := store.ParseKey(row)
	if ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ids[key]++
	}
	return ok
}

func (s *sink) Resync() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resyncs++
}

func (s *sink) counts(id int64) (told, resyncs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[store.IntKey(id)], s.resyncs
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !check() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// start runs a function until the test is over.
func start(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
}

func write(t *testing.T, name string, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func channel(id int64) string { return fmt.Sprintf("%s%d", Prefix, id) }

// counted returns the value of a counter, or that of one label's value.
func counted(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter %s of %q", name, label)
	return 0
}

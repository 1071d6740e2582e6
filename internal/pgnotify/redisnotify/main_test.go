package redisnotify

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

const patience = testkit.Patience

// The library's goroutine that retries to dial ends up to a second after its client is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func options(t testing.TB, url string) *redis.Options {
	t.Helper()
	o, err := ParseURL(url)
	testkit.NoError(t, err)
	return o
}

// publish sends a message like an application, or like anybody.
func publish(t *testing.T, o *redis.Options, channel, body string) {
	t.Helper()
	o.ReadTimeout, o.WriteTimeout, o.DialTimeout = patience, patience, patience
	client := redis.NewClient(o)
	defer client.Close()
	testkit.NoError(t, client.Publish(t.Context(), channel, body).Err())
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

// hears waits until the sink was told once of an id.
func (s *sink) hears(t *testing.T, id int64) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprint("a hint of ", id), func() bool { told, _ := s.counts(id); return told == 1 })
}

// resynced waits until there was another resync than those before.
func (s *sink) resynced(t *testing.T, before int) {
	t.Helper()
	testkit.Eventually(t, "another resync", func() bool { _, resyncs := s.counts(0); return resyncs > before })
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

func channel(id int64) string { return fmt.Sprintf("%s%d", Prefix, id) }

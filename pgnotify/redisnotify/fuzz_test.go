package redisnotify

import (
	"strconv"
	"strings"
	"testing"

	"auditstream/pgnotify"
)

// Whoever may publish may name a channel as he likes: it is an id as PostgreSQL prints it, a call to read everything, a
// canary, or nothing.
func FuzzChannel(f *testing.F) {
	for _, seed := range []string{"audit.progress.1", "audit.progress.*", "audit.progress.!mine", "audit.progress.", "audit.progress.9223372036854775808", "audit.progress.01", "1", "", "audit.progress.٣", "audit.progress." + strings.Repeat("9", 8000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		heard := newSink()
		l, err := NewListener(ListenerConfig{Redis: options(t, "redis://127.0.0.1:1"), Sink: heard})
		if err != nil {
			t.Fatal(err)
		}
		s := newSession(l)
		defer s.stars.Stop()
		mine := &pgnotify.Canary{Payload: pgnotify.CanaryPrefix + "mine", Heard: make(chan struct{}, 1)}
		s.sent.Store(mine)
		for range 3 {
			s.message(name, "")
		}
		id, err := strconv.ParseInt(strings.TrimPrefix(name, Prefix), 10, 64)
		isID := err == nil && id > 0 && name == channel(id)
		if told, _ := heard.counts(id); isID && told != 3 || !isID && len(heard.ids) > 0 {
			t.Errorf("%q: told %v", name, heard.ids)
		}
		if want := name == Prefix+"*"; (heard.resyncs == 1) != want || heard.resyncs > 1 {
			t.Errorf("%q: %d resyncs of 3 messages", name, heard.resyncs)
		}
		if got, want := len(mine.Heard) == 1, name == Prefix+"!mine"; got != want {
			t.Errorf("%q counts as our canary: %v", name, got)
		}
	})
}

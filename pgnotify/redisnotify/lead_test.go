package redisnotify

import (
	"strings"
	"testing"
	"time"

	"auditstream/integration/redistest"
)

// Of relays that pass on the same changes one counts; what is not a relay's always does.
func TestOneRelayLeads(t *testing.T) {
	t.Parallel()
	a, b := newName(), newName()
	var l lead
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		body  string
		want  bool
	}{
		{0, a, true},
		{0, b, false},
		{leadLapse - 1, b, false},
		{0, "", true},
		{0, "relay", true},
		{0, strings.ToLower(b) + b, true},
		{0, a, true}, // it was nearly too late
		{leadLapse - 1, b, false},
		{1, b, true}, // a is silent
		{0, a, false},
		{time.Hour, a, true}, // both were, and a is the first now
		{0, b, false},
	} {
		now = now.Add(step.after)
		if got := l.counts(step.body, now); got != step.want {
			t.Errorf("%+v: counts %v", step, got)
		}
	}
}

// Of two relays' hints all are told, one's as repetitions; when the one that leads is gone the other's are the changes.
func TestSecondRelayIsHeardAndNotCounted(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	again := newSink()
	l, changes := listen(t, s.URL(), func(cfg *ListenerConfig) { cfg.Again = again.Notify })
	eventually(t, "up", l.Up)
	a, b := newName(), newName()
	told := 0
	tell := func(name string) {
		publish(t, options(t, s.URL()), channel(1), name)
		told++
		eventually(t, "the hint", func() bool {
			n, _ := changes.counts(1)
			m, _ := again.counts(1)
			return n+m == told
		})
	}
	repeated := func() int { n, _ := again.counts(1); return n }
	eventually(t, "a repetition", func() bool { tell(a); tell(b); return repeated() > 0 })
	before := repeated()
	eventually(t, "the other leads", func() bool { tell(b); n := repeated(); led := n == before; before = n; return led })
}

package auditstream_test

import (
	"context"
	"errors"
	"testing"

	"auditstream"
	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"
)

func TestWatchFollowsARowToItsEnd(t *testing.T) {
	t.Parallel()
	pool := database(t)
	as, _ := run(t, pool, auditstream.Options{})
	next := map[int]string{
		25: `update audits set progress = 50, message = 'half' where id = 42`,
		50: `update audits set progress = 100, status = 'failed', error = 'no answer' where id = 42`,
	}
	var seen []auditstream.State
	for state, err := range as.Watch(within(t), auditstream.Key{ID: "42"}) {
		testkit.NoError(t, err)
		seen = append(seen, state)
		if sql := next[state.Progress]; sql != "" {
			execute(t, pool, sql)
		}
	}
	if len(seen) != 3 || seen[1].Message != "half" || seen[1].Ended || seen[1].Error != "" || !seen[2].Ended || seen[2].Error != "no answer" ||
		string(seen[0].JSON) != `{"audit_id":42,"status":"running","progress":25}` || len(seen[0].Fingerprint) != 16 {
		t.Errorf("states %+v", seen)
	}
}

// Watch ends with an error that says why.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	pool := database(t)
	as, _ := run(t, pool, auditstream.Options{})
	nothing, _ := run(t, open(t, pgtest.New(t)), auditstream.Options{})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		as   *auditstream.Service
		ctx  context.Context
		key  auditstream.Key
		want func(error) bool
	}{
		"no row":        {as, within(t), auditstream.Key{ID: "43"}, is(auditstream.ErrNotFound)},
		"no feed":       {as, within(t), auditstream.Key{Feed: "jobs", ID: "43"}, is(auditstream.ErrNoFeed)},
		"no key":        {as, within(t), auditstream.Key{ID: "a"}, isUsage},
		"not installed": {nothing, within(t), auditstream.Key{ID: "1"}, is(auditstream.ErrNotInstalled)},
		"cancelled":     {as, cancelled, auditstream.Key{ID: "42"}, is(context.Canceled)},
	} {
		n := 0
		for _, err := range tc.as.Watch(tc.ctx, tc.key) {
			if n++; !tc.want(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d rounds, want one", name, n)
		}
	}
	first := true
	for _, err := range as.Watch(within(t), auditstream.Key{ID: "42"}) {
		if first {
			execute(t, pool, `delete from audits where id = 42`)
		} else if !errors.Is(err, auditstream.ErrNotFound) {
			t.Errorf("deleted: %v, want ErrNotFound", err)
		}
		first = false
	}
}

// Watch goes on when its feed is installed again, with the feed's new description.
func TestWatchOutlivesAnInstall(t *testing.T) {
	t.Parallel()
	pool := database(t)
	execute(t, pool, `alter table audits drop constraint audits_status_check`)
	as, _ := run(t, pool, auditstream.Options{})
	for state, err := range as.Watch(within(t), auditstream.Key{ID: "42"}) {
		testkit.NoError(t, err)
		if state.Ended {
			break
		}
		conn, err := pool.Acquire(t.Context())
		testkit.NoError(t, err)
		_, err = auditstream.Install(t.Context(), conn.Conn(), auditstream.Table{Ends: []string{"stopped"}})
		conn.Release()
		testkit.NoError(t, err)
		execute(t, pool, `update audits set status = 'stopped' where id = 42`)
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

func isUsage(err error) bool { _, ok := errors.AsType[auditstream.UsageError](err); return ok }

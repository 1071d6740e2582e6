package faults

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
)

// pair is a primary and a standby that streams from it, each behind a proxy that can cut it off.
type pair struct {
	primary, standby *localpg.Server
	way              *pgtest.TCPProxy // to the primary
	before, after    harness.Database // the same one on the primary and on the promoted standby; Serve names both
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{primary: pgtest.NewServer(t)}
	p.before = harness.Adopt(t, p.primary.DSN("postgres"))
	p.standby = pgtest.NewServer(t, func(c *localpg.Config) { c.StandbyOf = p.primary })
	p.after = harness.Database{Admin: p.standby.DSN("postgres")}

	var first, second string
	p.way, first = pgtest.ProxyDSN(t, p.before.Serve)
	_, second = pgtest.ProxyDSN(t, p.standby.DSN("postgres"))
	a, err := url.Parse(first)
	harness.NoError(t, err)
	b, err := url.Parse(second)
	harness.NoError(t, err)
	a.Host += "," + b.Host
	q := a.Query()
	q.Set("target_session_attrs", "read-write")
	q.Set("connect_timeout", "2")
	a.RawQuery = q.Encode()
	p.before.Serve, p.after.Serve = a.String(), a.String()
	return p
}

// promote makes the standby the primary. What it has not replayed by then is lost.
func (p *pair) promote(t testing.TB) {
	t.Helper()
	p.after.WantSQL(t, `select pg_promote()`, "t")
}

// caughtUp waits until the standby shows what the primary has committed.
func (p *pair) caughtUp(t testing.TB) {
	t.Helper()
	lsn := p.before.SQL(t, `select pg_current_wal_lsn()`)
	p.after.WaitSQL(t, `select pg_last_wal_replay_lsn() >= '`+lsn+`'`, "t")
}

// A primary is lost in one of the ways in which that happens, its standby is promoted, and nobody tells auditstream but the
// two hosts in its DSN. The safety net is off, so what comes after LISTEN is back can only have been pushed, although the
// unlogged table of what is watched is empty on a promoted standby.
func TestFailover(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		lose func(t testing.TB, p *pair)
	}{
		{"killed", func(t testing.TB, p *pair) {
			harness.NoError(t, p.primary.Crash(t.Context()))
		}},
		{"out of reach", func(_ testing.TB, p *pair) { p.way.Pause() }},
		// The old primary lives and answers, and all connections to it stay open.
		{"read-only", func(t testing.TB, p *pair) {
			p.before.SQL(t, `alter system set default_transaction_read_only = on`)
			p.before.SQL(t, `select pg_reload_conf()`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			ids := p.before.InsertMany(t, 10)
			instances := []*harness.Instance{
				harness.Serve(t, p.before.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"),
				harness.Serve(t, p.before.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"),
			}
			var viewers []*harness.Viewer
			for _, i := range instances {
				i.WaitReady(t, "up")
				viewers = append(viewers, i.Crowd(t, 30, ids, nil)...)
			}
			p.before.SetAll(t, 1)
			harness.AllReached(t, viewers, 1)
			p.caughtUp(t)

			c.lose(t, p)
			p.promote(t)
			p.after.SetAll(t, 2)
			harness.AllReached(t, viewers, 2)
			p.registered(t, instances, len(ids))
			p.after.SetAll(t, 3)
			harness.AllReached(t, viewers, 3)
			for _, i := range instances {
				i.WaitReady(t, "up")
				i.WantMetric(t, "auditstream_notifications_missed_total", 0)
			}

			if c.name == "killed" {
				p.returnAsStandby(t)
				p.after.SQL(t, `select pg_terminate_backend(pid) from pg_stat_activity where usename = '`+harness.ServeRole+`'`)
				p.after.SetAll(t, 4)
				harness.AllReached(t, viewers, 4)
			}
			p.after.SQL(t, `update audits set total_pages = 5, status = case when id % 2 = 0 then 'completed' else 'failed' end`)
			for _, v := range viewers {
				if last := v.Ended(t); *last.TotalPages != 5 || (last.Status != "completed" && last.Status != "failed") {
					t.Errorf("audit %s ended at %s, want a terminal status, state 5", v.ID, harness.Describe(last))
				}
			}
		})
	}
}

// registered waits until all instances tell the new primary's writers of their audits.
func (p *pair) registered(t testing.TB, instances []*harness.Instance, audits int) {
	t.Helper()
	for id := range audits {
		p.after.WatchedBy(t, strconv.Itoa(id+1), len(instances))
	}
}

// returnAsStandby starts the old primary as one that may not be written to: it is the first host of the DSN, and answers.
func (p *pair) returnAsStandby(t testing.TB) {
	t.Helper()
	data := filepath.Join(filepath.Dir(p.primary.LogFile()), "data")
	harness.NoError(t, os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644))
	harness.NoError(t, p.primary.Restart(t.Context()))
	p.before.WantSQL(t, `select pg_is_in_recovery()`, "t")
}

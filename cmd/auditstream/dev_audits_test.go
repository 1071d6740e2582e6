package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5/pgxpool"
)

func TestSteps(t *testing.T) {
	t.Parallel()
	for _, w := range devWorkers {
		steps := w.steps()
		before := step{}
		for _, s := range steps {
			if s.progress < before.progress || s.message == "" || *s.pages < 1 || *s.pages > w.pages {
				t.Errorf("%s: %+v after %+v", w.site, s, before)
			}
			before = s
		}
		last := steps[len(steps)-1]
		if w.fails != (last.status == "failed") || w.fails != (last.failure != nil) || w.fails != (last.score == nil) {
			t.Errorf("%s ends with %+v", w.site, last)
		}
		if !w.fails && (last.status != "completed" || last.progress != 100 || *last.pages != w.pages) {
			t.Errorf("%s ends with %+v", w.site, last)
		}
	}
}

// quick are workers with short pauses.
var quick = []worker{
	{site: "https://one.example", pages: 16, pace: time.Millisecond, rest: time.Millisecond},
	{site: "https://two.example", pages: 99, pace: time.Millisecond, rest: time.Millisecond, fails: true},
}

// simulate runs a simulation until the test is over.
func simulate(t *testing.T, dsn string, workers []worker) *simulation {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	testkit.NoError(t, err)
	s := &simulation{db: pool, logger: slog.New(slog.DiscardHandler), workers: workers, extras: make(chan int64)}
	testkit.NoError(t, s.prepare(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.run(ctx); err != nil {
			t.Errorf("simulation: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		pool.Close()
	})
	return s
}

// newest returns each worker's newest audit, 0 if the newest of all are others'.
func newest(s *simulation) []int64 {
	ids := make([]int64, len(s.workers))
	for _, audit := range s.recent() {
		for slot, w := range s.workers {
			if w.site == audit.Site {
				ids[slot] = audit.ID
			}
		}
	}
	return ids
}

func TestSimulationDoesNotGrow(t *testing.T) {
	t.Parallel()
	dsn := installed(t, sql.Options{})
	own := pgtest.Psql(t, dsn, `insert into audits (user_id, url, status) values ('dev', 'https://mine.example', 'running') returning id`)
	s := simulate(t, dsn, quick)
	// The ids of a worker's audits say how many there were.
	testkit.Eventually(t, "there were many audits", func() bool { return newest(s)[0] >= 4*keptAudits })
	for _, w := range quick {
		counts := pgtest.Psql(t, dsn, `select count(*) <= 12, count(*) filter (where status in ('pending', 'running')) <= 1,
			string_agg(distinct status, ' ' order by status) from audits where url = '`+w.site+`'`)
		end := "completed"
		if w.fails {
			end = "failed"
		}
		if !strings.HasPrefix(counts, "t|t|"+end) {
			t.Errorf("%s: %s, want t|t|%s", w.site, counts, end)
		}
	}
	testkit.Equal(t, pgtest.Psql(t, dsn, `select count(*) from audits where url = '`+quick[1].site+`' and error like 'The worker was stopped%'`), "0", "audits that were given up")
	for id, want := range map[string]string{
		own:                   "dev|running|0|",
		fmt.Sprint(s.byHand):  "dev|running|0|Waiting for your UPDATE",
		fmt.Sprint(s.foreign): "somebody-else|running|0|Not yours to see",
	} {
		testkit.Equal(t, pgtest.Psql(t, dsn, `select user_id, status, progress, message from audits where id = `+id), want, "what is none of the workers' business")
	}
}

// TestSimulationBeginsAnew: a worker does not write to an audit that somebody has ended or deleted by hand, and begins another.
func TestSimulationBeginsAnew(t *testing.T) {
	t.Parallel()
	dsn := installed(t, sql.Options{})
	s := simulate(t, dsn, []worker{{site: "https://one.example", pages: 16, pace: 50 * time.Millisecond, rest: time.Millisecond}})
	for _, statement := range []string{`update audits set status = 'completed', message = 'by hand' where id = `, `delete from audits where id = `} {
		id := newest(s)[0]
		pgtest.Psql(t, dsn, statement+fmt.Sprint(id))
		testkit.Eventually(t, "the worker begins anew", func() bool { return newest(s)[0] != id })
		if got := pgtest.Psql(t, dsn, fmt.Sprintf(`select status, message from audits where id = %d`, id)); got != "completed|by hand" && got != "" {
			t.Errorf("the worker wrote to an audit that had ended: %s", got)
		}
	}
}

func TestSimulationSurvivesRestart(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	dsn := server.DSN("postgres")
	installAt(t, dsn, sql.Options{})
	s := simulate(t, dsn, quick)
	further := func(from int64) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprint("each worker is at audit ", from+10), func() bool { return slices.Min(newest(s)) >= from+10 })
	}
	further(0)
	testkit.NoError(t, server.Restart(t.Context()))
	further(newest(s)[0])
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/server/web"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5/pgxpool"
)

// fakePostgres records whether it is paused.
type fakePostgres struct {
	mu       sync.Mutex
	still    bool
	pauses   int
	failures int // of Resume, to come
}

func (f *fakePostgres) Pause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.still = true
	f.pauses++
	return nil
}

func (f *fakePostgres) Resume() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failures > 0 {
		f.failures--
		return errors.New("not yet")
	}
	f.still = false
	return nil
}

func (f *fakePostgres) standsStill() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.still
}

func TestPauseEndsByItselfAndWithDev(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pg := &fakePostgres{failures: 2} // Resume is tried again
		p := newPauser(pg, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		pause := func() {
			t.Helper()
			testkit.NoError(t, p.request())
			synctest.Wait()
			if !pg.standsStill() || p.remaining() != devPause {
				t.Errorf("it is not paused, with %v left", p.remaining())
			}
		}

		for want := 1; want <= 2; want++ {
			pause()
			if _, refused := errors.AsType[web.Refusal](p.request()); !refused {
				t.Error("a second pause during the first is not refused")
			}
			time.Sleep(devPause + time.Second)
			synctest.Wait()
			if pg.standsStill() || p.remaining() != 0 || pg.pauses != want {
				t.Errorf("after %v it is still paused, with %v left, for the %d. time", devPause, p.remaining(), pg.pauses)
			}
		}
		pause()
		cancel()
		if err := <-done; err != nil || pg.standsStill() {
			t.Errorf("run returns %v and leaves it paused: %v", err, pg.standsStill())
		}
	})
}

func TestLoopbackAddress(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.1.2.3:0": true, "[::1]:8080": true, "localhost:8080": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "192.168.1.10:80": false, "host.example:80": false, "nonsense": false,
	} {
		testkit.Equal(t, loopbackAddress(addr), want, addr)
	}
}

// testLab returns a lab with a running simulation of quick workers.
func testLab(t *testing.T) (lab *devLab, dsn string) {
	t.Helper()
	dsn = installed(t, sql.Options{})
	s := simulate(t, dsn, quick)
	pool, err := pgxpool.New(t.Context(), dsn)
	testkit.NoError(t, err)
	t.Cleanup(pool.Close)
	return &devLab{owner: pool, simulation: s, pause: newPauser(&fakePostgres{}, slog.New(slog.DiscardHandler))}, dsn
}

func TestLabStartsAndFails(t *testing.T) {
	t.Parallel()
	lab, dsn := testLab(t)
	start, fail := lab.actions()["start"], lab.actions()["fail"]
	status := func(id int64) string {
		return pgtest.Psql(t, dsn, fmt.Sprintf("select status from audits where id = %d", id))
	}
	var ids []int64
	for range maxExtras {
		got, err := start(t.Context(), nil)
		testkit.NoError(t, err)
		ids = append(ids, got.(map[string]int64)["id"])
	}
	_, err := start(t.Context(), nil)
	if _, refused := errors.AsType[web.Refusal](err); !refused {
		t.Errorf("more than %d audits at once: %v, want a refusal", maxExtras, err)
	}
	testkit.Eventually(t, "the started audit runs", func() bool { return status(ids[0]) == "running" })
	query := url.Values{"id": {strconv.FormatInt(ids[0], 10)}}
	_, err = fail(t.Context(), query)
	testkit.NoError(t, err)
	testkit.Equal(t, status(ids[0]), "failed", "the audit")
	for _, id := range []string{query.Get("id"), "0", "", "x", strconv.FormatInt(lab.simulation.byHand, 10), strconv.FormatInt(lab.simulation.foreign, 10)} {
		_, err := fail(t.Context(), url.Values{"id": {id}})
		if _, refused := errors.AsType[web.Refusal](err); !refused {
			t.Errorf("fail %q: %v, want a refusal", id, err)
		}
	}
	testkit.Equal(t, status(lab.simulation.byHand)+status(lab.simulation.foreign), "runningrunning", "what is none of its business")
	// Its worker notices the end, so that another audit may start.
	testkit.Eventually(t, "another audit may start", func() bool {
		_, err := start(t.Context(), nil)
		return err == nil
	})
}

func TestLabKillsTheListener(t *testing.T) {
	t.Parallel()
	lab, dsn := testLab(t)
	_, err := lab.killListener(t.Context())
	if _, refused := errors.AsType[web.Refusal](err); !refused {
		t.Errorf("without a listener: %v, want a refusal", err)
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	testkit.NoError(t, err)
	cfg.ConnConfig.RuntimeParams["application_name"] = "auditstream listener"
	listener, err := pgxpool.NewWithConfig(t.Context(), cfg)
	testkit.NoError(t, err)
	defer listener.Close()
	var pid int
	testkit.NoError(t, listener.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid))
	got, err := lab.killListener(t.Context())
	if err != nil || got.(map[string]int)["pid"] != pid {
		t.Fatalf("killed %v, %v, want process %d", got, err, pid)
	}
	testkit.Eventually(t, "the listener's process is gone", func() bool {
		return pgtest.Psql(t, dsn, fmt.Sprintf("select count(*) from pg_stat_activity where pid = %d", pid)) == "0"
	})
}

func TestPulseWhilePaused(t *testing.T) {
	t.Parallel()
	lab := &devLab{pause: newPauser(&fakePostgres{}, slog.New(slog.DiscardHandler))} // it asks nobody
	testkit.NoError(t, lab.pause.request())
	if got := lab.pulse(t.Context()).(pulse); got.Database != "paused" || got.ResumesIn <= 0 {
		t.Errorf("pulse %+v, want paused", got)
	}
}

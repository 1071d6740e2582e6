package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/jackc/pgx/v5"
)

// What is different between two measurements of writers. All have the same server connected.
const (
	triggersOff = "off"
	unwatched   = "on, nobody watching"
	tenth       = "on, 10 % watched"
	allWatched  = "on, all watched"
)

var triggerStates = []string{triggersOff, unwatched, tenth, allWatched}

// probes are audits that pgbench leaves alone. They are written at a steady pace by us, who know when: they tell how far
// behind a viewer is while the others are written as fast as PostgreSQL can.
const (
	probes    = 5
	probeRate = 20.0 // of each, a second
)

// writers measures the commits of n writers that do nothing else, with the triggers in each state.
func (b *bench) writers(t testing.TB, v variant, n, rows int, states []string) {
	t.Helper()
	a := b.app(t, v, rows)
	s := v.start(t, a)
	for _, state := range states {
		watched := map[string]int{tenth: rows / 10, allWatched: rows}[state]
		if state == triggersOff {
			harness.Exec(t, a.admin, "alter table audits disable trigger user")
		}
		harness.Exec(t, a.admin, "vacuum audits")
		var c *crowd
		if watched > 0 {
			c = gather(t, s, watched, watched)
		} else {
			a.forgotten(t)
		}
		if state == allWatched && b.scale.write >= time.Second {
			b.warm(t, a, n)
		}
		rate, took := b.pgbench(t, a, n)
		k := Key{Measure: commits, Unit: "/s", Variant: v.name, State: state, Rows: rows, Writers: n}
		b.figures.Add(k, rate)
		if watched > 0 {
			b.behind(t, a, c, k)
		}
		if state == triggersOff {
			harness.Exec(t, a.admin, "alter table audits enable trigger user")
		}
		t.Logf("%s: %d writers, %d rows, triggers %s: %.0f commits/s (%v)", v.name, n, rows, state, rate, took.Round(time.Millisecond))
	}
	s.stop(t)
}

// forgotten waits until those who watched before are.
func (a *application) forgotten(t testing.TB) { a.unlocked(t, 50*time.Millisecond) }

// behind measures the viewers of the probes.
func (b *bench) behind(t testing.TB, a *application, c *crowd, k Key) {
	t.Helper()
	var of []sample
	viewed := min(probes, len(c.clients))
	seen := map[int32]int32{}
	harness.Again(t, 10*time.Millisecond, func() error {
		for _, s := range c.take(t) {
			if s.Audit < probes {
				of = append(of, s)
				seen[s.Audit] = s.To
			}
		}
		for audit := range viewed {
			if seen[int32(audit)] != a.newest(audit) {
				return fmt.Errorf("the viewer of audit %d has not been shown the newest state", audit)
			}
		}
		return nil
	})
	delays := a.delays(of)
	k.Unit = "ms"
	k.Measure = behindMedian
	b.figures.Add(k, Quantile(delays, 0.5))
	k.Measure = behind99
	b.figures.Add(k, Quantile(delays, 0.99))
	c.leave(t)
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// warm makes a flood begin, so that all that is watched is read on a timer: that is what is measured then.
func (b *bench) warm(t testing.TB, a *application, n int) {
	t.Helper()
	if out, err := b.pgbenchCommand(t, a, n, "-T", "1").CombinedOutput(); err != nil {
		t.Fatalf("pgbench (of PostgreSQL): %v\n%s", err, out)
	}
}

// pgbench is PostgreSQL's own load, and how many commits there were a second.
func (b *bench) pgbench(t testing.TB, a *application, n int, flags ...string) (rate float64, took time.Duration) {
	t.Helper()
	length := []string{"-T", strconv.Itoa(int(b.scale.write.Seconds()))}
	if b.scale.write < time.Second {
		length = []string{"-t", "20"}
	}
	cmd := b.pgbenchCommand(t, a, n, append(length, flags...)...)
	ctx, cancel := context.WithCancel(t.Context())
	var probing sync.WaitGroup
	errs := make([]error, probes)
	for k := range probes {
		probing.Go(func() { errs[k] = a.probe(ctx, a.conns[k], k) })
	}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took = time.Since(began)
	cancel()
	probing.Wait()
	if err != nil {
		t.Fatalf("pgbench (of PostgreSQL): %v\n%s", err, out)
	}
	harness.NoError(t, errors.Join(errs...))
	found := tps.FindSubmatch(out)
	if found == nil {
		t.Fatalf("pgbench does not say how many transactions there were:\n%s", out)
	}
	rate, err = strconv.ParseFloat(string(found[1]), 64)
	harness.NoError(t, err)
	return rate, took
}

// pgbenchCommand is the load as it is by itself: one UPDATE a transaction, in the simple protocol. It takes less of the CPU that
// PostgreSQL needs than a client of ours would. It leaves total_pages alone, by which the application knows its own states.
func (b *bench) pgbenchCommand(t testing.TB, a *application, n int, length ...string) *exec.Cmd {
	t.Helper()
	script := filepath.Join(t.TempDir(), "update.sql")
	sql := fmt.Sprintf("\\set id random(%d, %d)\nupdate audits set progress = (progress + 1) %% 101 where id = :id;\n", probes+1, a.rows)
	harness.NoError(t, os.WriteFile(script, []byte(sql), 0o600))
	args := append([]string{"-n", "-c", strconv.Itoa(n), "-j", strconv.Itoa(min(n, 2)), "-f", script}, length...)
	cmd := exec.CommandContext(t.Context(), filepath.Join(b.pg.BinDir(), "pgbench"), append(args, a.dsn)...)
	cmd.Env = harness.Environment(nil)
	return cmd
}

// probe writes one audit until ctx is done.
func (a *application) probe(ctx context.Context, conn *pgx.Conn, audit int) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / probeRate))
	defer tick.Stop()
	for {
		// The last write is let finish: what is written has to be known.
		if err := a.write(context.WithoutCancel(ctx), conn, silent{}, audit); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

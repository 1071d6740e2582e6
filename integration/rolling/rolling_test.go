package rolling

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/integration/series"
	"auditstream/internal/pgtest"
)

// A new release is brought in: three instances behind nginx are stopped and replaced one after the other, while 1,000
// clients watch and audits change and end. Every client sees its audit's end, and none meets anything but a stream. They
// come back spread over the time that each was told at random: 2.5 to 7.5 s, of which a second is a fifth.
//
// ROLLING_RESTART=file.svg draws it. It has a thousand connections, and is not parallel.
func TestRollingRestart(t *testing.T) {
	const (
		clients = 1000
		audits  = 100
		// A third of the clients is sent away by an instance. Without the random times that third comes back within a second.
		most = clients / 4
	)
	db := harness.NewDatabase(t)
	ids := db.InsertMany(t, audits)
	addrs := []string{harness.QuietAddr(t), harness.QuietAddr(t), harness.QuietAddr(t)}
	f := &harness.Fleet{Running: make([]*harness.Instance, len(addrs))}
	start := func(k int) {
		f.Set(k, harness.Launch(t, harness.PlainBinary(t), db.Serve, "HTTP_ADDR="+addrs[k]))
		f.Get(k).WaitReady(t, "up")
	}
	for k := range addrs {
		start(k)
	}
	b := harness.StartNginx(t, addrs)
	a := b.Followed(t, clients, ids)
	allThere := func(n int) {
		t.Helper()
		harness.Eventually(t, func() error {
			if open := f.Streams(); open < n {
				return fmt.Errorf("%d streams are open, want %d", open, n)
			}
			return nil
		})
	}
	allThere(clients)
	updates := startUpdates(t, db)
	record := sampleFleet(t, f, a)

	for k := range addrs {
		f.Get(k).Signal(t, syscall.SIGTERM)
		// Some end while their viewers are on their way.
		gone := ids[5*k : 5*k+5]
		db.SQL(t, `update audits set status = 'completed' where id in (`+strings.Join(gone, ",")+`)`)
		harness.Equal(t, f.Get(k).End(t), 0, "exit status after SIGTERM, of instance", k)
		f.Set(k, nil)
		start(k)
		allThere(clients - (k+1)*5*clients/audits)
	}
	// nginx once gave an instance that had been away one stream every two seconds, and the others to the rest.
	for k := range len(addrs) - 1 {
		if open := f.Open(k); open < clients/20 {
			t.Errorf("instance %d has %d streams after the restart of the last one, want %d at least", k, open, clients/20)
		}
	}
	newest := updates()
	harness.Eventually(t, func() error {
		if behind := a.Behind(newest); behind > 15*clients/audits {
			return fmt.Errorf("%d clients have not seen state %d", behind-15*clients/audits, newest)
		}
		return nil
	})
	rates := record()
	db.SQL(t, `update audits set status = 'failed', error = 'e' where status <> 'completed'`)
	harness.Becomes(t, a.Left, 0, "clients that have not seen their audit's end")
	a.Check(t)
	if a.Ended["completed"] != 15*clients/audits || a.Ended["failed"] != clients-15*clients/audits {
		t.Errorf("clients saw these ends: %v, want %d completed, %d failed", a.Ended, 15*clients/audits, clients-15*clients/audits)
	}
	peak := slices.Max(rates.Series[0].Values)
	t.Logf("%d reconnects, %.0f in the worst second, %d new streams refused for now", a.Reconnects.Load(), peak, a.Refused.Load())
	if peak > most {
		t.Errorf("%.0f of %d clients reconnected in one second, want %d at most", peak, clients, most)
	}
	if a.Reconnects.Load() < clients*2/3 {
		t.Errorf("%d reconnects of %d clients, want most of them: were the instances in use?", a.Reconnects.Load(), clients)
	}
	draw(t, rates, os.Getenv("ROLLING_RESTART"))
}

// startUpdates numbers all audits' states, four times a second, until the function that it returns is called, which returns
// the last number.
func startUpdates(t testing.TB, db harness.Database) (stop func() int) {
	t.Helper()
	conn := pgtest.Connect(t, db.Admin)
	n := 0
	stopped := each(t, 250*time.Millisecond, func() {
		if _, err := conn.Exec(context.Background(), `update audits set total_pages = $1, progress = $1 % 100 where status <> 'completed'`, n+1); err != nil {
			t.Errorf("update: %v", err)
			return
		}
		n++
	})
	return func() int { stopped(); return n }
}

// each does something at intervals until the function that it returns is called.
func each(t testing.TB, interval time.Duration, do func()) (stop func()) {
	quit := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				do()
			}
		}
	})
	stop = sync.OnceFunc(func() { close(quit); group.Wait() })
	t.Cleanup(stop)
	return stop
}

// sampleFleet counts reconnects and streams each second until the function that it returns is called.
func sampleFleet(t testing.TB, f *harness.Fleet, a *harness.Followers) (stop func() *series.Record) {
	t.Helper()
	r := &series.Record{Title: fmt.Sprintf("Rolling restart of three instances behind nginx, %d clients", len(a.Newest)),
		Series: []*series.Series{{Name: "reconnects a second"}}}
	for k := range f.Running {
		r.Series = append(r.Series, &series.Series{Name: fmt.Sprintf("streams of instance %d", k+1)})
	}
	start, before := time.Now(), a.Reconnects.Load()
	last := start
	stopped := each(t, time.Second, func() {
		now, count := time.Now(), a.Reconnects.Load()
		r.Times = append(r.Times, now.Sub(start))
		// A tick that comes late has counted for longer than a second.
		r.Series[0].Values = append(r.Series[0].Values, float64(count-before)/max(1, now.Sub(last).Seconds()))
		last, before = now, count
		for k := range f.Running {
			r.Series[k+1].Values = append(r.Series[k+1].Values, float64(f.Open(k)))
		}
	})
	return func() *series.Record { stopped(); return r }
}

// draw writes the record where the operator of the test wants it, if anywhere.
func draw(t testing.TB, r *series.Record, path string) {
	t.Helper()
	if path == "" {
		return
	}
	file, err := os.Create(path)
	harness.NoError(t, err)
	harness.NoError(t, errors.Join(r.WriteSVG(file), file.Close()))
}

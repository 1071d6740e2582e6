package faults

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// earlier is a database with what an earlier version installed, for the role that serves.
func earlier(t *testing.T, version int) harness.Database {
	t.Helper()
	admin := pgtest.New(t)
	pgtest.Psql(t, admin, `do $$ begin
		create role `+harness.ServeRole+` login password 'serve-password' nosuperuser;
	exception when duplicate_object or unique_violation then null; end $$`)
	harness.Database{Admin: admin}.KeepsRowTexts(t)
	for _, name := range []string{"audits.sql", fmt.Sprintf("testdata/schema-%d.sql", version)} {
		script, err := os.ReadFile(harness.Path("internal/sql/" + name))
		harness.NoError(t, err)
		pgtest.Psql(t, admin, string(script))
	}
	grants := `grant usage on schema auditstream to ` + harness.ServeRole + `; grant select on auditstream.progress to ` + harness.ServeRole
	if version > 1 {
		grants += `; grant insert on auditstream.watch to ` + harness.ServeRole + `; grant execute on function auditstream.unwatch(bigint, bigint[]) to ` + harness.ServeRole
	}
	pgtest.Psql(t, admin, grants)
	u, err := url.Parse(admin)
	harness.NoError(t, err)
	u.User = url.UserPassword(harness.ServeRole, "serve-password")
	return harness.Database{Admin: admin, Serve: u.String()}
}

const (
	olderSchema = "the database's schema is older than this program: upgrade it with auditstream install"
	sameSchema  = "the database's schema is of this program's version now"
)

// An upgrade under writers at full speed, with streams open: each sees its audit's end, whenever that was. Up to version 4 a
// program of this version finds changes with the safety net, unless the triggers ring for every change as those of the first do.
// Afterwards the triggers look at locks, which nobody held before.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	harness.Binary(t) // a goroutine must not fail the test
	for _, test := range []struct {
		name    string
		version int
	}{
		{"from the first", 1},
		{"from the second", 2},
		{"from the third", 3},
		{"from the fourth", 4},
	} {
		t.Run(test.name, func(t *testing.T) { // in turn: each is a load of its own
			upgradeUnderLoad(t, earlier(t, test.version), test.version)
		})
	}
}

func upgradeUnderLoad(t *testing.T, db harness.Database, found int) {
	const writers, each = 3, 15
	interval := "3600"
	if found > 1 {
		interval = "1"
	}
	i := harness.Serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS="+interval, "SSE_POLL_HOT=off")
	i.WaitReady(t, map[bool]string{true: "polling", false: "up"}[found > 1]) // later triggers ask who watches
	older := i.WaitLog(t, olderSchema)
	if older["schema"] != float64(found) || older["program"] != float64(5) {
		t.Errorf("compared %v with %v, want %d with 5", older["schema"], older["program"], found)
	}
	command, _ := older["run"].(string)
	if want := "auditstream install --table public.audits --role " + harness.ServeRole; command != want {
		t.Fatalf("run %s, want %s", command, want)
	}
	args := append(strings.Fields(command)[1:], "--lock-wait=50s")
	ids := db.InsertMany(t, writers*each+2)
	long, old, ids := ids[0], ids[1], ids[2:]
	viewers := i.Crowd(t, len(ids)+2, append([]string{long, old}, ids...), nil)
	load := startWriters(t, db, ids, writers)
	for _, v := range viewers[2:6] { // pushed, as there is no other way here
		v.Reached(t, 1)
	}

	// Whose triggers always ring need not be told; of the others an alert speaks.
	if got := i.Metric(t, "auditstream_unannounced_buckets"); (got > 0) != (found > 1) {
		t.Errorf("%v buckets are not announced, by triggers of version %d", got, found)
	}
	// One writer is in the way of the first attempts, another has a snapshot of before.
	inTheWay, before, watcher := pgtest.Connect(t, db.Admin), pgtest.Connect(t, db.Admin), pgtest.Connect(t, db.Admin)
	harness.Script(t, inTheWay, `begin; update audits set total_pages = 1 where id = `+long)
	harness.Script(t, before, `begin isolation level repeatable read; select count(*) from audits where id < 0`)
	start := time.Now()
	installed := make(chan error, 1)
	go func() {
		code, stdout, stderr := harness.TryCommand(t, []string{"DATABASE_URL=" + db.Admin}, args...)
		if code != 0 {
			installed <- fmt.Errorf("install: exit status %d\n%s%s", code, stdout, stderr)
			return
		}
		if want := fmt.Sprintf("the schema was of version %d and is of version 5 now", found); !strings.Contains(stdout, want) {
			installed <- fmt.Errorf("install said %q, want %q", stdout, want)
			return
		}
		installed <- nil
	}()
	harness.Eventually(t, func() error {
		if !lockWaiting(t, watcher) {
			return errors.New("install does not wait for its lock")
		}
		return nil
	})
	harness.Script(t, inTheWay, `update audits set total_pages = 2, status = 'completed' where id = `+long+`; commit`)
	if err := <-installed; err != nil {
		t.Error(err)
	}
	t.Logf("installed after %v", time.Since(start).Round(time.Millisecond))
	harness.Script(t, before, `update audits set total_pages = 2, status = 'completed' where id = `+old+`; commit`)
	updates, longest, err := load.finish()
	if err != nil {
		t.Errorf("a writer failed: %v", err)
	}
	t.Logf("%d updates, the longest took %v", updates, longest.Round(time.Millisecond))
	if longest > harness.Patience { // an attempt at the lock takes 200 ms, and the machine may be busy
		t.Errorf("a writer waited %v", longest)
	}
	for _, v := range viewers {
		if got := v.Ended(t); got.Status != "completed" {
			t.Errorf("audit %s ended as %s", v.ID, harness.Describe(got))
		}
	}
	i.WaitLog(t, sameSchema)
	// It tells the triggers now what it watches, and hears of that.
	last := db.Insert(t, "status", "'running'")
	v := i.View(t, last, nil)
	harness.Eventually(t, func() error {
		got := db.SQL(t, `select count(*) from pg_locks l, auditstream.feeds f where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
			and l.database = (select oid from pg_database where datname = current_database())
			and l.classid::int8 = f.class and l.objid::int8 = hashint8(`+last+`) & (f.buckets - 1)`)
		if got != "1" {
			return fmt.Errorf("%s locks of an audit that is watched, want 1", got)
		}
		return nil
	})
	db.SQL(t, `update audits set total_pages = 1 where id = `+last)
	v.Reached(t, 1)
}

// writers update audits of their own as fast as they can, and complete one of them every now and then.
type upgradeLoad struct {
	group   sync.WaitGroup
	stop    chan struct{}
	updates atomic.Int64

	mu      sync.Mutex
	longest time.Duration
	err     error
}

func startWriters(t *testing.T, db harness.Database, ids []string, writers int) *upgradeLoad {
	t.Helper()
	l := &upgradeLoad{stop: make(chan struct{})}
	each := len(ids) / writers
	for k := range writers {
		conn := pgtest.Connect(t, db.Admin) // pgx prepares what it repeats: the plans of before the upgrade are kept
		own := ids[k*each : (k+1)*each]
		l.group.Go(func() { l.write(t, conn, own) })
	}
	return l
}

func (l *upgradeLoad) write(t *testing.T, conn *pgx.Conn, own []string) {
	update := func(id string, n int, status string) bool {
		number, _ := strconv.Atoi(id)
		from := time.Now()
		_, err := conn.Exec(t.Context(), `update audits set total_pages = $2, status = $3 where id = $1`, number, n, status)
		took := time.Since(from)
		l.updates.Add(1)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.longest, l.err = max(l.longest, took), errors.Join(l.err, err)
		return err == nil
	}
	for n := 1; ; n++ {
		select {
		case <-l.stop:
			for _, id := range own {
				if !update(id, n, "running") || !update(id, n+1, "completed") {
					return
				}
			}
			return
		default:
		}
		if !update(own[n%len(own)], n, "running") {
			return
		}
		if n%40 == 0 && len(own) > 5 {
			if !update(own[0], n, "completed") {
				return
			}
			own = own[1:]
		}
	}
}

// finish has what is left completed, and waits for it.
func (l *upgradeLoad) finish() (updates int64, longest time.Duration, err error) {
	close(l.stop)
	l.group.Wait()
	return l.updates.Load(), l.longest, l.err
}

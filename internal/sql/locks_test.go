package sql_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// docs/watch-as-locks.md on a real server: the triggers that install makes, and instances that are as simple as possible.

const (
	lockBuckets = 4 // so that rows share them
	lockRows    = 12
)

// fewBuckets installs the table of audits.sql with fewer buckets than install ever chooses.
func fewBuckets(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	plan := planned(t, conn, sql.Options{Create: true})
	match := regexp.MustCompile(`(\d+)::int as buckets`).FindStringSubmatch(plan.SQL)
	if match == nil {
		t.Fatal("the script does not say how many buckets there are")
	}
	many, err := strconv.Atoi(match[1])
	testkit.NoError(t, err)
	script := strings.NewReplacer(match[0], fmt.Sprint(lockBuckets, "::int as buckets"),
		fmt.Sprint(" ", many-1, ")"), fmt.Sprint(" ", lockBuckets-1, ")"),
		fmt.Sprint(", ", many, " operator"), fmt.Sprint(", ", lockBuckets, " operator")).Replace(plan.SQL)
	if strings.Contains(script, strconv.Itoa(many)) || strings.Contains(script, strconv.Itoa(many-1)) {
		t.Fatalf("%d buckets are left in the script:\n%s", many, script)
	}
	exec(t, conn, script)
	exec(t, conn, `alter table audits alter id drop identity, alter url drop not null, drop constraint audits_progress_check;
		insert into audits (id) select generate_series(1, 8)`)
}

// watcher is an instance: a session that listens and holds the locks, and one that reads.
type watcher struct {
	session, reader *pgx.Conn
	settles         bool // waits for whoever looked before the lock was taken
	armed           bool
	waits           map[uint64]struct{}
	shown           map[int64]int
}

func newWatcher(t *testing.T, dsn string, settles bool) *watcher {
	w := &watcher{session: pgtest.Connect(t, dsn), reader: pgtest.Connect(t, dsn), settles: settles}
	exec(t, w.session, `listen auditstream`)
	return w
}

func (w *watcher) arm(ctx context.Context) error {
	for !w.armed {
		taken := 0
		err := w.session.QueryRow(ctx, `select count(*) from (
			select pg_catalog.pg_try_advisory_lock_shared(class, b) as ok from auditstream.feeds, generate_series(0, buckets + 63) b offset 0) x
			where ok`).Scan(&taken)
		if err != nil {
			return err
		}
		if w.armed = taken == lockBuckets+64; !w.armed { // a writer was looking at that moment
			if err := w.disarm(ctx); err != nil {
				return err
			}
		}
	}
	open, err := w.open(ctx)
	if w.settles {
		w.waits = open
	}
	return err
}

func (w *watcher) disarm(ctx context.Context) error {
	w.armed, w.waits = false, nil
	_, err := w.session.Exec(ctx, `select pg_catalog.pg_advisory_unlock_all()`)
	return err
}

// open lists the transactions that have an id and have not ended. Those from the snapshot's xmax on are in no list of PostgreSQL's:
// age counts them, without drawing an id.
func (w *watcher) open(ctx context.Context) (open map[uint64]struct{}, err error) {
	var xip []int64
	var xmax, newer int64
	err = w.session.QueryRow(ctx, `select array(select pg_snapshot_xip(s)::text::bigint), pg_snapshot_xmax(s)::text::bigint,
		age(pg_snapshot_xmax(s)::xid) from pg_current_snapshot() s`).Scan(&xip, &xmax, &newer)
	if err != nil {
		return nil, err
	}
	open = map[uint64]struct{}{}
	for _, xid := range xip {
		open[uint64(xid)] = struct{}{}
	}
	for xid := xmax; xid < xmax+newer; xid++ {
		open[uint64(xid)] = struct{}{}
	}
	return open, nil
}

// read reads the rows with these ids; nil: all.
func (w *watcher) read(ctx context.Context, ids []int64) error {
	rows, err := w.reader.Query(ctx, `select audit_id, coalesce(total_pages, 0) from auditstream.progress
		where $1::bigint[] is null or audit_id = any ($1)`, ids)
	if err != nil {
		return err
	}
	if ids == nil {
		w.shown = map[int64]int{}
	}
	for _, id := range ids {
		delete(w.shown, id)
	}
	var id int64
	var pages int
	_, err = pgx.ForEachRow(rows, []any{&id, &pages}, func() error {
		w.shown[id] = pages
		return nil
	})
	return err
}

// hear reads the row that a notification is about.
func (w *watcher) hear(ctx context.Context, payload string) error {
	id, err := strconv.ParseInt(payload, 10, 64)
	if err != nil {
		return err
	}
	return w.read(ctx, []int64{id})
}

// step hears what there is to hear within a moment, and reads what it is about.
func (w *watcher) step(ctx context.Context, moment time.Duration) error {
	waitCtx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	switch n, err := w.session.WaitForNotification(waitCtx); {
	case err == nil:
		if err := w.hear(ctx, n.Payload); err != nil {
			return err
		}
	case waitCtx.Err() == nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return w.settle(ctx)
}

func (w *watcher) settle(ctx context.Context) error {
	if len(w.waits) == 0 {
		return nil
	}
	open, err := w.open(ctx)
	if err != nil {
		return err
	}
	before := len(w.waits)
	for xid := range w.waits {
		if _, ok := open[xid]; !ok {
			delete(w.waits, xid)
		}
	}
	if len(w.waits) < before {
		return w.read(ctx, nil)
	}
	return nil
}

// watch watches everything from some moment on until the writers have ended, and returns what it missed.
func (w *watcher) watch(ctx context.Context, random *rand.Rand, writing <-chan struct{}) (missed []string, err error) {
	time.Sleep(rand.N(8 * time.Millisecond)) // at any moment of the writers' work: it waits for none
	if err := errors.Join(w.read(ctx, nil), w.arm(ctx), w.read(ctx, nil)); err != nil {
		return nil, err
	}
	for open := true; open; {
		select {
		case <-writing:
			open = false
		default:
		}
		if open && random.IntN(6) == 0 { // a flood, which is over
			if err := errors.Join(w.disarm(ctx), w.arm(ctx), w.read(ctx, nil)); err != nil {
				return nil, err
			}
		}
		if err := w.step(ctx, rand.N(4*time.Millisecond)+1); err != nil {
			return nil, err
		}
	}
	for deadline := time.Now().Add(time.Minute); len(w.waits) > 0 && time.Now().Before(deadline); { // other databases' transactions, too
		if err := w.settle(ctx); err != nil {
			return nil, err
		}
	}
	// What was committed before this has been delivered when it comes.
	if _, err := w.session.Exec(ctx, `notify auditstream, '0'`); err != nil {
		return nil, err
	}
	for {
		n, err := w.session.WaitForNotification(ctx)
		if err != nil {
			return nil, err
		}
		if n.Payload == "0" && n.PID == w.session.PgConn().PID() {
			break
		}
		if err := w.hear(ctx, n.Payload); err != nil {
			return nil, err
		}
	}
	shown := w.shown
	if err := w.read(ctx, nil); err != nil {
		return nil, err
	}
	for id := range int64(lockRows + 1) {
		was, saw := shown[id]
		if is, there := w.shown[id]; is != was || there != saw {
			missed = append(missed, fmt.Sprintf("row %d: shown %v %d, is %v %d", id, saw, was, there, is))
		}
	}
	return missed, w.disarm(ctx)
}

// writeAtRandom runs one transaction, and counts the changes that it commits.
func writeAtRandom(ctx context.Context, conn *pgx.Conn, random *rand.Rand, changes *atomic.Int64) error {
	level := []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable}[random.IntN(4)]
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	count, saved, savepoint := int64(0), int64(0), false
	for range 1 + random.IntN(4) {
		id, other := 1+random.Int64N(lockRows), 1+random.Int64N(lockRows)
		query, args := `update audits set total_pages = coalesce(total_pages, 0) + 1 where id = $1`, []any{id}
		switch random.IntN(12) {
		case 0:
			query = `insert into audits (id) values ($1) on conflict (id) do update set total_pages = coalesce(audits.total_pages, 0) + 1`
		case 1:
			query = `delete from audits where id = $1`
		case 2:
			query, args = `update audits set id = $2 where id = $1 and not exists (select from audits where id = $2)`, []any{id, other}
		case 3, 4:
			query, args, savepoint, saved = `savepoint s`, nil, true, count
		case 5:
			if savepoint {
				query, args, count = `rollback to s`, nil, saved
			}
		}
		tag, err := tx.Exec(ctx, query, args...)
		if err != nil {
			return err
		}
		count += tag.RowsAffected()
		if random.IntN(2) == 0 {
			time.Sleep(rand.N(3 * time.Millisecond)) // for a transaction is open for a while
		}
	}
	if random.IntN(5) == 0 {
		return nil
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	changes.Add(count)
	return nil
}

// Ten writers and two instances, for some rounds.
func TestLocksMissNothing(t *testing.T) {
	t.Parallel()
	rounds := 8 // make nightly has more
	if text := os.Getenv("LOCKS_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal("LOCKS_ROUNDS:", err)
		}
	}
	dsn, admin := database(t)
	fewBuckets(t, admin)
	var writers []*pgx.Conn
	for range 10 {
		writers = append(writers, pgtest.Connect(t, dsn))
	}
	watchers := []*watcher{newWatcher(t, dsn, true), newWatcher(t, dsn, true)}
	seed := rand.Uint64()
	t.Log("seed", seed)
	var changes atomic.Int64
	var mu sync.Mutex
	var missed []string
	for round := range rounds {
		group, ctx := errgroup.WithContext(t.Context())
		written := make(chan struct{})
		var writing sync.WaitGroup
		for n, conn := range writers {
			writing.Add(1)
			group.Go(func() error {
				defer writing.Done()
				random := rand.New(rand.NewPCG(seed, uint64(round*100+n)))
				for range 4 {
					err := writeAtRandom(ctx, conn, random, &changes)
					if pgErr := new(pgconn.PgError); err != nil && (!errors.As(err, &pgErr) ||
						!slices.Contains([]string{"40001", "40P01", "23505"}, pgErr.Code)) { // serialization, deadlock, two inserts
						return err
					}
				}
				return nil
			})
		}
		for n, w := range watchers {
			group.Go(func() error {
				found, err := w.watch(ctx, rand.New(rand.NewPCG(seed, uint64(round*100+50+n))), written)
				mu.Lock()
				defer mu.Unlock()
				missed = append(missed, found...)
				return err
			})
		}
		go func() { writing.Wait(); close(written) }()
		testkit.NoError(t, group.Wait())
	}
	t.Logf("%d rounds, %d changes, %d missed", rounds, changes.Load(), len(missed))
	if changes.Load() < int64(10*rounds) || len(missed) > 0 {
		t.Errorf("%d changes in %d rounds, of which were missed: %v", changes.Load(), rounds, missed)
	}
}

// An instance that does not wait for the transactions that tried the lock before misses their changes; one that waits finds them.
func TestLocksAreTakenWhileAWriterIsOpen(t *testing.T) {
	t.Parallel()
	dsn, admin := database(t)
	fewBuckets(t, admin)
	writer := pgtest.Connect(t, dsn)
	for _, settles := range []bool{false, true} {
		w := newWatcher(t, dsn, settles)
		exec(t, writer, `begin; update audits set total_pages = coalesce(total_pages, 0) + 1 where id = 1`) // nobody watches
		testkit.NoError(t, errors.Join(w.arm(t.Context()), w.read(t.Context(), nil)))
		before := w.shown[1]
		exec(t, writer, `commit`)
		for deadline := time.Now().Add(time.Minute); settles && w.shown[1] == before && time.Now().Before(deadline); {
			testkit.NoError(t, w.settle(t.Context()))
		}
		if found := w.shown[1] != before; found != settles {
			t.Errorf("waiting for open transactions: %v; the change was found: %v", settles, found)
		}
		exec(t, writer, `update audits set total_pages = coalesce(total_pages, 0) + 1 where id = 1`)
		if n, err := w.session.WaitForNotification(t.Context()); err != nil || n.Payload != "1" {
			t.Errorf("%v, %v, want a notification of row 1, and of nothing before", n, err)
		}
		testkit.NoError(t, w.disarm(t.Context()))
	}
}

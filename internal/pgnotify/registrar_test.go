package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

// lockTable implements locks: the locks of one session and the cluster's transactions.
type lockTable struct {
	mu        sync.Mutex
	held      map[int32]int
	exclusive map[int32]bool // somebody else has it, exclusively
	*transactions
	acquired [][]int32
	lists    int
	checks   int
	fail     error
	latency  time.Duration
}

// transactions are those of the cluster, shared by all sessions.
type transactions struct {
	sync.Mutex
	running []uint64
	xmax    uint64
}

func newLockTable() *lockTable { return lockTableOf(&transactions{xmax: 100}) }

func lockTableOf(all *transactions) *lockTable {
	return &lockTable{held: map[int32]int{}, exclusive: map[int32]bool{}, transactions: all}
}

func (l *lockTable) connect(context.Context) (locks, error) { return l, nil }
func (l *lockTable) readLockSpace(context.Context) (f lockSpace, unknown, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checks++
	return lockSpace{1, maxBuckets}, nil, nil
}
func (l *lockTable) close() {}

func (l *lockTable) acquire(ctx context.Context, buckets []int32) (taken []int32, err error) {
	time.Sleep(l.latency)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acquired = append(l.acquired, slices.Sorted(slices.Values(buckets)))
	if l.fail != nil {
		return nil, l.fail
	}
	for _, b := range buckets {
		if !l.exclusive[b] {
			l.held[b]++
			taken = append(taken, b)
		}
	}
	return taken, nil
}

func (l *lockTable) release(_ context.Context, buckets []int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range buckets {
		if l.held[b]--; l.held[b] == 0 {
			delete(l.held, b)
		}
	}
	return l.fail
}

func (l *lockTable) openTransactions(context.Context) (open []uint64, next uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists++
	l.Lock()
	defer l.Unlock()
	return slices.Clone(l.transactions.running), l.xmax, l.fail
}

func (l *lockTable) listCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lists
}

func (l *transactions) begin(xid uint64) {
	l.Lock()
	defer l.Unlock()
	l.running = append(l.running, xid)
	l.xmax = max(l.xmax, xid+1)
	slices.Sort(l.running)
}

func (l *transactions) end(xid uint64) {
	l.Lock()
	defer l.Unlock()
	l.running = slices.DeleteFunc(l.running, func(x uint64) bool { return x == xid })
	l.xmax = max(l.xmax, xid+1)
}

func (l *lockTable) heldBuckets() []int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.held))
}

// marks records the buckets of the calls of mark, in their order.
type marks struct {
	mu  sync.Mutex
	all [][]int32
}

func (m *marks) mark(chosen func(store.Key) bool) {
	var buckets []int32
	for b := range int32(maxBuckets) {
		if chosen(in(b)) {
			buckets = append(buckets, b)
		}
	}
	if chosen(NewRows) {
		buckets = append(buckets, maxBuckets)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, slices.Sorted(slices.Values(buckets)))
}

func (m *marks) take() [][]int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.all
	m.all = nil
	return all
}

// takeSorted returns the buckets of all calls, each once.
func (m *marks) takeSorted() []int32 {
	synctest.Wait()
	all := slices.Concat(m.take()...)
	slices.Sort(all)
	return slices.Compact(all)
}

// keysOf returns a key for each bucket.
var keysOf = sync.OnceValue(func() (keys [maxBuckets]store.Key) {
	for id, missing := int64(1), maxBuckets; missing > 0; id++ {
		if key := store.IntKey(id); keys[bucketOf(store.Audits, key)] == "" {
			keys[bucketOf(store.Audits, key)] = key
			missing--
		}
	}
	return keys
})

// in returns a key in a bucket of maxBuckets.
func in(b int32) store.Key { return keysOf()[b] }

// auditsOf returns the announcer of the feed audits.
type auditsOf struct {
	*Registrar
	*FeedAnnouncer
}

func withAudits(r *Registrar) auditsOf { return auditsOf{r, r.Feed(store.Audits)} }

func newRegistrar(connect func(context.Context) (locks, error), logger *slog.Logger) auditsOf {
	return withAudits(&Registrar{connect: connect, logger: logger, wake: NewBell(), checkBell: NewBell()})
}

// sessions is a Registrar to which the test gives one session after the other.
type sessions struct {
	auditsOf
	ctx context.Context
	end func()
}

func newSessions(ctx context.Context, mark func(func(store.Key) bool)) *sessions {
	s := &sessions{newRegistrar(nil, slog.New(slog.DiscardHandler)), ctx, func() {}}
	if mark != nil {
		s.Attach(mark)
	}
	return s
}

// Session ends the session; nil: no other follows.
func (s *sessions) Session(l locks) {
	s.end()
	if s.end = func() {}; l == nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	s.end = func() {
		cancel()
		<-done
	}
	s.connect = func(context.Context) (locks, error) { return l, nil }
	go func() {
		defer close(done)
		_, _ = s.session(ctx)
	}()
}

func startRegistrar(t *testing.T, l locks) (*sessions, *marks) {
	t.Helper()
	m := new(marks)
	r := newSessions(t.Context(), m.mark)
	r.Session(l)
	return r, m
}

func wantMarks(t *testing.T, m *marks, want ...[]int32) {
	t.Helper()
	synctest.Wait()
	if got := m.take(); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("to be read: %v, want %v", got, want)
	}
}

func TestBucketIsTakenThenReadAndGivenBackLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, l)
		r.Want(in(7))
		if r.Announced(in(7)) {
			t.Error("announced before it was taken")
		}
		wantMarks(t, m, []int32{7})
		r.Want(in(7))
		if !r.Announced(in(7)) || r.Announced(in(8)) {
			t.Error("taken, with nobody to wait for, and not announced")
		}
		r.Leave(in(7))
		time.Sleep(2 * lockLinger)
		wantMarks(t, m)
		r.Leave(in(7))
		time.Sleep(lockLinger - time.Millisecond)
		r.Want(in(7))
		time.Sleep(time.Hour)
		if got := l.heldBuckets(); !slices.Equal(got, []int32{7}) {
			t.Errorf("held: %v, want 7, which somebody came back to", got)
		}
		r.Leave(in(7))
		time.Sleep(lockLinger + time.Millisecond)
		synctest.Wait()
		if got := l.heldBuckets(); len(got) > 0 || r.Announced(in(7)) {
			t.Errorf("held: %v, want nothing", got)
		}
		wantMarks(t, m)
		r.Want(in(7))
		wantMarks(t, m, []int32{7})
	})
}

// The registrar waits for a transaction that tried the lock before it was held, and then reads again what it may have changed.
func TestOpenTransactionsAreWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.begin(50)
		l.begin(60)
		r, m := startRegistrar(t, l)
		r.Want(in(1))
		r.Want(in(2))
		synctest.Wait()
		if r.Announced(in(1)) {
			t.Error("announced while transactions are open")
		}
		if got := m.takeSorted(); !slices.Equal(got, []int32{1, 2}) {
			t.Errorf("to be read: %v", got)
		}
		l.end(50)
		time.Sleep(2 * retryMax)
		if got := m.takeSorted(); !slices.Equal(got, []int32{1, 2}) || r.Announced(in(1)) {
			t.Errorf("after the first has ended: %v to be read, announced: %v", got, r.Announced(in(1)))
		}
		l.begin(200) // looks late enough
		time.Sleep(5 * time.Minute)
		wantMarks(t, m)
		if n := l.listCount(); n > 330 {
			t.Errorf("%d looks in 5 minutes, want one a second at most", n)
		}
		l.end(60)
		time.Sleep(2 * retryMax)
		if got := m.takeSorted(); !slices.Equal(got, []int32{1, 2}) || !r.Announced(in(1)) || !r.Announced(in(2)) {
			t.Errorf("after both have ended: %v to be read, announced: %v", got, r.Announced(in(1)))
		}
		looks := l.listCount()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if l.listCount() > looks {
			t.Errorf("%d looks with nobody to wait for", l.listCount()-looks)
		}
	})
}

func TestBucketThatSomebodyElseHoldsIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.exclusive[3] = true
		r, m := startRegistrar(t, l)
		r.Want(in(3))
		r.Want(in(4))
		synctest.Wait()
		if n := r.Unheld(); n != 1 {
			t.Errorf("%d are not held, want 1", n)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(l.acquired); n > 700 {
			t.Errorf("tried %d times in 10 minutes", n)
		}
		m.take()
		l.mu.Lock()
		delete(l.exclusive, 3)
		l.mu.Unlock()
		time.Sleep(2 * retryMax)
		wantMarks(t, m, []int32{3})
	})
}

// Locks end with their session: the next session acquires all of them, reads all buckets, and waits for open transactions anew.
func TestNewSessionTakesAllAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, l)
		for b := range int32(3000) {
			r.Want(in(b))
		}
		synctest.Wait()
		m.take()
		r.Session(nil)
		synctest.Wait()
		if n := r.Unheld(); n != 3000 || r.Announced(in(5)) {
			t.Errorf("%d are held without a session", 3000-n)
		}
		other := newLockTable()
		r.Session(other)
		synctest.Wait()
		if n := r.Unheld(); n != 0 || len(other.heldBuckets()) != 3000 || !r.Announced(in(5)) {
			t.Errorf("%d are not held", n)
		}
		if got := len(slices.Concat(m.take()...)); got != 3000 {
			t.Errorf("%d are to be read, want 3000", got)
		}
		if len(other.acquired) != 3 {
			t.Errorf("%d statements for 3000 buckets, want 3", len(other.acquired))
		}
	})
}

func TestFloodGivesAllBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, l)
		r.Want(in(1))
		r.Want(in(2))
		synctest.Wait()
		m.take()
		r.Flood(true)
		synctest.Wait()
		r.Want(in(3))
		time.Sleep(time.Minute)
		if got := l.heldBuckets(); len(got) > 0 {
			t.Errorf("held in a flood: %v", got)
		}
		wantMarks(t, m)
		r.Flood(false)
		if got := m.takeSorted(); !slices.Equal(got, []int32{1, 2, 3}) || len(l.heldBuckets()) != 3 {
			t.Errorf("after it: %v to be read, %v held", got, l.heldBuckets())
		}
	})
}

// S9: a failure of an earlier session does not affect a new one.
func TestS9FailureIsNotTheNextSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.fail = errors.New("broken")
		r, m := startRegistrar(t, l)
		r.Want(in(1))
		time.Sleep(time.Minute)
		wantMarks(t, m)
		r.Session(newLockTable())
		wantMarks(t, m, []int32{1})
	})
}

// S3: when 40,000 watchers leave at once, nothing stays behind, it takes a moment, and no statement grows with their number.
func TestS3AllLeaveAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, _ := startRegistrar(t, l)
		for b := range int32(maxBuckets) {
			r.Want(in(b))
		}
		synctest.Wait()
		for b := range int32(maxBuckets) {
			r.Leave(in(b))
		}
		time.Sleep(lockLinger + time.Second)
		synctest.Wait()
		if r.Unheld()+len(l.heldBuckets()) > 0 {
			t.Errorf("%d not held, %d locks left", r.Unheld(), len(l.heldBuckets()))
		}
	})
}

// In a random run, every change in a bucket with watched keys is announced or read, whatever the registrar does.
func TestRegistrarMissesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			l := newLockTable()
			l.latency = time.Millisecond
			var mu sync.Mutex
			committed, known := map[int32]int{}, map[int32]int{}
			read := func(buckets []int32) {
				mu.Lock()
				defer mu.Unlock()
				for _, b := range buckets {
					known[b] = committed[b]
				}
			}
			mark := func(chosen func(store.Key) bool) {
				for b := range int32(4) {
					if chosen(in(b)) {
						read([]int32{b})
					}
				}
			}
			r := newSessions(t.Context(), mark)
			r.Session(l)
			watched := map[int32]bool{}
			xid := uint64(100)
			var writers sync.WaitGroup
			for range 60 {
				b := random.Int32N(4)
				switch random.IntN(5) {
				case 0:
					if !watched[b] {
						watched[b] = true
						read([]int32{b}) // whoever is marked from here on is read again
						time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
						r.Want(in(b))
					}
				case 1:
					if watched[b] {
						watched[b] = false
						r.Leave(in(b))
					}
				case 2:
					if random.IntN(4) == 0 {
						l = lockTableOf(l.transactions)
						l.latency = time.Millisecond
						r.Session(l)
					}
				default:
					xid++
					id, db := xid, l
					db.begin(id)
					db.mu.Lock()
					rings := db.held[b] > 0
					db.mu.Unlock()
					lasts := time.Duration(random.IntN(50)) * time.Millisecond
					writers.Go(func() {
						time.Sleep(lasts)
						mu.Lock()
						committed[b]++
						mu.Unlock()
						db.end(id)
						if rings {
							read([]int32{b})
						}
					})
				}
				time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond)
			}
			writers.Wait()
			time.Sleep(5 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			for b, yes := range watched {
				if yes && known[b] != committed[b] {
					t.Errorf("seed %d: bucket %d: %d is known of %d", seed, b, known[b], committed[b])
				}
			}
		})
	}
}

// When a watcher comes back while the lock is being released, the lock is acquired again and the bucket is read.
func TestWantDuringGiveBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, slowRelease{l})
		r.Want(in(1))
		wantMarks(t, m, []int32{1})
		r.Leave(in(1))
		time.Sleep(lockLinger + time.Second/2)
		r.Want(in(1))
		time.Sleep(time.Second)
		wantMarks(t, m, []int32{1})
		if l.held[1] != 1 || !r.Announced(in(1)) {
			t.Errorf("held %d times, want once", l.held[1])
		}
	})
}

type slowRelease struct{ *lockTable }

func (l slowRelease) release(ctx context.Context, buckets []int32) error {
	err := l.lockTable.release(ctx, buckets)
	time.Sleep(time.Second)
	return err
}

// A session that ends while it acquires locks has acquired none.
func TestSessionEndsDuringTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.latency = time.Second
		r, m := startRegistrar(t, l)
		r.Want(in(1))
		time.Sleep(500 * time.Millisecond)
		r.Session(nil)
		time.Sleep(time.Minute)
		wantMarks(t, m)
		if r.Announced(in(1)) || r.Unheld() != 1 {
			t.Error("held by a session that is over")
		}
		r.Session(newLockTable())
		wantMarks(t, m, []int32{1})
	})
}

// A session that fails again and again is tried less and less often, and logged once when it fails and once when it works.
func TestRefusalIsLoggedOnceAndBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		l := newLockTable()
		l.fail = errors.New("out of shared memory")
		r := newRegistrar(l.connect, log.Logger())
		r.Attach(new(marks).mark)
		r.Want(in(1))
		go func() { _ = r.Run(t.Context()) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(l.acquired); n < 100 || n > 250 {
			t.Errorf("tried %d times in 10 minutes", n)
		}
		l.mu.Lock()
		l.fail = nil
		l.mu.Unlock()
		time.Sleep(backoffMax)
		synctest.Wait()
		if log.Count("cannot learn what is watched, trying again") != 1 || log.Count("telling the triggers") != 1 || !r.Announced(in(1)) {
			t.Errorf("announced %v, log:\n%s", r.Announced(in(1)), &log)
		}
	})
}

// Each bucket waits for the transactions that were open when its lock was acquired, whatever other buckets wait for.
func TestBucketsWaitForTheirOwnTransactions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, l)
		l.begin(100)
		r.Want(in(1))
		synctest.Wait()
		l.begin(101)
		r.Want(in(2))
		synctest.Wait()
		r.Want(NewRows)
		wait := func(want ...int32) {
			t.Helper()
			time.Sleep(2 * retryMax)
			if got := m.takeSorted(); !slices.Equal(got, want) {
				t.Errorf("to be read %v, want %v", got, want)
			}
		}
		wait(1, 2, maxBuckets)
		l.begin(102) // looks late enough
		l.end(102)
		wait()
		l.end(101)
		wait(2, maxBuckets)
		if r.Announced(in(1)) || r.Announced(in(2)) || r.Announced(NewRows) {
			t.Error("100 is not waited for")
		}
		r.Want(in(3)) // while 100 goes on
		wait(3)
		l.end(100)
		wait(1, 2, 3, maxBuckets)
		if !r.Announced(in(1)) || !r.Announced(in(2)) || !r.Announced(in(3)) || !r.Announced(NewRows) || len(r.Registrar.openWriters) > 0 {
			t.Errorf("somebody is waited for still: %v", r.openWriters)
		}
	})
}

// While the registrar waits for a transaction, a lock may be released and acquired again: the transaction is not forgotten.
func TestBucketThatIsTakenAgainWaitsToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, l)
		l.begin(100)
		for range 3 {
			r.Want(in(1))
			time.Sleep(time.Second)
			r.Flood(true)
			time.Sleep(time.Second)
			r.Flood(false)
			time.Sleep(time.Second)
			r.Leave(in(1))
			time.Sleep(2 * lockLinger)
		}
		r.Want(in(1))
		time.Sleep(time.Second)
		synctest.Wait()
		m.take()
		if r.Announced(in(1)) {
			t.Error("100 is not waited for")
		}
		l.end(100)
		time.Sleep(2 * retryMax)
		wantMarks(t, m, []int32{1})
		if !r.Announced(in(1)) {
			t.Error("100 has ended")
		}
	})
}

// The same address may lead to another cluster, with lower transaction ids. The registrar waited for ever for the transactions of the old one.
func TestNewSessionWaitsForNobodyOfBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.begin(5000)
		r, m := startRegistrar(t, l)
		r.Want(in(1))
		time.Sleep(time.Second)
		r.Session(newLockTable())
		time.Sleep(time.Second)
		synctest.Wait()
		m.take()
		other := newLockTable()
		other.begin(100)
		r.Session(other)
		time.Sleep(time.Second)
		other.end(100)
		time.Sleep(2 * retryMax)
		synctest.Wait()
		if !r.Announced(in(1)) || len(r.Registrar.openWriters) > 0 {
			t.Errorf("waits for %v", r.openWriters)
		}
		looks := other.listCount()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := other.listCount() - looks; n > 0 {
			t.Errorf("%d looks with nobody to wait for", n)
		}
	})
}

// Each session checked fifteen times a minute which locks the triggers ask for, while nobody watched.
func TestU22RegistrarAsksNothingWhileNobodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r := newRegistrar(l.connect, slog.New(slog.DiscardHandler))
		r.Attach(new(marks).mark)
		done := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- r.Run(ctx) }()
		asked := func(want int, what string) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.checks != want {
				t.Errorf("%s: asked %d times, want %d", what, l.checks, want)
			}
		}
		time.Sleep(time.Hour)
		asked(1, "an idle hour")
		r.Want("1")
		asked(2, "the first viewer")
		time.Sleep(4*checkInterval + time.Second)
		asked(6, "while somebody watches")
		r.Leave("1")
		time.Sleep(time.Hour)
		asked(6, "idle again")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Feeds share the session and the buckets. Each feed's mark gets its own keys, and a flooded or detached feed takes no lock from another.
func TestFeedsShareBuckets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		r, m := startRegistrar(t, l)
		jobs, other := r.Feed(&store.Feed{Name: "jobs", Key: store.TextKeys}), new(marks)
		jobs.Attach(other.mark)
		bucket := bucketOf(jobs.feed, "x")
		r.Want(in(bucket))
		synctest.Wait()
		jobs.Want("x")
		synctest.Wait()
		if got := m.take(); len(got) != 1 || len(other.take()) != 1 || !jobs.Announced("x") || !r.Announced(in(bucket)) {
			t.Errorf("to be read: %v", got)
		}
		jobs.Flood(true)
		jobs.Want("x")
		jobs.Flood(true)
		time.Sleep(time.Minute)
		if got := l.heldBuckets(); !slices.Equal(got, []int32{bucket}) || jobs.Announced("x") || !r.Announced(in(bucket)) || r.Unheld() != 0 {
			t.Errorf("one of two is flooded, held: %v", got)
		}
		r.Leave(in(bucket))
		time.Sleep(time.Minute)
		if got := l.heldBuckets(); len(got) > 0 || r.Unheld() != 0 {
			t.Errorf("held: %v", got)
		}
		jobs.Flood(false)
		synctest.Wait()
		if got := l.heldBuckets(); !slices.Equal(got, []int32{bucket}) || !jobs.Announced("x") {
			t.Errorf("after the flood, held: %v", got)
		}
		jobs.Detach()
		time.Sleep(time.Minute)
		if got := l.heldBuckets(); len(got) > 0 || jobs.Announced("x") {
			t.Errorf("without the feed, held: %v", got)
		}
		other.take()
		r.Want(in(bucket))
		synctest.Wait()
		if got := other.take(); len(got) > 0 {
			t.Errorf("who is gone was told of %v", got)
		}
	})
}

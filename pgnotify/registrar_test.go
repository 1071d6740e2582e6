package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"
)

// lockTable is a database's locks and transactions, as one session sees them.
type lockTable struct {
	mu   sync.Mutex
	held map[int32]int
	busy map[int32]bool // somebody else has it, exclusively
	*transactions
	takes   [][]int32
	looks   int
	fail    error
	latency time.Duration
}

// transactions are the cluster's, whatever the session.
type transactions struct {
	sync.Mutex
	open []uint64
	xmax uint64
}

func newLockTable() *lockTable { return lockTableOf(&transactions{xmax: 100}) }

func lockTableOf(all *transactions) *lockTable {
	return &lockTable{held: map[int32]int{}, busy: map[int32]bool{}, transactions: all}
}

func (l *lockTable) Take(_ context.Context, buckets []int32) (taken []int32, err error) {
	time.Sleep(l.latency)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takes = append(l.takes, slices.Sorted(slices.Values(buckets)))
	if l.fail != nil {
		return nil, l.fail
	}
	for _, b := range buckets {
		if !l.busy[b] {
			l.held[b]++
			taken = append(taken, b)
		}
	}
	return taken, nil
}

func (l *lockTable) GiveBack(_ context.Context, buckets []int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range buckets {
		if l.held[b]--; l.held[b] == 0 {
			delete(l.held, b)
		}
	}
	return l.fail
}

func (l *lockTable) Open(context.Context) (open []uint64, next uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	l.Lock()
	defer l.Unlock()
	return slices.Clone(l.open), l.xmax, l.fail
}

func (l *transactions) begin(xid uint64) {
	l.Lock()
	defer l.Unlock()
	l.open = append(l.open, xid)
	l.xmax = max(l.xmax, xid+1)
	slices.Sort(l.open)
}

func (l *transactions) end(xid uint64) {
	l.Lock()
	defer l.Unlock()
	l.open = slices.DeleteFunc(l.open, func(x uint64) bool { return x == xid })
	l.xmax = max(l.xmax, xid+1)
}

func (l *lockTable) holds() []int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var held []int32
	for b := range l.held {
		held = append(held, b)
	}
	slices.Sort(held)
	return held
}

// marks are the buckets that are to be read, in the order of the calls.
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
	if chosen(Beginning) {
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

// keysOf has a key in each bucket.
var keysOf = sync.OnceValue(func() (keys [maxBuckets]store.Key) {
	for id, missing := int64(1), maxBuckets; missing > 0; id++ {
		if key := store.IntKey(id); keys[bucketOf(key)] == "" {
			keys[bucketOf(key)] = key
			missing--
		}
	}
	return keys
})

// in is a key in a bucket of maxBuckets.
func in(b int32) store.Key { return keysOf()[b] }

func startRegistrar(t *testing.T, l Locks) (*Registrar, *marks) {
	t.Helper()
	m := new(marks)
	r := NewRegistrar(m.mark, slog.New(slog.DiscardHandler), nil)
	go func() { _ = r.Run(t.Context()) }()
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
		time.Sleep(2 * lingers)
		wantMarks(t, m)
		r.Leave(in(7))
		time.Sleep(lingers - time.Millisecond)
		r.Want(in(7))
		time.Sleep(time.Hour)
		if got := l.holds(); !slices.Equal(got, []int32{7}) {
			t.Errorf("held: %v, want 7, which somebody came back to", got)
		}
		r.Leave(in(7))
		time.Sleep(lingers + time.Millisecond)
		synctest.Wait()
		if got := l.holds(); len(got) > 0 || r.Announced(in(7)) {
			t.Errorf("held: %v, want nothing", got)
		}
		wantMarks(t, m)
		r.Want(in(7))
		wantMarks(t, m, []int32{7})
	})
}

// Whoever looked before the lock was taken is waited for, and what he may have changed is read again.
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
		got := slices.Concat(m.take()...)
		if slices.Sort(got); !slices.Equal(got, []int32{1, 2}) {
			t.Errorf("to be read: %v", got)
		}
		l.end(50)
		time.Sleep(2 * retryMax)
		got = slices.Concat(m.take()...)
		if slices.Sort(got); !slices.Equal(slices.Compact(got), []int32{1, 2}) || r.Announced(in(1)) {
			t.Errorf("after the first has ended: %v to be read, announced: %v", got, r.Announced(in(1)))
		}
		l.begin(200) // looks late enough
		time.Sleep(time.Hour)
		wantMarks(t, m)
		if l.looks > 3700 {
			t.Errorf("%d looks in an hour, want one a second at most", l.looks)
		}
		l.end(60)
		time.Sleep(2 * retryMax)
		got = slices.Concat(m.take()...)
		if slices.Sort(got); !slices.Equal(slices.Compact(got), []int32{1, 2}) || !r.Announced(in(1)) || !r.Announced(in(2)) {
			t.Errorf("after both have ended: %v to be read, announced: %v", got, r.Announced(in(1)))
		}
		looks := l.looks
		time.Sleep(time.Hour)
		if l.looks > looks {
			t.Errorf("%d looks with nobody to wait for", l.looks-looks)
		}
	})
}

func TestBucketThatSomebodyElseHoldsIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.busy[3] = true
		r, m := startRegistrar(t, l)
		r.Want(in(3))
		r.Want(in(4))
		synctest.Wait()
		if n := r.unheld(); n != 1 {
			t.Errorf("%d are not held, want 1", n)
		}
		time.Sleep(10 * time.Minute)
		if n := len(l.takes); n > 700 {
			t.Errorf("tried %d times in 10 minutes", n)
		}
		m.take()
		l.mu.Lock()
		delete(l.busy, 3)
		l.mu.Unlock()
		time.Sleep(2 * retryMax)
		wantMarks(t, m, []int32{3})
	})
}

// Locks end with their session: all is taken anew, and read, and nothing that was settled is.
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
		if n := r.unheld(); n != 3000 || r.Announced(in(5)) {
			t.Errorf("%d are held without a session", 3000-n)
		}
		other := newLockTable()
		r.Session(other)
		synctest.Wait()
		if n := r.unheld(); n != 0 || len(other.holds()) != 3000 || !r.Announced(in(5)) {
			t.Errorf("%d are not held", n)
		}
		if got := len(slices.Concat(m.take()...)); got != 3000 {
			t.Errorf("%d are to be read, want 3000", got)
		}
		if len(other.takes) != 3 {
			t.Errorf("%d statements for 3000 buckets, want 3", len(other.takes))
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
		if got := l.holds(); len(got) > 0 {
			t.Errorf("held in a flood: %v", got)
		}
		wantMarks(t, m)
		r.Flood(false)
		synctest.Wait()
		got := slices.Concat(m.take()...)
		if slices.Sort(got); !slices.Equal(got, []int32{1, 2, 3}) || len(l.holds()) != 3 {
			t.Errorf("after it: %v to be read, %v held", got, l.holds())
		}
	})
}

// S9: a failure of before has nothing to do with a new session.
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

// S3: 40,000 leave at once, and nothing stays behind, within a moment and without a call that grows with their number.
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
		time.Sleep(lingers + time.Second)
		if r.unheld()+len(l.holds()) > 0 {
			t.Errorf("%d not held, %d locks left", r.unheld(), len(l.holds()))
		}
	})
}

// At random: every change of a bucket in which somebody watches is either announced or read, whatever the registrar does.
func TestRegistrarMissesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
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
			r := NewRegistrar(mark, slog.New(slog.DiscardHandler), nil)
			go func() { _ = r.Run(t.Context()) }()
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
			time.Sleep(time.Minute)
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

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

func (l *lockTable) Take(ctx context.Context, buckets []int32) (taken []int32, open Snapshot, err error) {
	taken, err = l.take(buckets)
	if err != nil || len(taken) == 0 {
		return nil, Snapshot{}, err
	}
	time.Sleep(l.latency) // between the two statements
	open, err = l.Snapshot(ctx)
	return taken, open, err
}

func (l *lockTable) take(buckets []int32) (taken []int32, err error) {
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
	if l.fail != nil {
		return l.fail
	}
	for _, b := range buckets {
		if l.held[b]--; l.held[b] == 0 {
			delete(l.held, b)
		}
	}
	return nil
}

func (l *lockTable) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *lockTable) Snapshot(context.Context) (Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	l.Lock()
	defer l.Unlock()
	return Snapshot{Xmax: l.xmax, InProgress: slices.Clone(l.open)}, l.fail
}

func (l *transactions) begin(xid uint64) {
	l.Lock()
	defer l.Unlock()
	l.open = append(l.open, xid)
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
	r := NewRegistrar(m.mark, slog.New(slog.DiscardHandler))
	go func() { _ = r.Run(t.Context()) }()
	r.Session(l, maxBuckets)
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
		time.Sleep(2 * lookMax)
		got = slices.Concat(m.take()...)
		if slices.Sort(got); !slices.Equal(slices.Compact(got), []int32{1, 2}) || r.Announced(in(1)) {
			t.Errorf("after the first has ended: %v to be read, announced: %v", got, r.Announced(in(1)))
		}
		l.begin(200) // looks late enough
		time.Sleep(time.Hour)
		wantMarks(t, m) // waits
		if l.looks > 3700 {
			t.Errorf("%d looks in an hour, want one a second at most", l.looks)
		}
		l.end(60)
		time.Sleep(2 * lookMax)
		got = slices.Concat(m.take()...)
		if slices.Sort(got); !slices.Equal(slices.Compact(got), []int32{1, 2}) || !r.Announced(in(1)) || !r.Announced(in(2)) {
			t.Errorf("after both have ended: %v to be read, announced: %v", got, r.Announced(in(1)))
		}
		synctest.Wait()
		looks := l.looks
		time.Sleep(time.Hour)
		synctest.Wait()
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
		if n := r.Unheld(); n != 1 {
			t.Errorf("%d are not held, want 1", n)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
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
		r.Session(nil, 0)
		synctest.Wait()
		if n := r.Unheld(); n != 3000 || r.Announced(in(5)) {
			t.Errorf("%d are held without a session", 3000-n)
		}
		other := newLockTable()
		r.Session(other, maxBuckets)
		synctest.Wait()
		if n := r.Unheld(); n != 0 || len(other.holds()) != 3000 || !r.Announced(in(5)) {
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
		r.Session(newLockTable(), maxBuckets)
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
		synctest.Wait()
		if len(r.buckets)+len(l.holds()) > 0 {
			t.Errorf("%d buckets, %d locks left", len(r.buckets), len(l.holds()))
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
			r := NewRegistrar(mark, slog.New(slog.DiscardHandler))
			go func() { _ = r.Run(t.Context()) }()
			r.Session(l, maxBuckets)
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
						r.Session(l, maxBuckets)
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

// The triggers' number of buckets is known when there is a session, and an install may change it.
// A lock that could not be given back was forgotten, and taken a second time later: writers notified until the session ended.
func TestGiveBackThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, flood := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLockTable()
			r, _ := startRegistrar(t, l)
			r.Want(in(1))
			synctest.Wait()
			l.failWith(errors.New("busy"))
			if flood {
				r.Flood(true)
			} else {
				r.Leave(in(1))
			}
			time.Sleep(time.Minute)
			if got := l.holds(); !slices.Equal(got, []int32{1}) {
				t.Fatalf("held: %v", got)
			}
			l.failWith(nil)
			time.Sleep(lingers + 2*retryMax)
			if got := l.holds(); len(got) > 0 {
				t.Errorf("flood %v: still held: %v", flood, got)
			}
			r.Want(in(1))
			r.Flood(false)
			synctest.Wait()
			if l.held[1] != 1 || !r.Announced(in(1)) {
				t.Errorf("flood %v: held %d times, want once", flood, l.held[1])
			}
		})
	}
}

// Whoever comes back while the lock is being given back has it taken again, and read.
func TestWantDuringGiveBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		slow := slowGiveBack{l}
		r, m := startRegistrar(t, slow)
		r.Want(in(1))
		wantMarks(t, m, []int32{1})
		r.Leave(in(1))
		time.Sleep(lingers + time.Second/2)
		r.Want(in(1))
		time.Sleep(time.Second)
		wantMarks(t, m, []int32{1})
		if l.held[1] != 1 || !r.Announced(in(1)) {
			t.Errorf("held %d times, want once", l.held[1])
		}
	})
}

type slowGiveBack struct{ *lockTable }

func (l slowGiveBack) GiveBack(ctx context.Context, buckets []int32) error {
	err := l.lockTable.GiveBack(ctx, buckets)
	time.Sleep(time.Second)
	return err
}

// A session that ends while its locks are being taken has taken nothing.
func TestSessionEndsDuringTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLockTable()
		l.latency = time.Second
		r, m := startRegistrar(t, l)
		r.Want(in(1))
		time.Sleep(500 * time.Millisecond)
		r.Session(nil, 0)
		time.Sleep(time.Minute)
		wantMarks(t, m)
		if r.Announced(in(1)) || r.Unheld() != 1 {
			t.Error("held by a session that is over")
		}
		r.Session(newLockTable(), maxBuckets)
		wantMarks(t, m, []int32{1})
	})
}

// The list of a bucket that was taken anew is waited for, too, whatever an earlier one says.
func TestBucketTakenAgainWaitsForBothLists(t *testing.T) {
	t.Parallel()
	var w waits
	w.add([]int32{1, 2}, []uint64{10})
	w.add([]int32{1}, []uint64{10, 20})
	again, over := w.look(Snapshot{Xmax: 20, InProgress: nil})
	if slices.Sort(again); !slices.Equal(slices.Compact(again), []int32{1, 2}) || !slices.Equal(over, []int32{2}) {
		t.Errorf("to be read %v, settled %v, want 1 and 2, and 2 alone", again, over)
	}
	if again, over = w.look(Snapshot{Xmax: 21}); !slices.Equal(again, []int32{1}) || !slices.Equal(over, []int32{1}) || len(w.lists) > 0 {
		t.Errorf("to be read %v, settled %v, left %v", again, over, w.lists)
	}
}

// However often buckets are taken while one transaction goes on, the lists stay few, and nobody is forgotten.
func TestListsOfOpenTransactionsStayFew(t *testing.T) {
	t.Parallel()
	var w waits
	for n := range int32(1000) {
		w.add([]int32{n}, []uint64{10, 1000 + uint64(n)})
		if len(w.lists) > maxWaits {
			t.Fatalf("%d lists", len(w.lists))
		}
	}
	if _, over := w.look(Snapshot{Xmax: 3000, InProgress: []uint64{10}}); len(over) > 0 {
		t.Errorf("%v are settled while 10 goes on", over)
	}
	again, over := w.look(Snapshot{Xmax: 3000})
	slices.Sort(over)
	if len(slices.Compact(over)) != 1000 || len(again) < 1000 || len(w.lists) > 0 {
		t.Errorf("%d are settled, %d to be read, want 1000", len(over), len(again))
	}
}

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Snapshot{
		"10:20:10,14,15":           {Xmax: 20, InProgress: []uint64{10, 14, 15}},
		"10:10:":                   {Xmax: 10},
		"1:18446744073709551615:1": {Xmax: 1<<64 - 1, InProgress: []uint64{1}},
	} {
		got, err := parseSnapshot(text)
		if err != nil || got.Xmax != want.Xmax || !slices.Equal(got.InProgress, want.InProgress) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "10", "10:20", "10:x:", "10:20:a", "10:20:1:2", "10:-1:", "10:18446744073709551616:"} {
		if got, err := parseSnapshot(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
	snap := Snapshot{Xmax: 20, InProgress: []uint64{10}}.extended(22)
	for xid, ended := range map[uint64]bool{9: true, 10: false, 11: true, 19: true, 20: false, 21: false, 22: false} {
		if snap.Ended(xid) != ended {
			t.Errorf("transaction %d has ended: %v, want %v", xid, !ended, ended)
		}
	}
}

func TestNumberOfBucketsChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := new(marks)
		r := NewRegistrar(m.mark, slog.New(slog.DiscardHandler))
		go func() { _ = r.Run(t.Context()) }()
		r.Want(in(70))
		r.Want(in(6))
		r.Want(Beginning)
		r.Want(in(71))
		r.Leave(in(71))
		for _, tc := range []struct {
			number int32
			want   []int32
		}{{64, []int32{6, 64}}, {4096, []int32{6, 70, 4096}}, {128, []int32{6, 70, 128}}} {
			l := newLockTable()
			r.Session(l, tc.number)
			synctest.Wait()
			if got := l.holds(); !slices.Equal(got, tc.want) || !r.Announced(in(70)) || !r.Announced(Beginning) {
				t.Errorf("%d buckets: %v are held, want %v", tc.number, got, tc.want)
			}
		}
		r.Leave(in(70))
		r.Leave(in(6))
		r.Leave(Beginning)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(r.buckets) > 0 {
			t.Errorf("%d buckets are left", len(r.buckets))
		}
	})
}

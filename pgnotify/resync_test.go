package pgnotify

import (
	"testing"
	"testing/synctest"
	"time"
)

// Any role can send "*": however many arrive, they cause one read of all that is watched a second, and the last is heeded.
func TestFloodOfResyncsCausesOneASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, nil)
		heard := s.l.cfg.Sink.(sink)
		<-heard // LISTEN's own
		for range 10_000 {
			s.deliver(PayloadResync)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := len(heard); n != 11 {
			t.Errorf("%d resyncs of 10,000 requests in 10 s, want one at once and one for each second", n)
		}
		s.stars.Stop()
	})
}

func TestResyncAfterAPauseIsNotDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, nil)
		heard := s.l.cfg.Sink.(sink)
		<-heard
		for range 3 {
			s.deliver(PayloadResync)
			if len(heard) != 1 {
				t.Fatal("the resync was delayed, or not done")
			}
			<-heard
			time.Sleep(resyncInterval)
		}
	})
}

func TestResyncThatWaitsEndsWithItsSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, nil)
		heard := s.l.cfg.Sink.(sink)
		s.deliver(PayloadResync)
		s.deliver(PayloadResync) // waits
		s.stars.Stop()
		s.deliver(PayloadResync)
		time.Sleep(2 * resyncInterval)
		if n := len(heard); n != 2 {
			t.Errorf("%d resyncs, want LISTEN's own and the first", n)
		}
	})
}

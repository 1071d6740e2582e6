package auditstreamtest

import (
	"sync"
	"testing"
)

// CutListener breaks the connections by which the service hears of changes, as a network does. It connects again by itself, within
// about a second, and then looks at all that is watched.
func (s *Server) CutListener() { s.listens.cut() }

// PauseDatabase has the service's connections to the database stand still, as behind a router that lost its state, until resume is called,
// or the test ends. The test's own connections go on.
func (s *Server) PauseDatabase(t testing.TB) (resume func()) {
	s.reads.pause(true)
	s.listens.pause(true)
	resume = sync.OnceFunc(func() {
		s.reads.pause(false)
		s.listens.pause(false)
	})
	t.Cleanup(resume)
	return resume
}

// Restart stops the service, which tells viewers to come back, and starts it anew at the same URL. It returns when that hears of changes.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(); err != nil {
		t.Errorf("auditstreamtest: stop: %v", err)
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatalf("auditstreamtest: %v\n%s", err, s.log)
	}
}

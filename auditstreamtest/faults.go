package auditstreamtest

import (
	"sync"
	"testing"
)

// CutListener breaks the service's connections for notifications and locks, as a network failure does. The service reconnects by itself,
// within about a second, and then reads all watched rows.
func (s *Server) CutListener() { s.listens.cut() }

// PauseDatabase stops all traffic between the service and the database without closing a connection, as a router that lost its state
// does, until resume is called or the test ends. The test's own connections keep working.
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

// Restart stops the service, which tells viewers to reconnect, and starts a new one at the same URL. It returns when the new one receives
// notifications.
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

//go:build !linux

package server

// hangups watches nothing where there is no epoll: heartbeats find who has gone.
type hangups struct{}

func newHangups(*hijacks) (*hangups, error) { return nil, nil }

func (h *hangups) watch(*hijacked, bool) bool { return false }
func (h *hangups) unwatch(*hijacked)          {}
func (h *hangups) run()                       {}
func (h *hangups) close()                     {}

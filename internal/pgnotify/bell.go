package pgnotify

// Bell wakes one goroutine, which waits for it by receiving. Rings before the receive count as one.
type Bell chan struct{}

// NewBell returns a Bell that nobody has rung yet.
func NewBell() Bell { return make(Bell, 1) }

// Ring wakes the goroutine. It does not block. Safe for concurrent use.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default: // it was rung and not answered yet
	}
}

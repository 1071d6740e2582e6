package pgnotify

import "errors"

var errRetired = errors.New("the feed is not served in this form any more")

// Retire ends all subscriptions, and begins no others: the feed was uninstalled, or is another one by now. It does not block.
func (h *Hub) Retire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retired = true
	for _, e := range h.entries {
		for s := range e.members {
			s.retire()
		}
	}
	for _, subs := range h.owned.subs {
		for s := range subs {
			s.retire()
		}
	}
}

func (s *Subscription) retire() {
	if !s.over.Swap(true) && s.wake != nil {
		s.wake()
	}
}

// Over reports whether nothing follows any more: the feed was uninstalled, or is another one by now. Wake is called when that begins.
func (s *Subscription) Over() bool { return s.over.Load() }

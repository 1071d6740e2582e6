package redisnotify

import (
	"crypto/rand"
	"strings"
	"time"
)

// namePrefix and 26 letters and digits are the body of a relay's hints.
const (
	namePrefix = "relay "
	nameLength = len(namePrefix) + 26
)

// leadLapse is how long the leading relay may be silent before another's hint makes that one lead.
const leadLapse = time.Second

// newName is a relay's until it ends.
func newName() string { return namePrefix + rand.Text() }

// lead is the relay whose hints count as the changes, of several that each pass on all of them: whichever was heard first, until
// it is silent for a moment in which another is not. That is a guess, so what does not count is a hint all the same.
type lead struct {
	name  string
	heard time.Time // from that relay
}

// counts reports whether a hint does: also when its body is no relay's name, as one of the application's.
func (l *lead) counts(body string, now time.Time) bool {
	if len(body) != nameLength || !strings.HasPrefix(body, namePrefix) {
		return true
	}
	if body != l.name {
		if now.Sub(l.heard) < leadLapse {
			return false
		}
		l.name = strings.Clone(body)
	}
	l.heard = now
	return true
}

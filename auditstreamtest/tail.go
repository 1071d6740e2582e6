package auditstreamtest

import (
	"bytes"
	"sync"
)

// maxTail is how much of the log's end a failure shows, in bytes.
const maxTail = 4 << 10

// tail is a writer that keeps the last whole lines. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - maxTail; over > 0 {
		l.text = l.text[over:]
		if line := bytes.IndexByte(l.text, '\n'); line >= 0 {
			l.text = l.text[line+1:]
		}
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

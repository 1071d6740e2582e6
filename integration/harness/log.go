package harness

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// showLog adds the log's last lines to that of a test which failed; the whole is in a file.
func (i *Instance) showLog(t testing.TB) {
	t.Helper()
	const most = 40
	if !t.Failed() {
		return
	}
	lines := strings.SplitAfter(i.Log.String(), "\n")
	if len(lines) <= most {
		t.Logf("log of auditstream serve:\n%s", i.Log.String())
		return
	}
	where := "a file that could not be written"
	if file, err := os.CreateTemp("", "auditstream-serve-*.log"); err == nil {
		where = file.Name()
		_, _ = file.WriteString(i.Log.String())
		_ = file.Close()
	}
	t.Logf("the last lines of the log of auditstream serve, of which the other %d are in %s:\n%s", len(lines)-most, where,
		strings.Join(lines[len(lines)-most:], ""))
}

// WaitLog waits for a log record with the message and returns its attributes.
func (i *Instance) WaitLog(t testing.TB, message string) map[string]any {
	t.Helper()
	deadline := time.After(Patience)
	for {
		changed := i.Log.Changed()
		for line := range strings.Lines(i.Log.String()) {
			var record map[string]any
			if json.Unmarshal([]byte(line), &record) == nil && record["msg"] == message {
				return record
			}
		}
		select {
		case <-changed:
		case <-i.Done:
			t.Fatalf("auditstream serve has ended without logging %q:\n%s", message, i.Log.String())
		case <-deadline:
			t.Fatalf("no log record %q:\n%s", message, i.Log.String())
		}
	}
}

// LogBuffer collects a process's output and tells when there is more.
type LogBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int // of bytes kept, the newest; 0: all
	more  chan struct{}
}

// NewLogBuffer is an empty one.
func NewLogBuffer() *LogBuffer { return &LogBuffer{more: make(chan struct{})} }

func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	if b.limit > 0 && b.buf.Len() > b.limit {
		b.buf.Next(b.buf.Len() - b.limit/2)
	}
	return b.buf.Write(p)
}

// KeepLast forgets the beginning from now on: for processes that run long.
func (b *LogBuffer) KeepLast(limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
}

func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Changed is closed at the next write.
func (b *LogBuffer) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

// ChangedLog is what serve logs when something in the database is not as install left it.
const ChangedLog = "the database is not as it was when auditstream was installed"

package server

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// A wave of new streams within waveTime takes three times the memory, until their first states have been read and net/http
	// has let go of them, than all of them need afterwards: buffers above all. The runtime would keep it for minutes.
	wave     = 1000
	waveTime = 5 * time.Second
	// waveEnd is how long after one its memory is given back.
	waveEnd = time.Second
	// trimPause is the least time from once to the next, since each time costs the collection of all garbage: those who come and
	// go by the thousand all the time need the memory again anyway.
	trimPause = 10 * time.Second
)

// trimmer gives memory back after waves of new streams. Safe for concurrent use.
type trimmer struct {
	free func()

	mu     sync.Mutex
	begun  int       // streams of this wave
	since  time.Time // its first one
	freed  time.Time
	timer  *time.Timer
	closed bool
}

func newTrimmer(free func()) *trimmer { return &trimmer{free: free} }

// freeMemory collects twice: what net/http has in its pools survives the first time.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// began counts a new stream.
func (t *trimmer) began() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	now := time.Now()
	if t.begun == 0 {
		t.since = now
	}
	if t.begun++; t.begun < wave {
		return
	}
	t.begun = 0
	if now.Sub(t.since) >= waveTime {
		return
	}
	after := max(waveEnd, t.freed.Add(trimPause).Sub(now))
	if t.timer == nil {
		t.timer = time.AfterFunc(after, t.trim)
	} else {
		t.timer.Reset(after)
	}
}

func (t *trimmer) trim() {
	t.mu.Lock()
	t.freed = time.Now()
	t.mu.Unlock()
	t.free()
}

// stop ends it. One that is under way goes on.
func (t *trimmer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

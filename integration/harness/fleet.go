package harness

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Fleet is the instances that run now; nil is one that is being replaced. Safe for concurrent use.
type Fleet struct {
	mu      sync.Mutex
	Running []*Instance
}

// Get is the instance that runs in place k.
func (f *Fleet) Get(k int) *Instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Running[k]
}

// Set puts another instance in place k.
func (f *Fleet) Set(k int, i *Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Running[k] = i
}

// Streams is the sum of all instances' open streams.
func (f *Fleet) Streams() int {
	sum := 0
	for k := range f.Running {
		sum += f.Open(k)
	}
	return sum
}

// Open is the number of an instance's open streams: none while it is away.
func (f *Fleet) Open(k int) int {
	i := f.Get(k)
	if i == nil {
		return 0
	}
	resp, err := http.Get(i.Admin + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // it may be on its way down
	_, after, _ := strings.Cut(OfAudits.Replace(string(body)), "\n"+StreamsOpen+" ")
	open, _, _ := strings.Cut(after, "\n")
	n, _ := strconv.Atoi(open)
	return n
}

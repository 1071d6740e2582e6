package load

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// profileRate has a process note one in so many bytes that it allocates: half a megabyte, as by default, would be too coarse for
// what a crowd leaves behind.
const profileRate = 4096

var profiled = fmt.Sprintf("GODEBUG=memprofilerate=%d", profileRate)

// descriptors is how many bytes the descriptors of goroutines take, which the runtime makes for as many as there ever were at
// once and never frees (runtime.malg). It is the heap profile's word, so the instance must be profiled; garbage must have been
// collected.
func descriptors(t testing.TB, i *harness.Instance) (size float64) {
	t.Helper()
	resp, err := http.Get(i.Admin + "/debug/pprof/heap?debug=1")
	harness.NoError(t, err)
	profile := harness.ReadAll(t, resp.Body)
	// The rate is told doubled; a process that was not profiled as finely would find none.
	if !strings.Contains(profile, fmt.Sprintf("@ heap/%d\n", 2*profileRate)) {
		t.Fatalf("the heap profile is not of one in %d bytes", profileRate)
	}
	var count, bytes float64 // of the record whose frames are read
	for line := range strings.Lines(profile) {
		if _, err := fmt.Sscanf(line, "%f: %f [", &count, &bytes); err == nil || !strings.Contains(line, "runtime.malg+") || count == 0 {
			continue
		}
		size += bytes / (1 - math.Exp(-bytes/count/profileRate)) // as runtime/pprof scales its samples
	}
	return size
}

package load

import (
	"fmt"
	"testing"

	"auditstream/integration/harness"
)

// cost is what a process holds, in bytes where it is not a number of things.
type cost struct {
	heap, stacks, resident, goroutines float64
	live                               float64 // heap that the last collection found in use; what heap has more is garbage and gaps
}

// collect has the instance collect its garbage, and says what is left.
func collect(t testing.TB, i *harness.Instance) cost {
	t.Helper()
	i.CollectGarbage(t)
	return cost{
		heap:       i.Metric(t, "go_memstats_heap_inuse_bytes"),
		stacks:     i.Metric(t, "go_memstats_stack_inuse_bytes"),
		resident:   i.Metric(t, "process_resident_memory_bytes"),
		goroutines: i.Metric(t, "go_goroutines"),
		live:       i.Metric(t, "go_gc_heap_live_bytes"),
	}
}

func (c cost) String() string {
	return fmt.Sprintf("heap %.1f MB (%.1f live), stacks %.1f MB, resident %.1f MB, %.0f goroutines", c.heap/1e6, c.live/1e6, c.stacks/1e6, c.resident/1e6, c.goroutines)
}

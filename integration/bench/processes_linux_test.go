package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// clockTick is the unit of times in /proc/PID/stat, the same on all of Linux's architectures.
const clockTick = 10 * time.Millisecond

// memory is what a process and its children hold together, in bytes.
type memory struct {
	resident     float64 // RSS: what processes share counts in each
	proportional float64 // PSS: what processes share counts once
}

func memoryOf(t testing.TB, pid int) (m memory) {
	t.Helper()
	for _, pid := range withChildren(t, pid) {
		m.resident += field(t, pid, "status", "VmRSS:")
		m.proportional += field(t, pid, "smaps_rollup", "Pss:")
	}
	return m
}

// field reads a line such as "VmRSS:   1234 kB".
func field(t testing.TB, pid int, file, name string) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	harness.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, name); found {
			var kB float64
			if _, err := fmt.Sscan(rest, &kB); err != nil {
				t.Fatal(err)
			}
			return kB * 1024
		}
	}
	t.Fatalf("/proc/%d/%s has no %s", pid, file, name)
	return 0
}

// cpuOf is what a process and its children have used so far. A child that ends is still counted, by its parent.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	var ticks uint64
	for _, pid := range withChildren(t, pid) {
		stat, err := stat(pid)
		if err != nil {
			continue // it has just ended
		}
		for k := 13; k <= 16; k++ { // utime, stime, cutime, cstime
			n, err := strconv.ParseUint(stat[k], 10, 64)
			harness.NoError(t, err)
			ticks += n
		}
	}
	return time.Duration(ticks) * clockTick
}

// stat returns the fields of /proc/PID/stat, the first at 0; the name, which may hold spaces, is left out.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return append([]string{"", ""}, strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))...), nil
}

// withChildren returns a process and those that it started.
func withChildren(t testing.TB, pid int) []int {
	t.Helper()
	pids := []int{pid}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	harness.NoError(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for name := range strings.FieldsSeq(string(b)) {
			child, err := strconv.Atoi(name)
			harness.NoError(t, err)
			pids = append(pids, child)
		}
	}
	return pids
}

// parent returns the process that started this one.
func parent(t testing.TB, pid int) int {
	t.Helper()
	fields, err := stat(pid)
	harness.NoError(t, err)
	ppid, err := strconv.Atoi(fields[3])
	harness.NoError(t, err)
	return ppid
}

package localpg

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sysProcAttr asks the kernel for a fast shutdown when we die, even by SIGKILL. The kernel sends the signal when the
// starting *thread* ends, so the caller must lock its goroutine to its thread until the program has ended.
func sysProcAttr(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential, Pdeathsig: syscall.SIGINT}
}

// processes reads /proc, because not every container has ps.
func processes() ([]procInfo, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var all []procInfo
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		if p, ok := parseStat(string(text)); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// parseStat reads "pid (name) state ppid ..."; the name may hold spaces and brackets.
func parseStat(text string) (procInfo, bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procInfo{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	if err != nil {
		return procInfo{}, false
	}
	rest := strings.Fields(text[end+1:])
	if len(rest) < 2 {
		return procInfo{}, false
	}
	ppid, err := strconv.Atoi(rest[1])
	if err != nil {
		return procInfo{}, false
	}
	return procInfo{pid: pid, ppid: ppid, name: text[open+1 : end], state: rest[0][0]}, true
}

// isServerOn reports whether a process belongs to a PostgreSQL server on this data directory, which is then its working directory. A process
// that has ended and was not reaped has none.
func isServerOn(p procInfo, data string) bool {
	if p.name != "postgres" {
		return false
	}
	want, err := os.Stat(data)
	if err != nil {
		return false
	}
	got, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", p.pid))
	return err == nil && os.SameFile(want, got)
}

//go:build !linux

package localpg

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sysProcAttr cannot ask for a signal when we die, which only Linux offers. After a SIGKILL the server lives on until the next Start in the
// same directory stops it.
func sysProcAttr(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential}
}

func processes() ([]procInfo, error) {
	out, err := exec.Command("ps", "-A", "-ww", "-o", "pid=,ppid=,state=,command=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	var all []procInfo
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		pid, err := strconv.Atoi(f[0])
		if err != nil {
			continue
		}
		ppid, err := strconv.Atoi(f[1])
		if err != nil {
			continue
		}
		_, command, _ := strings.Cut(line, f[2])
		all = append(all, procInfo{pid: pid, ppid: ppid, state: f[2][0], name: strings.TrimSpace(command)})
	}
	return all, nil
}

// isServerOn uses the command line that launch gives the postmaster; its children have titles instead and end with it.
func isServerOn(p procInfo, data string) bool {
	program, _, _ := strings.Cut(p.name, " -D ")
	return filepath.Base(program) == "postgres" && strings.Contains(p.name, " -D "+data+" ") && p.state != 'Z'
}

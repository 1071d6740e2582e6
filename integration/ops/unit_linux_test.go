package ops

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

const unitFile = "deploy/auditstream.service"

// mostExposed is the most that "systemd-analyze security" may say, times ten: from 0, nothing to take away, to 100. What is
// left is the network, which a server cannot do without.
const mostExposed = 15

// systemdAnalyze runs a tool that needs no running systemd for this.
func systemdAnalyze(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s (Debian's package systemd): %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestUnitIsValid(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile(harness.Path(unitFile))
	harness.NoError(t, err)
	// The program has to exist where the unit says.
	here := filepath.Join(t.TempDir(), "auditstream.service")
	text := strings.Replace(string(unit), "ExecStart=/usr/local/bin/auditstream", "ExecStart="+harness.Binary(t), 1)
	harness.NoError(t, os.WriteFile(here, []byte(text), 0o600))
	harness.WantNoneIn(t, systemdAnalyze(t, "verify", "--man=no", here), "auditstream.service:")
	// What it says of a stream's end must fit the server: streams have 8 s, then they are cut.
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)s$`).FindStringSubmatch(text)
	if stop == nil {
		t.Fatal("no TimeoutStopSec in seconds")
	}
	if seconds, err := strconv.Atoi(stop[1]); err != nil || seconds <= 8 {
		t.Errorf("TimeoutStopSec=%ss, want more than the 8 s that streams have", stop[1])
	}
}

func TestUnitIsLockedDown(t *testing.T) {
	t.Parallel()
	// Fails when the exposure is above the threshold.
	out := strings.TrimSpace(systemdAnalyze(t, "security", "--offline=true", "--no-pager", "--threshold="+strconv.Itoa(mostExposed), harness.Path(unitFile)))
	t.Log(out[strings.LastIndexByte(out, '\n')+1:])
}

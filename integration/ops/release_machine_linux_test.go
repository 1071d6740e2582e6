//go:build release

package ops

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// debian makes a minimal one with systemd of the release that runs here, once, as an archive, and returns its path. It comes
// from where apt gets its packages.
func debian(t *testing.T) string {
	t.Helper()
	suite := strings.TrimSpace(shell(t, ".", nil, `. /etc/os-release; echo "$VERSION_CODENAME"`))
	path := harness.Path("bin/debian-" + suite + ".tar")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	harness.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	// Renamed when it is whole.
	shell(t, filepath.Dir(path), []string{"suite=" + suite}, `trap 'rm -f debian.$$.tar' EXIT
mmdebstrap --quiet --mode=root --variant=essential --include=systemd,passwd --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/auditstream/*' \
  "$suite" debian.$$.tar "deb $(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' "Release: $suite" | head -n 1) main"
mv debian.$$.tar "debian-$suite.tar"`)
	return path
}

// boot starts a systemd as the first process of a Debian whose files are in memory. Processes, mounts, names and control
// groups are its own; the network is this machine's, so that a test reaches what runs there. It may not change /proc/sys or
// the kernel. All is gone when standard input ends, which it also does when the test is killed.
const boot = `
set -euo pipefail
archive=$1 group=auditstream-test-$$ here=$(mktemp -d)
groups() { unshare --mount --propagation private bash -euc 'mount -t cgroup2 cgroup2 "$1"; cd "$1"; '"$1" groups "$here" "$group"; }
groups 'mkdir "$2"'
end() {
  kill -KILL "$inner" 2>/dev/null || true
  wait "$inner" 2>/dev/null || true
  # The kernel may still be taking the last processes out.
  for _ in {1..100}; do
    groups 'find "$2" -depth -type d -exec rmdir {} + 2>/dev/null' && break
    sleep 0.1
  done
  groups 'test ! -e "$2"' || { echo "the control group $group is still there" >&2; exit 1; }
  rmdir "$here"
}
unshare --mount --propagation private --uts --ipc --pid --fork --kill-child bash -euc '
  mount -t cgroup2 cgroup2 "$2"
  echo 0 >"$2/$3/cgroup.procs"
  umount "$2"
  exec unshare --cgroup bash -euc "$4" boot "$1" "$2"
' boot "$archive" "$here" "$group" '
  mount -t tmpfs -o mode=755,size=1g tmpfs "$2"
  tar -xf "$1" -C "$2"
  cd "$2"
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,ro,bind proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=755 tmpfs dev
  for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  rm -f etc/resolv.conf etc/hostname
  mkdir old
  pivot_root . old
  umount -l old
  rmdir old
  hostname machine
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set -sys_module,-sys_time,-sys_boot,-sys_rawio,-syslog \
    /lib/systemd/systemd --system --show-status=no --unit=multi-user.target
' </dev/null 3<&- &
inner=$!
trap end EXIT
trap : TERM INT HUP
echo "$inner"
cat >/dev/null || true
`

// machine is a running Debian.
type machine struct{ first string } // the process that systemd is

func startMachine(t *testing.T, archive string) *machine {
	t.Helper()
	cmd := exec.Command("bash", "-c", boot, "boot", archive)
	life, err := cmd.StdinPipe()
	harness.NoError(t, err)
	said, err := cmd.StdoutPipe()
	harness.NoError(t, err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	harness.NoError(t, cmd.Start())
	t.Cleanup(func() {
		life.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("end the machine: %v\n%s", err, errs.String())
		}
		if t.Failed() {
			t.Logf("the machine said:\n%s", errs.String())
		}
	})
	var outer int
	if _, err := fmt.Fscan(said, &outer); err != nil {
		t.Fatalf("start the machine: %v\n%s", err, errs.String())
	}
	m := &machine{}
	harness.Eventually(t, func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", outer, outer))
		if err != nil {
			return err
		}
		m.first = strings.TrimSpace(string(children))
		name, err := os.ReadFile("/proc/" + m.first + "/comm")
		if err != nil || strings.TrimSpace(string(name)) != "systemd" {
			return fmt.Errorf("the first process is %q, not yet systemd", name)
		}
		out, err := m.try(t, "systemctl is-system-running")
		if strings.TrimSpace(out) != "running" {
			return fmt.Errorf("systemctl is-system-running: %s (%v)", out, err)
		}
		return nil
	})
	return m
}

// try runs a line of shell in the machine, as root.
func (m *machine) try(t *testing.T, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience) // also at the end of a test
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", m.first, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "sh", "-euc", line)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try, and must succeed.
func (m *machine) run(t *testing.T, line string) string {
	t.Helper()
	out, err := m.try(t, line)
	if err != nil {
		journal, _ := m.try(t, "journalctl --no-pager -n 60 -o cat")
		t.Fatalf("%s: %v\n%s\njournal:\n%s", line, err, out, journal)
	}
	return strings.TrimSpace(out)
}

// put writes a file in the machine.
func (m *machine) put(t *testing.T, path, text, mode string) {
	t.Helper()
	m.run(t, "mkdir -p \"$(dirname "+path+")\" && umask 077 && cat >"+path+" <<'END'\n"+text+"\nEND\nchmod "+mode+" "+path)
}

package ops

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"auditstream/integration/harness"

	"golang.org/x/sys/unix"
)

// TestReadme runs the commands of README and of the pages that it leads to as they stand, in the order in which one reads them, against the ports and
// hosts that they name. These are free in a network namespace of its own, into which the test starts itself.
func TestReadme(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // whose end is that of the processes started here, see Pdeathsig
	defer runtime.UnlockOSThread()
	switch os.Getenv("AUDITSTREAM_TEST_README") {
	case "probe":
		raiseLoopback(t)
		return
	case "namespace":
		raiseLoopback(t)
		newReader(t).read()
		return
	case "ports":
		newReader(t).read()
		return
	}
	// There is no network in there for modules that are missing.
	if out, err := exec.CommandContext(t.Context(), "make", "-C", harness.Path("."), "build").CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	mode, namespace := "namespace", ownNetwork()
	if out, err := inside(t, "probe", namespace); err != nil {
		t.Logf("no network namespace, so README's commands get this machine's ports: %v\n%s", err, out)
		mode, namespace = "ports", &syscall.SysProcAttr{}
		for _, port := range []string{"5432", "6379", "8080", "9090", "9091"} {
			l, err := net.Listen("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatalf("README's commands need the port: run this test as root, allow user namespaces (kernel.apparmor_restrict_unprivileged_userns=0) or free the port: %v", err)
			}
			_ = l.Close()
		}
	}
	if out, err := inside(t, mode, namespace); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// inside runs this test in a process of its own.
func inside(t *testing.T, mode string, attr *syscall.SysProcAttr) (string, error) {
	t.Helper()
	self, err := os.Executable()
	harness.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestReadme$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), "AUDITSTREAM_TEST_README="+mode)
	cmd.SysProcAttr = attr
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	out, err := cmd.CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("--- PASS: TestReadme")) {
		err = errors.New("it has not run")
	}
	return string(out), err
}

// ownNetwork is a network namespace; for an ordinary user one in a user namespace, with the right to raise its loopback.
func ownNetwork() *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN},
	}
}

// raiseLoopback is "ip link set lo up", a command that not every machine has.
func raiseLoopback(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	harness.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	request := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_UP | unix.IFF_RUNNING}
	copy(request.name[:], "lo")
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatalf("set lo up: %v", errno)
	}
}

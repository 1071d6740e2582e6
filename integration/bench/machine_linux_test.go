package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"

	"golang.org/x/sys/unix"
)

// machine says where figures come from: they mean nothing elsewhere.
type machine struct {
	Date       string  `json:"date"`
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	MemoryGiB  float64 `json:"memory_gib"`
	Kernel     string  `json:"kernel"`
	DiskOfData string  `json:"disk_of_data"`
	Go         string  `json:"go"`
	PostgreSQL string  `json:"postgresql"`
	Nginx      string  `json:"nginx,omitempty"`
	Nchan      string  `json:"nchan,omitempty"`
	Commit     string  `json:"commit,omitempty"`
	LoadAtRest string  `json:"load_average_at_start"` // others who use the machine make all figures worse
}

func describe(t testing.TB, b *bench) machine {
	t.Helper()
	m := machine{
		Date: time.Now().UTC().Format(time.DateOnly), CPU: "unknown", Cores: runtime.NumCPU(),
		MemoryGiB: kernelMemory(t), Go: runtime.Version(), PostgreSQL: b.pg.Version(),
		Kernel:     first(os.ReadFile("/proc/sys/kernel/osrelease")),
		Commit:     first(exec.Command("git", "describe", "--always", "--dirty").Output()),
		LoadAtRest: first(os.ReadFile("/proc/loadavg")),
		DiskOfData: diskOf(t, filepath.Dir(b.pg.LogFile())),
	}
	info := first(os.ReadFile("/proc/cpuinfo"))
	if all, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		info = string(all)
	}
	for line := range strings.Lines(info) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	if b.scale.peer {
		path, err := nginxPath()
		harness.NoError(t, err)
		out, err := exec.Command(path, "-v").CombinedOutput()
		m.Nginx = strings.TrimPrefix(first(out, err), "nginx version: nginx/")
		m.Nchan = first(exec.Command("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan").Output())
	}
	return m
}

// String is the one line below the drawing and the table.
func (m machine) String() string {
	peer := ""
	if m.Nginx != "" {
		peer = ", nginx " + m.Nginx + " with Nchan " + m.Nchan
	}
	return fmt.Sprintf("%s: %d x %s, %.0f GiB, Linux %s, %s; %s, PostgreSQL %s%s",
		m.Date, m.Cores, m.CPU, m.MemoryGiB, m.Kernel, m.DiskOfData, m.Go, m.PostgreSQL, peer)
}

// first is the first line, or nothing where it cannot be had.
func first(out []byte, err error) string {
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func kernelMemory(t testing.TB) float64 {
	t.Helper()
	var info unix.Sysinfo_t
	harness.NoError(t, unix.Sysinfo(&info))
	return float64(info.Totalram) * float64(info.Unit) / (1 << 30)
}

// diskOf names the kind of file system, since a commit on one that is in memory costs nothing.
func diskOf(t testing.TB, dir string) string {
	t.Helper()
	var fs unix.Statfs_t
	harness.NoError(t, unix.Statfs(dir, &fs))
	for magic, name := range map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs (no disk)", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	} {
		if int64(fs.Type) == magic {
			return name
		}
	}
	return fmt.Sprintf("file system %#x", fs.Type)
}

package pgtest

import (
	"os"
	"syscall"
)

// tempDir returns the directory for data that nobody needs after the run. It is in memory if there is room, because to make and drop a database
// for each test is mostly to make and remove files.
func tempDir() string {
	const memory, room = "/dev/shm", 4 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return os.TempDir()
	}
	return memory
}

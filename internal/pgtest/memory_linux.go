package pgtest

import (
	"os"
	"syscall"
)

// tempDir is where data goes that nobody needs after the run: into memory where that has room, because making and dropping a
// database for each test is mostly making and removing files.
func tempDir() string {
	const memory, room = "/dev/shm", 4 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return os.TempDir()
	}
	return memory
}

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// repoPath is where a file of this repository is. Tests run in the folder of their package, which says nothing about others.
func repoPath(path string) string { return filepath.Join(repoRoot(), path) }

var repoRoot = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(fmt.Sprintf("the repository is found from the current folder: %v", err))
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			panic("the current folder is in no Go module: run tests in the repository")
		}
		dir = parent
	}
})

// build makes a program in bin/ from a package, as go build names it in a folder, and returns its path. Several test processes do
// this at a time: one builds while the others wait for it, and what runs already stays as it is.
func build(name, dir, pkg string, flags ...string) (string, error) {
	path := repoPath("bin/" + name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()

	fresh := path + ".new" // as the old one is, so that go build leaves it alone where nothing has changed
	if err := copyProgram(path, fresh); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", fresh}, flags...), pkg)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, os.Rename(fresh, path)
}

// lockFile waits until no other process has the lock. The lock ends with its process, however that ends.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = file.Close() }, nil
}

// copyProgram copies a program, if it is there.
func copyProgram(from, to string) error {
	program, err := os.ReadFile(from)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

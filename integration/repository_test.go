package integration

import (
	"debug/buildinfo"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
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
	path, err := repoPath("bin/"+name), os.Mkdir(repoPath("bin"), 0o755)
	if err != nil && !os.IsExist(err) {
		return "", err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()

	// Over a copy of the old one, which go build leaves alone where nothing has changed. By cp, because go test would remember what
	// this process has read.
	fresh := path + ".new"
	_ = exec.Command("cp", "-p", path, fresh).Run() // there may be no old one
	cmd := exec.Command("go", append(append([]string{"build", "-o", fresh}, flags...), pkg)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := noteSources(dir, pkg); err != nil {
		return "", fmt.Errorf("sources of %s: %w", name, err)
	}
	return path, os.Rename(fresh, path)
}

// noteSources has go test know that the result depends on a program: it sees which files a test asks for, and not which ones it
// builds from. Otherwise it would take a result for a newer program's.
func noteSources(dir, pkg string) error {
	cmd := exec.Command("go", "list", "-deps", "-f", `{{if and .Module .Module.Main}}{{$dir := .Dir}}{{.Module.GoMod}}
{{range .GoFiles}}{{$dir}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$dir}}/{{.}}
{{end}}{{end}}`, pkg)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	for file := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return r == '\n' }) {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	return nil
}

// dependsOn has go test know that the result depends on folders of which other programs read the files; see noteSources.
func dependsOn(t testing.TB, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(repoPath(folder), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".auditstream") {
				return filepath.SkipDir
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
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

// Whoever builds a program has it whole, also while others build the same one.
func TestProgramIsWholeWhileOthersBuildIt(t *testing.T) {
	t.Parallel()
	name := fmt.Sprint("test-program-", os.Getpid())
	t.Cleanup(func() {
		for _, suffix := range []string{"", ".lock"} {
			if err := os.Remove(repoPath("bin/" + name + suffix)); err != nil {
				t.Error(err)
			}
		}
	})
	var builders sync.WaitGroup
	for range 4 {
		builders.Go(func() {
			path, err := build(name, repoPath("."), "./internal/testreport")
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := buildinfo.ReadFile(path); err != nil {
				t.Error(err)
			}
		})
	}
	builders.Wait()
}

package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Path is where a file of this repository is. Tests run in the folder of their package, which says nothing about others.
func Path(path string) string { return filepath.Join(repoRoot(), path) }

// repoRoot is the folder of go.mod.
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

// DependsOn has go test know that the result depends on folders of which other programs read the files; see noteSources. A test that hands
// files of the repository to another program says so.
func DependsOn(t testing.TB, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(Path(folder), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".auditstream") {
				return filepath.SkipDir
			}
			return err
		})
		NoError(t, err)
	}
}

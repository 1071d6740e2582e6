package harness

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Whoever builds a program has it whole, also while others build the same one.
func TestProgramIsWholeWhileOthersBuildIt(t *testing.T) {
	t.Parallel()
	name := fmt.Sprint("test-program-", os.Getpid())
	t.Cleanup(func() {
		for _, suffix := range []string{"", ".lock"} {
			if err := os.Remove(Path("bin/" + name + suffix)); err != nil {
				t.Error(err)
			}
		}
	})
	var builders sync.WaitGroup
	for range 4 {
		builders.Go(func() {
			path, err := BuildProgram(name, Path("."), "./internal/testreport")
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

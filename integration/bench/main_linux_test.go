package bench

import (
	"os"
	"testing"

	"auditstream/integration/harness"
)

// The load is this same binary, started again: it needs no second build.
const loadProcess = "AUDITSTREAM_BENCH_LOAD"

func TestMain(m *testing.M) {
	if os.Getenv(loadProcess) != "" {
		if err := runLoad(os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString("load: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	harness.Main(m)
}

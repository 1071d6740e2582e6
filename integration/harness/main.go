package harness

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"auditstream/internal/pgtest"
)

// Main runs the tests of a package and exits. Call it from TestMain.
func Main(m *testing.M) {
	remove, err := prepareHTTP2()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.DefaultClient.Transport = Recorded{http.DefaultTransport}
	pgtest.Main(m, remove)
}

package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NodeProject is a folder like somebody's application, with the client and pg in node_modules.
func NodeProject(t testing.TB) (dir string) {
	t.Helper()
	NodeModules(t)
	dir = t.TempDir()
	NoError(t, os.Mkdir(filepath.Join(dir, "node_modules"), 0o755))
	for name, from := range map[string]string{"auditstream-client": ClientDir, "pg": "integration/queues/node/node_modules/pg"} {
		target := Path(from)
		_, err := os.Stat(target)
		if err == nil {
			err = os.Symlink(target, filepath.Join(dir, "node_modules", name))
		}
		if err != nil {
			t.Fatalf("%s from npm is missing: run .ci/setup test, as make test does: %v", name, err)
		}
	}
	return dir
}

// NodeTest runs a file of tests.
func NodeTest(t testing.TB, dir, file, admin string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-timeout=300000", file)
	cmd.Dir = dir
	cmd.Env = Environment([]string{"DATABASE_URL=" + admin, "AUDITSTREAM_BIN=" + PlainBinary(t)})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("node --test %s: %v\n%s", file, err, out)
	}
}

// In the repository.
const (
	ClientDir     = "internal/server/web/client"
	ClientTestDir = ClientDir + "/test"
)

// NodeModules fails the test when what the client is tested with is not there.
func NodeModules(t testing.TB) {
	t.Helper()
	DependsOn(t, ClientDir)
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("the browser client's tests need Node.js 20 or later: install it (Debian: apt-get install nodejs npm) and have it on the PATH")
	}
	if _, err := os.Stat(Path(ClientTestDir) + "/node_modules/react"); err != nil {
		t.Fatal("the browser client is tested with packages from npm: run npm ci in internal/server/web/client/test, as make test does")
	}
}

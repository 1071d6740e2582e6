//go:build image

package ops

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"auditstream/integration/harness"
)

// besideContainers runs the test in Node.js that docs/testing.md shows, with testcontainers from npm: it starts PostgreSQL and the image.
func besideContainers(t *testing.T, image string) {
	dir := harness.NodeProject(t)
	modules := harness.Path("integration/nodetests/node_modules/testcontainers")
	_, err := os.Stat(modules)
	if err == nil {
		err = os.Symlink(modules, filepath.Join(dir, "node_modules/testcontainers"))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "container.test.mjs"), []byte(harness.Fenced(t, "docs/testing.md", "container.test.mjs")), 0o600)
	}
	if err != nil {
		t.Fatalf("testcontainers from npm is missing: run .ci/setup image, as make test-image does: %v", err)
	}
	setImages(t, image)
	harness.NodeTest(t, dir, "container.test.mjs", "")
}

func setImages(t *testing.T, image string) {
	t.Helper()
	t.Setenv("AUDITSTREAM_IMAGE", image)
	t.Setenv("POSTGRES_IMAGE", cmp.Or(os.Getenv("TEST_POSTGRES_IMAGE"), "postgres:17-alpine"))
}

// besideContainersInGo runs the tests of a module with testcontainers-go, as its README says.
func besideContainersInGo(t *testing.T, image, folder string) {
	setImages(t, image)
	for _, args := range [][]string{{"vet", "./..."}, {"test", "-count=1", "./..."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = harness.Path(folder)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in %s: go %v: %v\n%s", folder, args, err, out)
		}
	}
}

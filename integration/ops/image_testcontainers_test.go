//go:build image

package ops

import (
	"cmp"
	"os"
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
	t.Setenv("AUDITSTREAM_IMAGE", image)
	t.Setenv("POSTGRES_IMAGE", cmp.Or(os.Getenv("TEST_POSTGRES_IMAGE"), "postgres:17"))
	harness.NodeTest(t, dir, "container.test.mjs", "")
}

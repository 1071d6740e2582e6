package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the package adds to an application are 15 lines at most, and without them it is what it was before.
func TestAddedLinesAreFewAndMarked(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	var before []string
	added := 0
	for line := range strings.Lines(string(source)) {
		if strings.HasSuffix(line, "// auditstream\n") {
			added++
			continue
		}
		before = append(before, line)
	}
	if added == 0 || added > 15 {
		t.Errorf("%d lines are added, want 15 at most", added)
	}
	dir := t.TempDir()
	stripped := filepath.Join(dir, "main.go")
	if err := os.WriteFile(stripped, []byte(strings.Join(before, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	original, err := filepath.Abs("main.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: stripped}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if linked := build("list", "-overlay", filepath.Join(dir, "overlay.json"), "-deps"); strings.Contains(linked, "auditstream/internal") {
		t.Errorf("without the marked lines it still links auditstream:\n%s", linked)
	}
	build("build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "before"))
}

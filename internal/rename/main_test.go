package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// A copy of the repository under another path is built, and nothing in it imports the old one.
func TestRenamedModuleIsBuilt(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "copy")
	testkit.NoError(t, os.Mkdir(dir, 0o755))
	for _, name := range []string{"go.mod", "go.sum", "cmd", "internal", "docs", "auditstreamtest", "examples", "CHANGELOG.md", "."} {
		copyTo(t, filepath.Join("../..", name), filepath.Join(dir, name), name == ".")
	}
	const path = "example.com/acme/auditstream"
	do(t, dir, "go", "run", "./internal/rename", path)
	do(t, dir, "go", "build", "-o", t.TempDir(), "./cmd/auditstream")
	do(t, dir, "go", "vet", ".")
	if got := do(t, dir, "go", "list", "-deps", "./cmd/auditstream", "."); strings.Contains(got, "\nauditstream") || !strings.Contains(got, "\n"+path+"\n") {
		t.Errorf("linked:\n%s", got)
	}
}

// copyTo copies a file, a folder, or with flat a folder's files.
func copyTo(t *testing.T, from, to string, flat bool) {
	t.Helper()
	info, err := os.Stat(from)
	if os.IsNotExist(err) {
		return
	}
	testkit.NoError(t, err)
	if !info.IsDir() {
		text, err := os.ReadFile(from)
		testkit.NoError(t, err)
		testkit.NoError(t, os.WriteFile(to, text, 0o644))
		return
	}
	testkit.NoError(t, os.MkdirAll(to, 0o755))
	entries, err := os.ReadDir(from)
	testkit.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() && (flat || entry.Name() == "node_modules") || !entry.Type().IsRegular() && !entry.IsDir() || flat && filepath.Ext(entry.Name()) != ".go" {
			continue
		}
		copyTo(t, filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()), false)
	}
}

func do(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return "\n" + string(out)
}

func TestInvalidPathsAreNamed(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {""}, {"auditstream"}, {"acme/auditstream"}, {"https://example.com/x"}, {"example.com"}, {"example.com/a", "b"}} {
		if err := run(args); err == nil || !strings.Contains(err.Error(), "want HOST/OWNER/NAME") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestOnlyImportsAreRenamed(t *testing.T) {
	t.Parallel()
	r := renaming{"auditstream", "x.example/a/auditstream"}
	const source = "package p\n\nimport (\n\t\"auditstream\"\n\ttest \"auditstream/auditstreamtest\"\n\t\"auditstreams/x\"\n)\n\nconst name = \"auditstream\"\n"
	got, err := r.source([]byte(source))
	want := strings.Replace(strings.Replace(source, "\t\"auditstream\"", "\t\"x.example/a/auditstream\"", 1), "\"auditstream/a", "\"x.example/a/auditstream/a", 1)
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	got, err = r.document([]byte("the program auditstream\n    import \"auditstream\"\n        \"auditstream/auditstreamtest\"\n    name: \"auditstream\"\n"))
	if err != nil || string(got) != "the program auditstream\n    import \"x.example/a/auditstream\"\n        \"x.example/a/auditstream/auditstreamtest\"\n    name: \"auditstream\"\n" {
		t.Errorf("%v\n%s", err, got)
	}
}

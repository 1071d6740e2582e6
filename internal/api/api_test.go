package api

import (
	"os"
	"path/filepath"
	"testing"

	"auditstream/internal/testkit"
)

func TestListing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const source = `package p

// Doc.
type Options struct {
	// Wait is documented.
	Wait, More int
	private string
}
type hidden struct{ Field int }
func (o *Options) Run(ctx context.Context) (err error) { return nil }
func (h hidden) Run() {}
func New(a, b int) *Options { return nil }
func private() {}
var ErrNone = errors.New("x")
const Limit int = 3
type Waiter interface { Wait() }
`
	testkit.NoError(t, os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600))
	got, err := Listing(dir)
	testkit.NoError(t, err)
	want := map[string]string{
		"Options": "type Options struct", "Options.Wait": "int", "Options.More": "int",
		"Options.Run": "func (o *Options) Run(ctx context.Context) (err error)", "New": "func New(a, b int) *Options",
		"ErrNone": "var ErrNone", "Limit": "const Limit int", "Waiter": "type Waiter interface{ Wait() }",
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %q, want %q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v, want %d names", got, len(want))
	}
}

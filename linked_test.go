package auditstream_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// A program that embeds the package links these modules and no others: no kong, no Redis, no exporter of traces.
func TestLinkedModules(t *testing.T) {
	t.Parallel()
	want := []string{
		"github.com/MicahParks/jwkset", "github.com/beorn7/perks", "github.com/cespare/xxhash/v2", "github.com/golang-jwt/jwt/v5", "github.com/gorilla/mux",
		"github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile", "github.com/jackc/pgx/v5", "github.com/jackc/pgxlisten", "github.com/jackc/puddle/v2",
		"github.com/munnerz/goautoneg", "github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/prometheus/common",
		"github.com/prometheus/procfs", "github.com/rs/cors", "go.opentelemetry.io/otel", "go.opentelemetry.io/otel/trace",
		"golang.org/x/sync", "golang.org/x/sys", "golang.org/x/text", "golang.org/x/time", "google.golang.org/protobuf",
	}
	got := listed(t, "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}")
	if !slices.Equal(got, want) {
		t.Errorf("linked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// No package that changes a process when it is linked, or whose purpose is that (signals, flags, default routes), may be linked. (client_golang
// links expvar, and keeps metrics of its own in its default registry.)
func TestNothingTouchesTheProcess(t *testing.T) {
	t.Parallel()
	packages := listed(t, "{{.ImportPath}}")
	for _, name := range []string{"os/signal", "flag", "net/http/pprof", "testing"} {
		if slices.Contains(packages, name) {
			t.Errorf("%s is linked", name)
		}
	}
	for _, line := range listed(t, `{{if .Module}}{{if .Module.Main}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`) {
		out, err := exec.CommandContext(t.Context(), "grep", "-nE",
			`slog\.(Default|SetDefault|Info|Warn|Error|Debug)\(|log\.(Print|Fatal)|prometheus\.Default|runtime\.GOMAXPROCS\([^0]|debug\.Set|os\.(Exit|Getenv|Setenv|LookupEnv)|otel\.Set|http\.(Handle|HandleFunc|Get)\(|http\.Default(ServeMux|Client)`, line).Output()
		if err == nil {
			t.Errorf("%s: %s", line, out)
		}
	}
}

// listed returns what go list prints for each of the package's dependencies, sorted and without repetitions.
func listed(t *testing.T, format string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, ".")
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	testkit.NoError(t, err)
	lines := slices.Sorted(strings.FieldsSeq(string(out)))
	return slices.Compact(lines)
}

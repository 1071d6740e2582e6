//go:build image

package ops

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"auditstream/integration/harness"
)

func docker(t testing.TB, stdin *bytes.Buffer, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	// The Dockerfile needs nothing that only BuildKit has, and not every engine comes with it.
	if exec.CommandContext(t.Context(), "docker", "buildx", "version").Run() != nil {
		cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	}
	if stdin != nil {
		cmd.Stdin = stdin
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String())
}

// httpsIssuer is an issuer whose certificate only those trust who have the builder's list of authorities.
type httpsIssuer struct {
	*httptest.Server
	mu   sync.Mutex
	keys []map[string]string
}

func newHTTPSIssuer(t testing.TB) *httpsIssuer {
	t.Helper()
	iss := new(httpsIssuer)
	iss.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		iss.mu.Lock()
		defer iss.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": iss.keys})
	}))
	t.Cleanup(iss.Close)
	return iss
}

// builder imports a stand-in for the image golang, which may be out of reach: this machine's Go, sh, the program's modules
// and, as the only authority, the issuer.
func builder(t testing.TB, iss *httpsIssuer) string {
	t.Helper()
	goEnv := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		harness.NoError(t, err)
		return strings.TrimSpace(string(out))
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: iss.Certificate().Raw})
	sums, err := os.ReadFile(harness.Path("go.sum"))
	harness.NoError(t, err)
	// Made once for all that it is made of, so that a second run finds what the first has built.
	made := sha256.Sum256(slices.Concat([]byte(goEnv("GOVERSION")), sums, authority))
	name := fmt.Sprintf("auditstream-test-builder:%x", made[:8])
	if exec.CommandContext(t.Context(), "docker", "image", "inspect", name).Run() == nil {
		return name
	}
	root := t.TempDir()
	certs := filepath.Join(root, "etc/ssl/certs")
	for _, dir := range []string{certs, filepath.Join(root, "tmp")} {
		harness.NoError(t, os.MkdirAll(dir, 0o777))
	}
	harness.NoError(t, os.WriteFile(filepath.Join(certs, "ca-certificates.crt"), authority, 0o644))
	// A cache with the program's modules alone, from the one that this very test was built with.
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/auditstream")
	list.Dir = harness.Path(".")
	list.Env = append(os.Environ(), "GOMODCACHE="+filepath.Join(root, "go/pkg/mod"), "GOFLAGS=-modcacherw", "CGO_ENABLED=0",
		"GOPROXY=file://"+filepath.Join(goEnv("GOMODCACHE"), "cache/download"), "GONOSUMDB=*")
	if out, err := list.CombinedOutput(); err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	files := []string{"bin/sh"}
	libraries, err := exec.CommandContext(t.Context(), "ldd", "/bin/sh").Output()
	if err != nil {
		t.Fatalf("ldd /bin/sh: %v", err)
	}
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		files = append(files, strings.TrimPrefix(path, "/"))
	}
	goroot := goEnv("GOROOT")
	for _, part := range []string{"bin", "lib", "pkg/include", "pkg/tool", "src", "VERSION", "go.env"} {
		files = append(files, strings.TrimPrefix(filepath.Join(goroot, part), "/"))
	}
	var image bytes.Buffer
	tar := exec.CommandContext(t.Context(), "tar", slices.Concat([]string{"-ch", "-C", "/", "--exclude=testdata", "--exclude=*_test.go"}, files,
		[]string{"-C", root, "go", "etc", "tmp"})...)
	tar.Stdout, tar.Stderr = &image, os.Stderr
	if err := tar.Run(); err != nil {
		t.Fatalf("tar: %v", err)
	}
	docker(t, &image, "import", "-c", "ENV PATH="+filepath.Join(goroot, "bin")+":/bin", "-c", "ENV GOPATH=/go", "-c", "ENV GOPROXY=off", "-", name)
	return name
}

package web

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

func onPath(t testing.TB, command string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		t.Fatal("the browser client's tests need Node.js 20 or later and npm: install them (Debian: apt-get install nodejs npm) and have them on the PATH")
	}
	return path
}

const compiler = "client/test/node_modules/typescript/bin/tsc"

func needCompiler(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(compiler); err != nil {
		t.Fatal("the browser client's types are checked with tsc: run npm ci in server/web/client/test, as make test does")
	}
}

// TestBrowserClient runs the client's tests that need no server of ours.
func TestBrowserClient(t *testing.T) {
	t.Parallel()
	node := onPath(t, "node")
	tests, err := filepath.Glob("client/test/*.test.mjs")
	if err != nil || len(tests) == 0 {
		t.Fatalf("the client's tests: %q, %v", tests, err)
	}
	out, err := exec.CommandContext(t.Context(), node, append([]string{"--test", "--test-timeout=600000"}, tests...)...).CombinedOutput()
	if err != nil {
		t.Errorf("node --test %s: %v\n%s", strings.Join(tests, " "), err, out)
	}
}

// TestBrowserClientTypes checks the declarations with tsc, by code that uses them.
func TestBrowserClientTypes(t *testing.T) {
	t.Parallel()
	needCompiler(t)
	if out, err := exec.CommandContext(t.Context(), onPath(t, "node"), compiler, "-p", "client/test", "--noEmit").CombinedOutput(); err != nil {
		t.Errorf("tsc: %v\n%s", err, out)
	}
}

// TestBrowserClientLockNamesNoRegistry: what is installed is named by its hash, and comes from whichever registry npm uses.
func TestBrowserClientLockNamesNoRegistry(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("client/test/package-lock.json")
	testkit.NoError(t, err)
	if !bytes.Contains(lock, []byte(`"integrity"`)) || bytes.Contains(lock, []byte("resolved")) || bytes.Contains(lock, []byte("http")) {
		t.Error("package-lock.json has no hashes, or names a registry: run npm install in client/test, where .npmrc forbids it")
	}
}

// TestBrowserClientIsSmall holds the whole client, with its comments, below 7.5 kB as it goes over the wire.
func TestBrowserClientIsSmall(t *testing.T) {
	t.Parallel()
	const most = 7500
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	testkit.NoError(t, err)
	if _, err := w.Write(ask(t, http.MethodGet, "/client.js").Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	testkit.NoError(t, w.Close())
	if packed.Len() >= most {
		t.Errorf("client.js is %d bytes gzipped, want below %d", packed.Len(), most)
	}
}

// TestBrowserClientPackage packs the client, installs the tarball as a user would, and uses and type-checks what is there.
func TestBrowserClientPackage(t *testing.T) {
	t.Parallel()
	needCompiler(t)
	npm, dir := onPath(t, "npm"), t.TempDir()
	run := func(in, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = in
		var errors bytes.Buffer
		cmd.Stderr = &errors
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errors.Bytes())
		}
		return string(out)
	}
	tarball := strings.TrimSpace(run("client", npm, "pack", "--silent", "--pack-destination", dir))
	write := func(name, text string) {
		t.Helper()
		testkit.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("package.json", `{"type": "module"}`)
	run(dir, npm, "install", "--offline", "--no-audit", "--no-fund", "--omit=peer", "./"+tarball)

	got, err := filepath.Glob(filepath.Join(dir, "node_modules/auditstream-client/*"))
	testkit.NoError(t, err)
	for k, path := range got {
		got[k] = filepath.Base(path)
	}
	if want := []string{"LICENSE", "README.md", "client.d.ts", "client.js", "package.json", "react.d.ts", "react.js", "testing"}; !slices.Equal(got, want) {
		t.Errorf("the package has %q, want %q", got, want)
	}

	write("use.mjs", `import * as client from 'auditstream-client';
console.log(Object.keys(client).join(), await client.watchAudits([]));`)
	const exports = "AuthEventSource,EventStreamParser,backoff,watchAudit,watchAudits,watchProgress"
	if got, want := run(dir, onPath(t, "node"), "use.mjs"), exports+" done\n"; got != want {
		t.Errorf("the package says %q, want %q", got, want)
	}

	write("testing.mjs", `import { fakeProgress } from 'auditstream-client/testing';
import { watchProgress } from 'auditstream-client';
const fake = fakeProgress();
fake.play('jobs/7', { status: 'completed', progress: 100 });
console.log(await watchProgress('jobs', 7));`)
	if got := run(dir, onPath(t, "node"), "testing.mjs"); got != "done\n" {
		t.Errorf("the package's fake says %q, want done", got)
	}

	// What is declared is there, and what is there is declared.
	write("use.ts", `import * as client from 'auditstream-client';
import { fakeProgress, testServer } from 'auditstream-client/testing';
export const testing: [ReturnType<typeof fakeProgress>?, Awaited<ReturnType<typeof testServer>>?] = [];
type Same<A, B> = [A] extends [B] ? [B] extends [A] ? true : false : false;
export const same: Same<keyof typeof client, '`+strings.ReplaceAll(exports, ",", "' | '")+`'> = true;`)
	tsc, err := filepath.Abs(compiler)
	testkit.NoError(t, err)
	run(dir, onPath(t, "node"), tsc, "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "use.ts")
}

package web

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/chromedp/chromedp"
)

// apiPage opens a page in a browser to which the host of the API page's code is an instance of ours, with an audit 123.
func apiPage(t testing.TB) (*page, harness.Database, *harness.Instance) {
	t.Helper()
	db := harness.NewDatabase(t)
	db.SQL(t, `insert into audits (id, url, user_id, status, progress) overriding system value
		values (123, 'https://example.com', 'alice', 'running', 25)`)
	s := newSite(t)
	cert, key, _ := harness.SelfSigned(t)
	i := harness.Serve(t, db.Serve, "CORS_ALLOWED_ORIGINS="+s.URL, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key)
	p := openPage(t, s.URL, chromedp.IgnoreCertErrors,
		chromedp.Flag("host-resolver-rules", "MAP api.latentgeo.com:443 "+strings.TrimPrefix(i.URL, "https://")))
	return p, db, i
}

// module runs JavaScript as a module of the page.
func (p *page) module(t testing.TB, code string) {
	t.Helper()
	p.eval(t, fmt.Sprintf(`{ const script = document.createElement('script');
		script.type = 'module'; script.textContent = %s; document.body.append(script); }`, jsString(code)))
}

// jsString is a string literal of JavaScript.
func jsString(text string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`", "${", "\\${").Replace(text) + "`"
}

// TestClientAPIPageExample runs the API page's example as it is written there, but for the token, after one import; and
// without that import, where the browser drops the header.
func TestClientAPIPageExample(t *testing.T) {
	t.Parallel()
	code, err := os.ReadFile(harness.Path(harness.ClientTestDir + "/api-example.js"))
	harness.NoError(t, err)
	p, db, i := apiPage(t)
	example := strings.ReplaceAll(string(code), "YOUR_TOKEN", harness.AliceToken(t))
	_, native, ok := strings.Cut(example, "\n")
	if !ok || !strings.HasPrefix(example, "import ") {
		t.Fatalf("the example does not begin with its import: %s", example)
	}
	p.eval(t, `window.logged = []; window.errors = 0;
		console.log = (...args) => { logged.push(args.join(' ')); }; console.error = () => { errors++; };`)

	refused := `auditstream_requests_refused_total{reason="missing token"}`
	p.module(t, native)
	p.wait(t, "the native EventSource to fail", "errors === 1 && logged.length === 0")
	i.WantMetric(t, refused, 1)

	p.module(t, example)
	p.wait(t, "the first event", "logged.join() === 'Progress: 25%,Status: running'")
	db.SQL(t, "update audits set status = 'completed', progress = 100")
	p.wait(t, "the end", "logged.slice(2).join() === 'Progress: 100%,Status: completed'")
	i.WaitMetric(t, "auditstream_streams_open", harness.Exactly(0))
	p.wait(t, "no further error", "errors === 1")
}

// TestClientAPIPageHook runs the API page's React hook as it is written there, compiled by tsc, with React from npm.
func TestClientAPIPageHook(t *testing.T) {
	t.Parallel()
	harness.NodeModules(t)
	dir := t.TempDir()
	tsc := exec.CommandContext(t.Context(), "node", "node_modules/typescript/bin/tsc", "-p", ".", "--outDir", dir)
	tsc.Dir = harness.Path(harness.ClientTestDir)
	if out, err := tsc.CombinedOutput(); err != nil {
		t.Fatalf("tsc: %v\n%s", err, out)
	}
	hook, err := os.ReadFile(filepath.Join(dir, "api-hook.js"))
	harness.NoError(t, err)
	p, db, i := apiPage(t)
	p.module(t, string(hook)+fmt.Sprintf(`
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';
function Audit() {
  const { progress, error } = useAuditProgress(123, %q);
  return error ?? (progress ? progress.status + ' ' + progress.progress : 'nothing yet');
}
window.root = createRoot(document.querySelector('#root'));
root.render(createElement(Audit));`, harness.AliceToken(t)))
	p.wait(t, "the first state", "document.querySelector('#root').textContent === 'running 25'")
	db.SQL(t, "update audits set progress = 50")
	p.wait(t, "the second state", "document.querySelector('#root').textContent === 'running 50'")
	i.WantMetric(t, "auditstream_streams_open", 1)
	db.SQL(t, "update audits set status = 'completed', progress = 100")
	p.wait(t, "the end", "document.querySelector('#root').textContent === 'completed 100'")
	p.quiet(t)
}

// TestClientReactHook mounts useAuditProgress, twice as strict mode does, gives it another audit, and unmounts it.
func TestClientReactHook(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	s := newSite(t)
	i := harness.ServeReady(t, db.Serve)
	s.setTarget(t, i.URL)
	one := db.Insert(t, "status, progress", "'running', 10")
	two := db.Insert(t, "status, progress", "'running', 20")
	p := openPage(t, s.URL)
	p.module(t, fmt.Sprintf(`
import { createElement, StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { useAuditProgress } from 'auditstream-client/react';
function Audit({ id }) {
  const { progress, state, error } = useAuditProgress(id, { token: async () => %q }); // another function each time
  return [progress?.audit_id, progress?.progress, state, error].join(' ');
}
window.root = createRoot(document.querySelector('#root'));
window.render = (id) => root.render(createElement(StrictMode, null, createElement(Audit, { id })));
render(%s);`, harness.AliceToken(t), one))
	shows := func(what string) {
		t.Helper()
		p.wait(t, what, fmt.Sprintf("document.querySelector('#root').textContent === '%s'", what))
	}
	open := func(want float64) {
		t.Helper()
		i.WaitMetric(t, "auditstream_streams_open", harness.Exactly(want))
	}
	shows(one + " 10 live ")
	db.SQL(t, "update audits set progress = 15 where id = "+one)
	shows(one + " 15 live ")
	open(1)
	p.eval(t, "render("+two+")")
	shows(two + " 20 live ")
	open(1)
	db.SQL(t, "update audits set status = 'completed', progress = 100 where id = "+two)
	shows(two + " 100 done ")
	p.eval(t, "render("+one+")")
	shows(one + " 15 live ")
	p.eval(t, "root.unmount()")
	open(0)
	p.quiet(t)
}

// TestClientFakeInReact tests a component as somebody would, in a browser and without a server: the hooks are told what the test plays.
func TestClientFakeInReact(t *testing.T) {
	t.Parallel()
	s := newSite(t) // whose API answers 502
	p := openPage(t, s.URL)
	p.module(t, `
import { createElement, StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';
import { useProgress } from 'auditstream-client/react';
import { fakeProgress } from 'auditstream-client/testing';
function Job({ id }) {
  const { progress, state, error } = useProgress('jobs', id, { token: 'none' });
  return [id, progress?.progress, progress?.kind, state, error].join(' ');
}
window.fake = fakeProgress();
const root = createRoot(document.querySelector('#root'));
window.render = (id) => flushSync(() => root.render(createElement(StrictMode, null, createElement(Job, { id }))));
window.play = (...played) => flushSync(() => fake.play(...played)); // act() in a test runner
window.unmount = () => root.unmount();
window.loaded = true;`)
	p.wait(t, "the module", "window.loaded")
	shows := func(does, want string) {
		t.Helper()
		p.eval(t, does)
		p.wait(t, want, fmt.Sprintf("document.querySelector('#root').textContent === %q", want))
	}
	shows("render('a')", "a   connecting ")
	shows("play('jobs/a', { status: 'running', progress: 55, kind: 'mail' })", "a 55 mail live ")
	shows("fake.connection('offline', { error: 'Connection lost' })", "a 55 mail offline Connection lost")
	shows("play('jobs/b', { status: 'running', progress: 5 })", "a 55 mail offline Connection lost")
	shows("render('b')", "b 5  live ")
	shows("play('jobs/b', { status: 'completed', progress: 100 })", "b 100  done ")
	shows("fake.deny('jobs/c'); render('c')", "c   denied Audit not found")
	shows("render('a')", "a 55 mail live ")
	p.wait(t, "one watch, of what is mounted", "fake.watched().join() === 'jobs/a'")
	p.eval(t, "unmount()")
	p.wait(t, "none", "fake.watched().length === 0")
	if len(s.asked) > 0 || len(p.consoleProblems()) > 0 {
		t.Errorf("%d streams were asked for; the console shows:\n%s", len(s.asked), strings.Join(p.consoleProblems(), "\n"))
	}
}

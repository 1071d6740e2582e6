package web

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// site is somebody's application: pages that import the client by its package's name, and a proxy that leads from /api/ to
// an instance.
type site struct {
	URL    string
	target atomic.Pointer[url.URL]
	held   atomic.Bool // streams wait in the proxy, as in one that buffers
	asked  chan asked  // of each stream, in the order of their ends
}

// asked is a request for a stream, and its answer.
type asked struct {
	status                     int
	authorization, lastEventID string
}

func newSite(t testing.TB) *site {
	t.Helper()
	harness.NodeModules(t)
	s := &site{asked: make(chan asked, 1000)}
	s.setTarget(t, "http://127.0.0.1:1") // nobody listens there: the proxy answers 502
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><title>client</title><link rel="icon" href="data:,"><div id="root"></div>
<script type="importmap">{"imports": {"auditstream-client": "/client/client.js", "auditstream-client/react": "/client/react.js",
"auditstream-client/testing": "/client/testing/index.js",
"react": "/npm/react", "react-dom": "/npm/react-dom", "react-dom/client": "/npm/react-dom/client", "scheduler": "/npm/scheduler"}}</script>`)
	})
	mux.Handle("/client/", http.StripPrefix("/client/", http.FileServer(http.Dir(harness.Path(harness.ClientDir)))))
	mux.HandleFunc("/npm/{name...}", serveCommonJS)
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(s.target.Load()) },
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/sse/") {
			proxy.ServeHTTP(w, r)
			return
		}
		if s.held.Load() {
			<-r.Context().Done()
			return
		}
		answer := &statusRecorder{ResponseWriter: w}
		defer func() {
			s.asked <- asked{answer.status, r.Header.Get("Authorization"), r.Header.Get("Last-Event-ID")}
		}()
		proxy.ServeHTTP(answer, r) // panics with http.ErrAbortHandler when a stream breaks off
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	s.URL = server.URL
	return s
}

// siteWithAudit is a site that leads to an instance, and an audit that runs at 10 %.
func siteWithAudit(t testing.TB, env ...string) (harness.Database, *site, *harness.Instance, string) {
	t.Helper()
	db, s := harness.NewDatabase(t), newSite(t)
	i := harness.ServeReady(t, db.Serve, append(env, "CORS_ALLOWED_ORIGINS="+s.URL)...)
	s.setTarget(t, i.URL)
	return db, s, i, db.Insert(t, "status, progress", "'running', 10")
}

// setTarget changes where requests made from now on are led to.
func (s *site) setTarget(t testing.TB, address string) {
	t.Helper()
	u, err := url.Parse(address)
	harness.NoError(t, err)
	s.target.Store(u)
}

// next waits for the end of a stream's request.
func (s *site) next(t testing.TB) asked {
	t.Helper()
	select {
	case a := <-s.asked:
		return a
	case <-time.After(2 * harness.Patience):
		t.Fatal("no request for a stream has ended")
		return asked{}
	}
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// commonJS are React's packages as npm has them: the file, the modules it requires, and what is imported of it by name.
var commonJS = map[string]struct {
	file     string
	requires []string
	names    string
}{
	"react":            {"react/cjs/react.production.js", nil, "createElement, StrictMode, useEffect, useRef, useState"},
	"scheduler":        {"scheduler/cjs/scheduler.production.js", nil, "unstable_now"},
	"react-dom":        {"react-dom/cjs/react-dom.production.js", []string{"react"}, "flushSync"},
	"react-dom/client": {"react-dom/cjs/react-dom-client.production.js", []string{"react", "react-dom", "scheduler"}, "createRoot"},
}

// serveCommonJS does what a bundler does: it makes an ES module of a CommonJS one.
func serveCommonJS(w http.ResponseWriter, r *http.Request) {
	module, ok := commonJS[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	code, err := os.ReadFile(filepath.Join(harness.Path(harness.ClientTestDir), "node_modules", module.file))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	for k, name := range module.requires {
		fmt.Fprintf(w, "import m%d from %q;\n", k, name)
	}
	fmt.Fprint(w, "const module = { exports: {} };\nconst modules = {")
	for k, name := range module.requires {
		fmt.Fprintf(w, "%q: m%d, ", name, k)
	}
	fmt.Fprintf(w, "};\n((module, exports, require) => {\n%s\n})(module, module.exports, (name) => modules[name]);\n", code)
	fmt.Fprintf(w, "export default module.exports;\nexport const { %s } = module.exports;\n", module.names)
}

// watching starts watchAudit in the page. What it says is collected in the page's variable seen; options are further ones.
func (p *page) watching(t testing.TB, id, options string) {
	t.Helper()
	p.eval(t, `window.seen = { states: [], errors: [], progress: [], asked: 0 };
		window.stop = new AbortController();
		void import('auditstream-client').then(({ watchAudit }) => watchAudit(`+id+`, {
			signal: stop.signal,
			onProgress: (audit) => { seen.progress.push(audit.progress); },
			onState: (state, { error }) => { seen.states.push(state); if (error) seen.errors.push(error); },
			`+options+`
		})).then((outcome) => { seen.outcome = String(outcome); });`)
}

// front brings the page's tab to the front of its window.
func (p *page) front(t testing.TB) {
	t.Helper()
	p.do(t, chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, cdppage.BringToFront, cdp.Empty{})
		return err
	}))
}

func (p *page) waitProgress(t testing.TB, progress int) {
	t.Helper()
	p.wait(t, fmt.Sprintf("progress %d", progress), fmt.Sprintf("window.seen?.progress.at(-1) === %d", progress))
}

// completes ends all audits, and waits until the pages have shown that.
func completes(t testing.TB, db harness.Database, pages ...*page) {
	t.Helper()
	db.SQL(t, "update audits set status = 'completed', progress = 100")
	for _, p := range pages {
		p.waitProgress(t, 100)
		p.wantDone(t)
	}
}

// wantDone checks that the watch has come to the end of its audit.
func (p *page) wantDone(t testing.TB) {
	t.Helper()
	p.wait(t, "the outcome done", "window.seen?.outcome === 'done' && seen.states.at(-1) === 'done'")
}

package web

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// measured is a proxy, and what must hold of the viewers behind it, beside one without a proxy, and generously: the machine may stand
// still for a while.
type measured struct {
	name, url string
	first     time.Duration // the first state is there so long after that one's
	share     float64       // of the time that the state shown is older than 1 s, and that one's is not, in per cent
}

const (
	watchedFor  = 20 * time.Second
	updateEvery = 200 * time.Millisecond
	polled      = 97.0 // per cent: every 5 s
	soon        = 5 * time.Second
	later       = 12 * time.Second // 5 s, on a machine that does nothing else
)

// Through each proxy the client shows a state in time, and an old one for a bounded share of the time.
func TestProxies(t *testing.T) {
	t.Parallel()
	harness.NodeModules(t)
	db, i := harness.ServeNew(t)
	id := db.Insert(t, "status, total_pages", "'running', 0")
	proxies := append(realProxies(t, strings.TrimPrefix(i.URL, "http://")), strangeProxies(t, i.URL)...)
	proxies = append([]measured{{"no proxy", i.URL, soon, 20}}, proxies...)

	args := []string{id}
	for _, p := range proxies {
		args = append(args, p.name+"="+p.url)
	}
	began := time.Now()
	n := startNode(t, "measure.mjs", args...)
	committed := []time.Time{began} // of each value of total_pages
	tick := time.NewTicker(updateEvery)
	defer tick.Stop()
	for now := began; now.Sub(began) < watchedFor; now = <-tick.C {
		db.SQL(t, fmt.Sprintf("update audits set total_pages = %d where id = %s", len(committed), id))
		committed = append(committed, time.Now())
	}
	ended := time.Now()

	shown := map[string][]shownState{}
	for line := range strings.Lines(n.out.String()) {
		var s shownState
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		shown[s.Name] = append(shown[s.Name], s)
	}
	if len(shown[""]) == 0 {
		t.Fatal("node did not begin in time")
	}
	watched := time.UnixMilli(shown[""][0].At)
	var table strings.Builder
	firstDirect, shareDirect := assess(shown[proxies[0].name], committed, watched, ended)
	for _, p := range proxies {
		first, share := assess(shown[p.name], committed, watched, ended)
		fmt.Fprintf(&table, "| %s | %.1f s | %.0f %% |\n", p.name, first.Seconds(), share)
		if len(shown[p.name]) == 0 || first-firstDirect > p.first || share-shareDirect > p.share {
			t.Errorf("%s: first state after %v, %.1f %% of the time older than 1 s; want at most %v, %.0f %% more than %v, %.1f %%, without a proxy",
				p.name, first, share, p.first, p.share, firstDirect, shareDirect)
		}
		if !slices.IsSortedFunc(shown[p.name], func(a, b shownState) int { return a.Pages - b.Pages }) {
			t.Errorf("%s: the state shown went back", p.name)
		}
	}
	t.Logf("the table of docs/proxies.md:\n%s", table.String())
	page := harness.Document(t, "docs/proxies.md")
	rows := regexp.MustCompile(`(\| through [^\n]*\n\|[ -|]*\n)((?:\|[^\n]*\n)*)`)
	if os.Getenv("AUDITSTREAM_UPDATE_DOCS") != "" {
		page = rows.ReplaceAllString(page, "${1}"+strings.ReplaceAll(table.String(), "$", "$$"))
		harness.NoError(t, os.WriteFile(harness.Path("docs/proxies.md"), []byte(page), 0o600))
	}
	for _, p := range proxies {
		if !strings.Contains(page, "\n| "+p.name+" | ") {
			t.Errorf("docs/proxies.md says nothing of %s: run this test with AUDITSTREAM_UPDATE_DOCS=1", p.name)
		}
	}
}

type shownState struct {
	Name  string
	Pages int
	At    int64
}

// assess returns the time to the first state, and the share of the time from it on that a state was shown which another one had
// replaced more than a second before.
func assess(shown []shownState, committed []time.Time, began, ended time.Time) (first time.Duration, share float64) {
	if len(shown) == 0 {
		return ended.Sub(began), 100
	}
	start := time.UnixMilli(shown[0].At)
	var old time.Duration
	for k, s := range shown {
		until := ended
		if k+1 < len(shown) {
			until = time.UnixMilli(shown[k+1].At)
		}
		if s.Pages+1 >= len(committed) {
			continue
		}
		from := committed[s.Pages+1].Add(time.Second) // from when on it is too old
		if at := time.UnixMilli(s.At); from.Before(at) {
			from = at
		}
		old += max(until.Sub(from), 0)
	}
	return start.Sub(began), 100 * old.Seconds() / ended.Sub(start).Seconds()
}

// configuration is the page's, with other addresses.
func configuration(t testing.TB, language, listen, addr, backend string) string {
	t.Helper()
	_, text, found := strings.Cut(harness.Document(t, "docs/proxies.md"), "\n```"+language+"\n")
	text, _, ended := strings.Cut(text, "```\n")
	if !found || !ended || !strings.Contains(text, listen) || !strings.Contains(text, "127.0.0.1:8080") {
		t.Fatalf("docs/proxies.md has no configuration in %s", language)
	}
	return strings.NewReplacer(listen, addr, "127.0.0.1:8080", backend).Replace(text)
}

func realProxies(t testing.TB, backend string) (all []measured) {
	t.Helper()
	good := func(name, addr string) measured { return measured{name, "http://" + addr, soon, 20} }
	dir, addr := t.TempDir(), harness.QuietAddr(t)
	servers := configuration(t, "nginx", "listen 80;", "listen "+addr+";", backend)
	all = append(all, good("nginx", addr))
	for _, variant := range []struct {
		name, lines string
		held        bool
	}{
		{"nginx, its defaults (HTTP/1.0, buffering)", "", false},
		{"nginx, HTTP/1.1, gzip", "proxy_http_version 1.1; proxy_buffering off; gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;", false},
		{"nginx, HTTP/1.0, ignoring X-Accel-Buffering", "proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 64k; proxy_buffers 8 64k;", true},
		{"nginx, HTTP/1.1, ignoring X-Accel-Buffering", "proxy_http_version 1.1; proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 64k; proxy_buffers 8 64k;", true},
	} {
		addr := harness.QuietAddr(t)
		servers += "server { listen " + addr + "; location / { proxy_pass http://" + backend + "; " + variant.lines + " } }\n"
		p := good(variant.name, addr)
		if variant.held {
			p.first, p.share = later, polled
		}
		all = append(all, p)
	}
	path := filepath.Join(dir, "nginx.conf")
	run := harness.StartProgram(t, "nginx", path, "pid "+dir+"/pid;\nevents {}\nhttp {\naccess_log off;\n"+harness.TemporaryPaths(dir)+servers+"}\n")
	run(addr, "-e", dir+"/error.log", "-p", dir, "-c", path, "-g", "daemon off;")

	dir, addr = t.TempDir(), harness.QuietAddr(t)
	path = filepath.Join(dir, "haproxy.cfg")
	harness.StartProgram(t, "haproxy", path, "global\n    maxconn 1000\n"+configuration(t, "haproxy", "bind :80", "bind "+addr, backend))(addr, "-db", "-f", path)
	all = append(all, good("HAProxy", addr))

	dir, addr = t.TempDir(), harness.QuietAddr(t)
	path = filepath.Join(dir, "Caddyfile")
	harness.StartProgram(t, "caddy", path, "{\n\tadmin off\n}\n"+configuration(t, "caddyfile", ":80 {", "http://"+addr+" {", backend))(addr, "run", "--adapter", "caddyfile", "--config", path)
	return append(all, good("Caddy", addr))
}

// strangeProxies are those of public reports.
func strangeProxies(t testing.TB, target string) (all []measured) {
	t.Helper()
	began := sync.OnceValue(time.Now) // of the first request
	add := func(name string, first time.Duration, share float64, serve func(w http.ResponseWriter, r *http.Request, stream bool)) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			serve(w, r, strings.Contains(r.URL.Path, "/sse/"))
		}))
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		all = append(all, measured{name, s.URL, first, share})
	}
	add("one that ends streams after 3 s", soon, 20, func(w http.ResponseWriter, r *http.Request, stream bool) {
		forward(w, r, target, 3*time.Second)
	})
	add("one that breaks streams off after 3 s", soon, 20, func(w http.ResponseWriter, r *http.Request, stream bool) {
		forward(w, r, target, 3*time.Second)
		panic(http.ErrAbortHandler)
	})
	for _, status := range []int{404, 403, 502, 503} {
		page := fmt.Sprintf("<h1>%d %s</h1>", status, http.StatusText(status))
		add(fmt.Sprintf("one whose own page, %d, is at the streams' place", status), soon, polled, func(w http.ResponseWriter, r *http.Request, stream bool) {
			if stream {
				http.Error(w, page, status)
				return
			}
			forward(w, r, target, 0)
		})
		add(fmt.Sprintf("one that answers %d to all for 3 s", status), later, polled, func(w http.ResponseWriter, r *http.Request, _ bool) {
			if time.Since(began()) < 3*time.Second {
				http.Error(w, page, status)
				return
			}
			forward(w, r, target, 0)
		})
	}
	add("one that holds streams back", later, polled, func(w http.ResponseWriter, r *http.Request, stream bool) {
		if stream {
			<-r.Context().Done()
			return
		}
		forward(w, r, target, 0)
	})
	return all
}

// forward passes on a request and its answer, for so long; 0: to its end.
func forward(w http.ResponseWriter, r *http.Request, target string, long time.Duration) {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(target, "http://")
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		http.Error(w, "", http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if long > 0 {
		defer time.AfterFunc(long, func() { _ = resp.Body.Close() }).Stop()
	}
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	flush := http.NewResponseController(w)
	for buffer := make([]byte, 32<<10); ; {
		n, err := resp.Body.Read(buffer)
		_, _ = w.Write(buffer[:n])
		_ = flush.Flush()
		if err != nil {
			return
		}
	}
}

package docsite

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

var (
	reference = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	identity  = regexp.MustCompile(` id="([^"]*)"`)
)

// Each link of each page leads to a file of the site, and to a heading that is there.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	site, err := Files()
	testkit.NoError(t, err)
	links := 0
	for name, content := range site {
		if !strings.HasSuffix(name, ".html") {
			continue
		}
		for _, m := range reference.FindAllSubmatch(content, -1) {
			target := string(m[1])
			if strings.HasPrefix(target, "https://") || target == "data:," {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(target, "#")
			if file == "" {
				file = name
			}
			page, ok := site[file]
			if !ok {
				t.Errorf("%s leads to %s: there is no such file", name, target)
				continue
			}
			found := anchor == ""
			for _, id := range identity.FindAllSubmatch(page, -1) {
				found = found || string(id[1]) == anchor
			}
			if !found {
				t.Errorf("%s leads to %s: there is no such heading", name, target)
			}
		}
	}
	if links < 500 {
		t.Errorf("%d links were found", links)
	}
}

// Tables, code and pictures are what they are, and what leads into the repository is text.
func TestPageIsHTML(t *testing.T) {
	t.Parallel()
	site, err := Files()
	testkit.NoError(t, err)
	page := string(site["deploy.html"])
	for _, want := range []string{"<title>Deploy - auditstream</title>", `<h2 id="the-image">The image</h2>`, "<td>", "<pre><code>", `<a href="configuration.html">`,
		`aria-current="page">Deploy</a>`, "SECURITY.md says who"} {
		if !strings.Contains(page, want) {
			t.Errorf("deploy.html has no %s", want)
		}
	}
	if strings.Contains(page, "../") {
		t.Error("deploy.html leads out of the site")
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	h := Handler("/docs/")
	for path, want := range map[string]struct {
		status int
		kind   string
	}{
		"/docs/":           {200, "text/html; charset=utf-8"},
		"/docs/api.html":   {200, "text/html; charset=utf-8"},
		"/docs/site.css":   {200, "text/css; charset=utf-8"},
		"/docs/update.svg": {200, "image/svg+xml"},
		"/docs/run.svg":    {200, "image/svg+xml"},
		"/docs/page.png":   {200, "image/png"},
		"/docs/api.md":     {404, "text/plain; charset=utf-8"},
		"/docs/../go.mod":  {404, "text/plain; charset=utf-8"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if w.Code != want.status || w.Header().Get("Content-Type") != want.kind {
			t.Errorf("%s: %d %s, want %d %s", path, w.Code, w.Header().Get("Content-Type"), want.status, want.kind)
		}
	}
}

package docsite

import (
	"mime"
	"net/http"
	"path"
	"strings"
)

// Handler serves the site under prefix, which ends with a slash; any other path below it is answered 404. Safe for concurrent use.
func Handler(prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site, err := Files()
		if err != nil {
			http.Error(w, "The documents cannot be shown", http.StatusInternalServerError)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, prefix)
		if name == "" {
			name = "index.html"
		}
		file, ok := site[name]
		if !ok {
			http.Error(w, "No such document: they begin at "+prefix, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(file) // the client has gone, if it fails
	})
}

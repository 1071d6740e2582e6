package harness

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

// opening is the comment that a stream begins with.
var opening = regexp.MustCompile(`^: heartbeat every [1-9][0-9]* s$`)

// Description is openapi.yaml. What it says can come is a set of marks, each a line like "GET /readyz 503 header Retry-After";
// an answer is judged by the marks that it makes, and by what is wrong with it.
type Description struct {
	doc    *openapi3.T
	Routes []DescribedRoute
}

// DescribedRoute is a path of openapi.yaml, by what it matches.
type DescribedRoute struct {
	pattern  *regexp.Regexp
	Template string
	Item     *openapi3.PathItem
}

// ReadDescription reads openapi.yaml, once.
var ReadDescription = sync.OnceValues(func() (*Description, error) {
	text, err := os.ReadFile(Path("internal/server/web/openapi.yaml"))
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	d := &Description{doc: doc}
	for template, item := range doc.Paths.Map() {
		parts := regexp.MustCompile(`\{\w+\}`).Split(template, -1)
		for k, part := range parts {
			parts[k] = regexp.QuoteMeta(part)
		}
		d.Routes = append(d.Routes, DescribedRoute{regexp.MustCompile("^" + strings.Join(parts, "[^/]+") + "$"), template, item})
	}
	// The one without parameters first, as the server has it.
	slices.SortFunc(d.Routes, func(a, b DescribedRoute) int {
		return strings.Count(a.Template, "{") - strings.Count(b.Template, "{")
	})
	return d, nil
})

// mark names an answer. A 405 is the path's: it is what other methods get.
func mark(method, template string, status int) string {
	if status == http.StatusMethodNotAllowed {
		method = "any method"
	}
	return fmt.Sprintf("%s %s %d", method, template, status)
}

// All returns the marks of everything that is described.
func (d *Description) All() map[string]bool {
	all := map[string]bool{}
	for _, r := range d.Routes {
		for method, operation := range r.Item.Operations() {
			for status, response := range operation.Responses.Map() {
				code, _ := strconv.Atoi(status)
				place := mark(method, r.Template, code)
				all[place] = true
				for name := range response.Value.Headers {
					all[place+" header "+name] = true
				}
				if method == http.MethodHead {
					continue
				}
				for _, media := range response.Value.Content {
					d.allFields(all, place, media.Schema)
				}
			}
		}
	}
	return all
}

func (d *Description) allFields(all map[string]bool, place string, schema *openapi3.SchemaRef) {
	if schema.Value.ContentSchema != nil { // a stream
		event := schema.Value.ContentSchema.Value.Items
		d.allFields(all, place, event)
		for _, data := range event.Value.Properties["data"].Value.ContentSchema.Value.AnyOf {
			d.allFields(all, place, data)
		}
		all[place+" heartbeat"], all[place+" end"] = true, true
	}
	for field, of := range schema.Value.Properties {
		all[place+" "+schemaName(schema)+"."+field] = true
		for _, value := range of.Value.Enum {
			all[fmt.Sprintf("%s %s.%s = %v", place, schemaName(schema), field, value)] = true
		}
	}
}

func schemaName(schema *openapi3.SchemaRef) string {
	if schema.Ref == "" {
		return "body"
	}
	return path.Base(schema.Ref)
}

// judge holds an answer against the description; ok is false where the path is none of it.
func (d *Description) judge(r *http.Request, resp *http.Response, body []byte) (marks, wrong []string, ok bool) {
	k := slices.IndexFunc(d.Routes, func(route DescribedRoute) bool { return route.pattern.MatchString(r.URL.EscapedPath()) })
	if k < 0 {
		return nil, nil, false
	}
	route, place := d.Routes[k], mark(r.Method, d.Routes[k].Template, resp.StatusCode)
	j := judgement{Description: d, place: place}
	operation := route.Item.GetOperation(r.Method)
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && resp.StatusCode == 204
	switch {
	case preflight || ofNetHTTP(resp):
		return nil, nil, true
	case operation == nil && resp.StatusCode == http.StatusMethodNotAllowed:
		operation = route.Item.Get
	case operation == nil:
		return nil, []string{place + ": not described"}, true
	}
	response := operation.Responses.Status(resp.StatusCode)
	if response == nil {
		return nil, []string{place + ": not described"}, true
	}
	j.mark("")
	j.headers(response.Value, resp.Header)
	if r.Method != http.MethodHead {
		j.body(response.Value, resp.Header.Get("Content-Type"), body)
	}
	return j.marks, j.wrong, true
}

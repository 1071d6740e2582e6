package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
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

// description is openapi.yaml. What it says can come is a set of marks, each a line like "GET /readyz 503 header Retry-After";
// an answer is judged by the marks that it makes, and by what is wrong with it.
type description struct {
	doc    *openapi3.T
	routes []describedRoute
}

type describedRoute struct {
	pattern  *regexp.Regexp
	template string
	item     *openapi3.PathItem
}

var readDescription = sync.OnceValues(func() (*description, error) {
	text, err := os.ReadFile(repoPath("internal/server/web/openapi.yaml"))
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	d := &description{doc: doc}
	for template, item := range doc.Paths.Map() {
		parts := regexp.MustCompile(`\{\w+\}`).Split(template, -1)
		for k, part := range parts {
			parts[k] = regexp.QuoteMeta(part)
		}
		d.routes = append(d.routes, describedRoute{regexp.MustCompile("^" + strings.Join(parts, "[^/]+") + "$"), template, item})
	}
	// The one without parameters first, as the server has it.
	slices.SortFunc(d.routes, func(a, b describedRoute) int {
		return strings.Count(a.template, "{") - strings.Count(b.template, "{")
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

// all returns the marks of everything that is described.
func (d *description) all() map[string]bool {
	all := map[string]bool{}
	for _, r := range d.routes {
		for method, operation := range r.item.Operations() {
			for status, response := range operation.Responses.Map() {
				code, _ := strconv.Atoi(status)
				place := mark(method, r.template, code)
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

func (d *description) allFields(all map[string]bool, place string, schema *openapi3.SchemaRef) {
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

// standard are the headers that HTTP itself has or, from Access-Control-Allow-Origin on, CORS, and why they are not described.
var standard = map[string]string{
	"Date":           "every answer's, RFC 9110, section 6.6.1",
	"Content-Type":   "described by the media type",
	"Content-Length": "framing",
	"Connection":     "HTTP/1.1 alone: after a request with a body, and while the server shuts down",

	"Access-Control-Allow-Origin":   "CORS, described in words",
	"Access-Control-Allow-Methods":  "CORS",
	"Access-Control-Allow-Headers":  "CORS",
	"Access-Control-Expose-Headers": "CORS",
	"Access-Control-Max-Age":        "CORS",
}

var ofCORS = regexp.MustCompile(`^(Origin|Access-Control-Request-(Method|Headers)|, ?)+$`)

// judge holds an answer against the description; ok is false where the path is none of it.
func (d *description) judge(r *http.Request, resp *http.Response, body []byte) (marks, wrong []string, ok bool) {
	k := slices.IndexFunc(d.routes, func(route describedRoute) bool { return route.pattern.MatchString(r.URL.EscapedPath()) })
	if k < 0 {
		return nil, nil, false
	}
	route, place := d.routes[k], mark(r.Method, d.routes[k].template, resp.StatusCode)
	j := judgement{description: d, place: place}
	operation := route.item.GetOperation(r.Method)
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && resp.StatusCode == 204
	switch {
	case preflight || ofNetHTTP(resp):
		return nil, nil, true
	case operation == nil && resp.StatusCode == http.StatusMethodNotAllowed:
		operation = route.item.Get
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

// ofNetHTTP reports whether Go's HTTP server has answered before any handler of ours was asked, as the description says in words.
func ofNetHTTP(resp *http.Response) bool {
	return resp.Header.Get("X-Content-Type-Options") == "" && resp.Header.Get("Cache-Control") == "" &&
		slices.Contains([]int{400, 417, 431, 501, 505}, resp.StatusCode)
}

// judgement is of one answer.
type judgement struct {
	*description
	place        string
	marks, wrong []string
}

func (j *judgement) mark(what string) { j.marks = append(j.marks, strings.TrimSpace(j.place+" "+what)) }

func (j *judgement) fault(format string, args ...any) {
	j.wrong = append(j.wrong, j.place+": "+fmt.Sprintf(format, args...))
}

func (j *judgement) headers(response *openapi3.Response, got http.Header) {
	described := map[string]*openapi3.Header{}
	for name, header := range response.Headers {
		described[http.CanonicalHeaderKey(name)] = header.Value
		if _, came := got[http.CanonicalHeaderKey(name)]; header.Value.Required && !came {
			j.fault("header %s is missing", name)
		}
	}
	for name, values := range got {
		header, value := described[name], strings.Join(values, ", ")
		switch {
		case header != nil:
			j.mark("header " + spelled(response, name))
			var parsed any = value
			if n, err := strconv.ParseFloat(value, 64); err == nil && header.Schema.Value.Type.Is("integer") {
				parsed = n
			}
			if err := j.doc.ValidateSchemaJSON(header.Schema.Value, parsed); err != nil {
				j.fault("header %s: %v", name, err)
			}
		case standard[name] != "", name == "Vary" && ofCORS.MatchString(value):
		default:
			j.fault("header %s: %s is not described", name, value)
		}
	}
}

// spelled is a header's name as the description has it.
func spelled(response *openapi3.Response, canonical string) string {
	for name := range response.Headers {
		if http.CanonicalHeaderKey(name) == canonical {
			return name
		}
	}
	return canonical
}

func (j *judgement) body(response *openapi3.Response, contentType string, body []byte) {
	if len(response.Content) == 0 {
		if len(body) > 0 {
			j.fault("a body that is not described: %.200q", body)
		}
		return
	}
	mediaType, _, _ := mime.ParseMediaType(contentType)
	media := response.Content[mediaType]
	switch {
	case media == nil:
		j.fault("Content-Type %q is not described", contentType)
	case media.Schema.Value.ContentSchema != nil:
		j.stream(media.Schema.Value.ContentSchema.Value.Items, body)
	case mediaType == "application/json":
		j.json(media.Schema, body)
	}
}

// json judges a JSON text by the first of the schemas that it fits.
func (j *judgement) json(schema *openapi3.SchemaRef, text []byte, others ...*openapi3.SchemaRef) {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		j.fault("%v: %.200q", err, text)
		return
	}
	if err := j.doc.ValidateSchemaJSON(schema.Value, value); err != nil {
		if len(others) > 0 {
			j.json(others[0], text, others[1:]...)
			return
		}
		j.fault("%.200q: %v", text, err)
		return
	}
	j.fields(schema, value)
}

func (j *judgement) fields(schema *openapi3.SchemaRef, value any) {
	object, _ := value.(map[string]any)
	for field, v := range object {
		name := schemaName(schema) + "." + field
		j.mark(name)
		switch property := schema.Value.Properties[field]; {
		case property == nil && schemaName(schema) == "AuditProgress": // no test installs audits with --field
			j.fault("%s is not described", name)
		case property != nil && len(property.Value.Enum) > 0:
			j.mark(fmt.Sprintf("%s = %v", name, v))
		}
	}
}

// stream judges the blocks of a stream that are whole.
func (j *judgement) stream(event *openapi3.SchemaRef, body []byte) {
	blocks := bytes.Split(body, []byte("\n\n"))
	for _, block := range blocks[:len(blocks)-1] {
		if opening.Match(block) {
			continue // a comment, which is no event
		}
		if string(block) == ": heartbeat" {
			j.mark("heartbeat")
			continue
		}
		fields := map[string]any{}
		for line := range strings.SplitSeq(string(block), "\n") {
			name, value, _ := strings.Cut(line, ": ")
			if line == ": end" {
				j.mark("end")
				continue
			}
			if _, twice := fields[name]; twice {
				j.fault("%s twice in %.200q", name, block)
			}
			fields[name] = value
			if n, err := strconv.ParseFloat(value, 64); err == nil && name == "retry" {
				fields[name] = n
			}
		}
		if err := j.doc.ValidateSchemaJSON(event.Value, fields); err != nil {
			j.fault("%.200q: %v", block, err)
			continue
		}
		j.fields(event, fields)
		if data, ok := fields["data"].(string); ok {
			kinds := event.Value.Properties["data"].Value.ContentSchema.Value.AnyOf
			j.json(kinds[0], []byte(data), kinds[1:]...)
		}
	}
}

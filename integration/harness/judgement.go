package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

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

// ofNetHTTP reports whether Go's HTTP server has answered before any handler of ours was asked, as the description says in words.
func ofNetHTTP(resp *http.Response) bool {
	return resp.Header.Get("X-Content-Type-Options") == "" && resp.Header.Get("Cache-Control") == "" &&
		slices.Contains([]int{400, 417, 431, 501, 505}, resp.StatusCode)
}

// judgement is of one answer.
type judgement struct {
	*Description
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

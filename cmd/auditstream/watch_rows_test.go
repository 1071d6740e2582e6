package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

func TestWatchNamesRows(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 240)
	for args, want := range map[string]struct{ path, names string }{
		"42":                                   {"audits/42/progress", "audit 42"},
		"audits/42":                            {"audits/42/progress", "audit 42"},
		"42 audits/43":                         {"audits/progress?ids=42,43", "audits 42, 43"},
		"audits/":                              {"audits/progress", "audits/"},
		"jobs/":                                {"jobs/progress", "jobs/"},
		"jobs/42":                              {"jobs/42/progress", "jobs/42"},
		"jobs/042":                             {"jobs/042/progress", "jobs/042"},
		"jobs/0":                               {"jobs/0/progress", "jobs/0"}, // the server knows which keys there are
		"jobs/a/b":                             {"jobs/a%2Fb/progress", "jobs/a/b"},
		"jobs/a%2Fb":                           {"jobs/a%2Fb/progress", "jobs/a/b"},
		"jobs/50%25":                           {"jobs/50%25/progress", "jobs/50%"},
		"jobs/a%20b":                           {"jobs/a%20b/progress", "jobs/a b"},
		"jobs/a+b":                             {"jobs/a+b/progress", "jobs/a+b"},
		"jobs/a,b":                             {"jobs/a%2Cb/progress", "jobs/a,b"},
		"jobs/a?b#c":                           {"jobs/a%3Fb%23c/progress", "jobs/a?b#c"},
		"jobs/..":                              {"jobs/progress?ids=..", "jobs/.."},
		"jobs/.":                               {"jobs/progress?ids=.", "jobs/."},
		"jobs/ä":                               {"jobs/%C3%A4/progress", "jobs/ä"},
		"jobs/%e2%80%ae":                       {"jobs/%E2%80%AE/progress", "jobs/ "},
		"jobs/a,b jobs/c+d jobs/e&f jobs/1%25": {"jobs/progress?ids=a%2Cb,c%2Bd,e%26f,1%25", "jobs/a,b, jobs/c+d, jobs/e&f, jobs/1%"},
		"jobs/" + long:                         {"jobs/" + long + "/progress", "jobs/" + long},
		"jobs/1 jobs/2 jobs/3 jobs/4 jobs/5 jobs/6 jobs/7": {"jobs/progress?ids=1,2,3,4,5,6,7", "jobs/1, jobs/2, jobs/3, jobs/4, jobs/5 and 2 more"},
		"jobs/6F1C2B9E-41D5-4F0C-9A57-2F6E1C0B7D38":        {"jobs/6F1C2B9E-41D5-4F0C-9A57-2F6E1C0B7D38/progress", "jobs/6F1C2B9E-41D5-4F0C-9A57-2F6E1C0B7D38"},
	} {
		rows, err := parseRowSelection(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if path, names := rows.path(rows.keys), rows.names(rows.keys); path != "/api/v1/sse/"+want.path || names != want.names {
			t.Errorf("%s: %s, %q, want %s, %q", args, path, names, want.path, want.names)
		}
	}
	for _, args := range []string{
		"jobs", "Jobs/1", "/1", "9jobs/1", "jobs/%", "jobs/%zz", "jobs/%00", "jobs/a%0ab", "jobs/%ff", "jobs/" + long + long, "jobs/1 jobs/1", "jobs/1 jobs/%31",
		"jobs/1 2", "2 jobs/1", "jobs/1 exports/2", "jobs/ jobs/1", "jobs/1 jobs/", "jobs/ jobs/", "-1", "042", "0", "1.0", "٣",
	} {
		if rows, err := parseRowSelection(strings.Fields(args)); err == nil {
			t.Errorf("%q names %q of %s", args, rows.keys, rows.feed)
		} else if !strings.ContainsAny(err.Error(), ":;") {
			t.Errorf("%q: %v does not say what to do", args, err)
		}
	}
}

func TestWatchOfFeeds(t *testing.T) {
	t.Parallel()
	const (
		job       = `{"id":"a/b","status":"running","progress":25,"audit_id":"of another table","kind":[1]}`
		exact     = `{"id":9007199254740993,"status":"completed","progress":100}`
		cancelled = `{"id":"a/b","status":"cancelled","progress":25}`
		done      = `{"id":"a/b","status":"completed","progress":100,"audit_id":7}`
		lower     = `{"id":"6f1c2b9e-41d5-4f0c-9a57-2f6e1c0b7d38","status":"completed","progress":100}`
	)
	ends := func(data string) string { return "retry: 1\n: end\nevent: message\nid: z\ndata: " + data + "\n\n" }
	type test struct {
		args        string
		answers     []http.HandlerFunc
		code        int
		out, stderr string
	}
	testkit.Each(t, map[string]test{
		"a text":                 {"jobs/a/b", []http.HandlerFunc{events(event("a", job) + event("b", done))}, exitDone, job + "\n" + done + "\n", ""},
		"an exact integer":       {"jobs/9007199254740993", []http.HandlerFunc{events(event("b", exact))}, exitDone, exact + "\n", ""},
		"a UUID in upper case":   {"jobs/6F1C2B9E-41D5-4F0C-9A57-2F6E1C0B7D38", []http.HandlerFunc{events(event("b", lower))}, exitDone, lower + "\n", ""},
		"an end by its word":     {"jobs/a/b", []http.HandlerFunc{events(ends(cancelled))}, exitAuditFailed, cancelled + "\n", "auditstream: jobs/a/b: cancelled"},
		"a word that ends none":  {"jobs/a/b", []http.HandlerFunc{events(event("a", cancelled)), events(event("b", done))}, exitDone, cancelled + "\n" + done + "\n", "jobs/a/b: the stream has ended"},
		"of the next event not":  {"jobs/a/b", []http.HandlerFunc{events(": end\n\n" + event("a", cancelled)), events(event("b", done))}, exitDone, cancelled + "\n" + done + "\n", "the stream has ended"},
		"a row that is gone":     {"jobs/a/b", []http.HandlerFunc{events(event("b", cancelled) + "data: {\"error\":\"No such row\"}\n\n")}, exitRefused, cancelled + "\n", "jobs/a/b: No such row"},
		"no such feed":           {"jobs/a/b", []http.HandlerFunc{status(404, `{"error":"No such feed"}`)}, exitRefused, "", "jobs/a/b: No such feed"},
		"no such row":            {"jobs/a/b", []http.HandlerFunc{status(404, `{"error":"No such row: a\"b"}`)}, exitRefused, "", "No such row: a\"b"},
		"no such key":            {"jobs/a/b", []http.HandlerFunc{status(400, `{"error":"Invalid id: give a UUID"}`)}, exitRefused, "", "give a UUID"},
		"another event":          {"jobs/a/b", []http.HandlerFunc{events("event: other\ndata: " + done + "\n\n" + event("b", cancelled)), events(event("b", done))}, exitDone, cancelled + "\n" + done + "\n", "the stream has ended"},
		"another feed's id":      {"audits/7", []http.HandlerFunc{events(event("a", `{"id":7,"status":"completed","progress":100}`)), events(event("b", `{"audit_id":7,"status":"completed","progress":100}`))}, exitDone, `{"audit_id":7,"status":"completed","progress":100}` + "\n", ""},
		"all, until a refusal":   {"jobs/", []http.HandlerFunc{events(event("a", job) + ends(cancelled) + "event: more\ndata: {\"shown\":500}\n\n"), status(403, `{"error":"Cross-user access denied"}`)}, exitRefused, job + "\n" + cancelled + "\n", "jobs/: there are more"},
		"all of audits":          {"audits/", []http.HandlerFunc{events(event("a", running) + event("b", completed)), final(401, "")}, exitRefused, running + "\n" + completed + "\n", "audits/: "},
		"all, with a percentage": {"jobs/ --until=50", nil, exitUsage, "", "name the rows"},
	}, func(t *testing.T, _ string, c test) {
		got := command(t, append([]string{"watch", "--url=" + answers(t, append(c.answers, events(""))...)}, strings.Fields(c.args)...)...).want(t, c.code)
		testkit.Equal(t, got.out, c.out, "standard output")
		mustContain(t, got.stderr, c.stderr)
	})
}

// When several rows end with statuses of the feed's own, a reconnecting watch sends the id of their common end.
func TestWatchOfSeveralKnowsTheEnd(t *testing.T) {
	t.Parallel()
	f := &rowsWatch{until: 100, rows: rowSelection{"jobs", []store.Key{"1", "2"}}, open: []store.Key{"1", "2"}, states: map[store.Key]rowState{}, show: lineDisplay{streams{out: new(strings.Builder)}}}
	f.read(strings.NewReader("id: a\ndata: {\"id\":1,\"status\":\"x\",\"progress\":1}\n\nid: both\n\n"), time.NewTimer(time.Hour))
	if f.lastEventID != "both" {
		t.Errorf("comes back with %q", f.lastEventID)
	}
}

package harness

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Every test of this package is also a test that nothing secret gets out: what an instance or a command prints, and what
// a running instance shows on its admin address, is searched for tokens, keys, passwords and, at the end of the test, the
// texts of the database's rows.

// printed is what one process has printed or shown.
type printed struct {
	what string
	text string
}

// secrets collects what must not be found and where to look for it.
var secrets = struct {
	mu         sync.Mutex
	signatures map[string]bool      // of all tokens made
	outputs    map[string][]printed // by top-level test, for its row texts
	databases  map[string]int       // that it still has
	written    map[string][]string  // texts of rows that it has written, and perhaps replaced since
}{signatures: make(map[string]bool), outputs: make(map[string][]printed), databases: make(map[string]int), written: make(map[string][]string)}

// Remember notes a token that a test has made. Its other two parts begin like any JWT's.
func Remember(token string) string {
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	secrets.signatures[token[strings.LastIndexByte(token, '.')+1:]] = true
	return token
}

var (
	jwtPart = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}`) // {" in base64url
	longRun = regexp.MustCompile(`[A-Za-z0-9_-]{40,}`)    // as long as a signature
)

// Leaks says what of all that is secret the text shows. own are the keys and passwords of the process.
func Leaks(text string, own []string) (found []string) {
	if part := jwtPart.FindString(text); part != "" {
		found = append(found, "a token: "+part)
	}
	secrets.mu.Lock()
	for _, run := range longRun.FindAllString(text, -1) {
		if secrets.signatures[run] {
			found = append(found, "a token's signature: "+run)
		}
	}
	secrets.mu.Unlock()
	for _, s := range own {
		if strings.Contains(text, s) {
			found = append(found, "a key or password: "+s)
		}
	}
	return found
}

// OwnSecrets finds the keys and passwords in a process's environment and flags.
func OwnSecrets(env, args []string) (own []string) {
	for _, entry := range append(append([]string{}, env...), args...) {
		name, value, ok := strings.Cut(strings.TrimLeft(entry, "-"), "=")
		name = strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		switch {
		case !ok:
		case strings.HasPrefix(name, "JWT_SECRET"):
			own = append(own, value)
		case strings.HasPrefix(name, "DATABASE_"), name == "JWT_JWKS_URL", name == "REDIS_URL":
			if u, err := url.Parse(value); err == nil && u.User != nil {
				password, _ := u.User.Password()
				if password != u.User.Username() { // nobody could tell which of the two is shown
					own = append(own, password)
				}
			}
		}
	}
	secret := own[:0]
	for _, s := range own {
		// A word of the help texts is no secret, and nobody could tell from where a short one comes.
		if len(s) >= 6 && s != "password" && s != "secret" {
			secret = append(secret, s)
		}
	}
	return secret
}

// NoLeak fails the test if the text shows anything secret, and keeps it for the comparison with the row texts.
func NoLeak(t testing.TB, what, text string, own []string) {
	t.Helper()
	for _, found := range Leaks(text, own) {
		t.Errorf("%s shows %s", what, found)
	}
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	root := topLevel(t)
	secrets.outputs[root] = append(secrets.outputs[root], printed{what, text})
}

func topLevel(t testing.TB) string {
	root, _, _ := strings.Cut(t.Name(), "/")
	return root
}

// adminPages are those that might show more than they should. A profile of the CPU and a trace take their time.
var adminPages = []string{
	"/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine?debug=1",
	"/debug/pprof/heap?debug=1", "/debug/pprof/symbol", "/debug/pprof/threadcreate?debug=1", "/debug/pprof/block?debug=1",
	"/debug/pprof/mutex?debug=1",
}

// Pages fetches what a running instance shows on its admin address; nothing where the test has taken it off or ended it.
func (i *Instance) Pages() (text string) {
	select {
	case <-i.Done:
		return ""
	default:
	}
	if !strings.HasPrefix(i.Admin, "http://127.") {
		return ""
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := http.Client{Transport: transport, Timeout: 10 * time.Second}
	var all strings.Builder
	for _, page := range adminPages {
		resp, err := c.Get(i.Admin + page)
		if err != nil {
			break // it may be ending
		}
		_, _ = io.Copy(&all, resp.Body)
		_ = resp.Body.Close()
	}
	return all.String()
}

// keepsSecrets is called when an instance is about to be stopped, and returns what to call when it has been.
func (i *Instance) keepsSecrets(t testing.TB) (ended func()) {
	t.Helper()
	pages := i.Pages()
	return func() {
		t.Helper()
		own := OwnSecrets(i.Cmd.Env, i.Cmd.Args)
		NoLeak(t, "the admin address of auditstream serve", pages, own)
		NoLeak(t, "the log of auditstream serve", i.Log.String(), own)
	}
}

// KeepsRowTexts checks, when the test has ended and before its database is dropped, that nothing it ran has shown the
// texts of its rows.
func (d Database) KeepsRowTexts(t testing.TB) {
	t.Helper()
	root := topLevel(t)
	secrets.mu.Lock()
	secrets.databases[root]++
	secrets.mu.Unlock()
	t.Cleanup(func() {
		texts := d.rowTexts(context.WithoutCancel(t.Context()))
		secrets.mu.Lock()
		outputs := secrets.outputs[root]
		texts = append(texts, secrets.written[root]...)
		if secrets.databases[root]--; secrets.databases[root] == 0 && t.Name() == root {
			delete(secrets.outputs, root)
			delete(secrets.written, root)
		}
		secrets.mu.Unlock()
		for _, o := range outputs {
			for _, text := range texts {
				if strings.Contains(o.text, text) {
					t.Errorf("%s shows the text %q of a row", o.what, text)
				}
			}
		}
	})
}

var (
	writesRow = regexp.MustCompile(`(?i)\b(insert into|update) audits\b`)
	literal   = regexp.MustCompile(`'((?:[^']|'')*)'`)
)

// rememberTexts notes the texts that a statement writes: a later one may replace them before the test ends.
func rememberTexts(t testing.TB, statement string) {
	if !writesRow.MatchString(statement) {
		return
	}
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	root := topLevel(t)
	for _, m := range literal.FindAllStringSubmatch(statement, -1) {
		if text := searchable(m[1]); text != "" && !slices.Contains(secrets.written[root], text) {
			secrets.written[root] = append(secrets.written[root], text)
		}
	}
}

// rowTexts are the texts that nobody but a row's owner may see, as far as they are long enough to be told from others.
func (d Database) rowTexts(ctx context.Context) (texts []string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.Admin)
	if err != nil {
		return nil // the test has stopped the server
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `select distinct left(value, 1000) from public.audits a, jsonb_each_text(to_jsonb(a))
		where key in ('message', 'error', 'url', 'user_email', 'user_id') and length(value) >= 6 limit 500`)
	if err != nil {
		return nil
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil // the test has another table, or dropped it
	}
	for _, text := range all {
		if piece := searchable(text); piece != "" {
			texts = append(texts, piece)
		}
	}
	return texts
}

// ordinary are texts that a log may hold whatever the rows say: numbers, and single words.
var ordinary = regexp.MustCompile(`^([0-9]+|[a-z]+)$`)

// searchable is the longest piece of a text that looks the same in a JSON log; empty if that says too little.
func searchable(text string) string {
	longest := ""
	for piece := range strings.FieldsFuncSeq(text, func(r rune) bool { return r < ' ' || strings.ContainsRune("\"\\<>&\u007f\u2028\u2029", r) }) {
		if len(piece) > len(longest) {
			longest = piece
		}
	}
	longest = strings.ToValidUTF8(longest[:min(len(longest), 100)], "")
	if len(longest) < 6 || ordinary.MatchString(longest) {
		return ""
	}
	return longest
}

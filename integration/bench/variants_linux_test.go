package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// variant is what is measured: our binary in one of its forms, or the peer.
type variant struct {
	name    string
	serve   []string // environment of auditstream serve
	install []string // flags of auditstream install
	peer    bool     // Nchan, which is told of each update after its commit
	uuids   bool     // the rows' keys, in a feed
}

// plain is today's obvious design: a handler of net/http for each stream, and a NOTIFY for every change.
// before is the program of another commit, BENCH_BEFORE, in place of it.
const ours, plain, before, nchan = "auditstream", "plain", "before", "nchan"

// uuids is ours where the keys are uuids and the table is a feed: its memory and deliveries are held against those of audits.
var uuids = variant{name: "uuid keys", install: []string{"--feed", "jobs", "--field", "pages=total_pages"}, uuids: true}

// plainer are our forms with an idea switched off. BENCH_PLAIN, in the words of parseVariants, names further ones.
var plainer = []variant{{name: plain, serve: []string{"SSE_HIJACK=off", "SSE_POLL_HOT=off"}, install: []string{"--notify-always"}}}

func variants(t testing.TB, s scale) []variant {
	t.Helper()
	all := append([]variant{{name: ours}}, plainer...)
	if os.Getenv("BENCH_BEFORE") != "" {
		all = []variant{{name: ours}, {name: before}}
	}
	more, err := parseVariants(os.Getenv("BENCH_PLAIN"))
	if err != nil {
		t.Fatalf("BENCH_PLAIN: %v", err)
	}
	all = append(all, more...)
	if s.peer {
		all = append(all, variant{name: nchan, peer: true})
	}
	return all
}

// parseVariants reads "naive: SSE_HIJACK=off --flag-of-install; other: ...": what begins with -- is for install, the rest
// is the environment of serve.
func parseVariants(text string) ([]variant, error) {
	var all []variant
	for one := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(one) == "" {
			continue
		}
		name, words, found := strings.Cut(one, ":")
		v := variant{name: strings.TrimSpace(name)}
		for word := range strings.FieldsSeq(words) {
			switch {
			case strings.HasPrefix(word, "--"):
				v.install = append(v.install, word)
			case strings.Contains(word, "="):
				v.serve = append(v.serve, word)
			default:
				return nil, fmt.Errorf("%q is neither VARIABLE=value nor --flag", word)
			}
		}
		if !found || v.name == "" || v.name == ours || v.name == plain || v.name == nchan || len(v.serve)+len(v.install) == 0 {
			return nil, fmt.Errorf("%q is not NAME: VARIABLE=value --flag", one)
		}
		all = append(all, v)
	}
	return all, nil
}

// binary is the program that is measured.
func (v variant) binary(t testing.TB) string {
	t.Helper()
	built := binary
	if v.name == before {
		built = binaryBefore
	}
	path, err := built()
	harness.NoError(t, err)
	return path
}

// server is a running server under test.
type server interface {
	port() int
	pid() int // its children count with it
	request(audit int) []byte
	publisher(t testing.TB) publisher
	stop(t testing.TB)
}

// publisher tells a server of a committed state. It is for one goroutine.
type publisher interface {
	publish(audit int, json []byte) error
	close()
}

// start starts the variant's server for the application's database.
func (v variant) start(t testing.TB, a *application) server {
	t.Helper()
	if !v.peer {
		return startAuditstream(t, v.binary(t), a, v.serve...)
	}
	s := startNchan(t)
	p := s.publisher(t)
	defer p.close()
	for audit := range a.audits {
		harness.NoError(t, p.publish(audit, a.json(audit, a.newest(audit))))
	}
	return s
}

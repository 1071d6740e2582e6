package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// row is what the application writes into an audit.
type row struct {
	owner    string
	status   string
	progress int
	message  string // begins with the version: every event tells which one it shows
	geoScore *float64
	pages    *int
	err      *string
}

func (r row) terminal() bool { return r.status == "completed" || r.status == "failed" }

// text is the row as the contract says that viewers of a feed get it, written down here a second time, independently.
func (r row) text(feed chaosFeed, audit int64) string {
	id, score, pages := fmt.Sprintf(`"audit_id":%d`, audit), "geo_score", "total_pages"
	if feed == copies {
		id, score, pages = fmt.Sprintf(`"id":"%s"`, feed.key(audit)), "score", "pages"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{%s,"status":"%s","progress":%d,"message":%s`, id, r.status, r.progress, strconv.Quote(r.message))
	if r.geoScore != nil {
		fmt.Fprintf(&b, `,"%s":%s`, score, strconv.FormatFloat(*r.geoScore, 'f', -1, 64))
	}
	if r.pages != nil {
		fmt.Fprintf(&b, `,"%s":%d`, pages, *r.pages)
	}
	if r.err != nil && r.status == "failed" {
		b.WriteString(`,"error":` + strconv.Quote(*r.err))
	}
	return b.String() + "}"
}

// version is one committed state of an audit; gone means that there is no row.
type version struct {
	n    int
	row  row
	gone bool
	// It was committed between these two: COMMIT was sent, and its outcome known.
	sent, acked time.Time
}

// history is the committed versions of one audit, oldest first. Numbers are never used twice, also not those of
// versions that were rolled back, so an event that shows one of these finds nothing here.
type history struct {
	audit    int64
	last     int // the last number given out; guarded by the slot's lock
	versions []version
}

func (h *history) current() version { return h.versions[len(h.versions)-1] }

func (h *history) find(n int) (version, bool) {
	k, ok := slices.BinarySearchFunc(h.versions, n, func(v version, n int) int { return v.n - n })
	if !ok {
		return version{}, false
	}
	return h.versions[k], true
}

// newestAt is the number of the newest version known to be committed at a time; 0: none.
func (h *history) newestAt(at time.Time) int {
	newest := 0
	for _, v := range h.versions {
		if v.acked.Before(at) {
			newest = v.n
		}
	}
	return newest
}

// during are the versions that may have been the current one at some moment from one time to another.
func (h *history) during(from, to time.Time) []version {
	var found []version
	for k, v := range h.versions {
		if v.sent.After(to) {
			break
		}
		if k+1 == len(h.versions) || !h.versions[k+1].acked.Before(from) {
			found = append(found, v)
		}
	}
	return found
}

// ledger holds the histories of all audits. Safe for concurrent use; what it hands out is read when the run is over,
// or by the application under the slot's lock.
type ledger struct {
	mu     sync.Mutex
	audits map[int64]*history
	writes map[writeKind]int // committed or rolled back as planned
}

func newLedger() *ledger {
	return &ledger{audits: make(map[int64]*history), writes: make(map[writeKind]int)}
}

// open returns an audit's history, a new one for a new audit.
func (l *ledger) open(audit int64) *history {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.audits[audit]
	if h == nil {
		h = &history{audit: audit}
		l.audits[audit] = h
	}
	return h
}

func (l *ledger) count(kind writeKind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes[kind]++
}

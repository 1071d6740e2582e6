package bench

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// idsADashboard is how many audits one stream may watch.
const idsADashboard = 100

// dashboards measures many pages that each watch other rows of one table: the latest update within more than a round of the safety net,
// and how long after all have left at once anything of them stays in the database.
func (b *bench) dashboards(t testing.TB, v variant) {
	t.Helper()
	n := b.scale.dashboards
	rows := n * idsADashboard
	a := b.app(t, v, rows)
	s := v.start(t, a)
	all := make([]*dashboard, n)
	for k := range all {
		all[k] = openDashboard(t, s, k)
	}
	for _, d := range all {
		d.await(t, a)
	}
	a.run(t, s, rows, b.scale.rate, b.scale.dashboardLoad)
	var samples []sample
	for _, d := range all {
		d.await(t, a)
	}
	left := time.Now()
	for _, d := range all {
		samples = append(samples, d.leave(t)...)
	}
	k := Key{Measure: dashboardsLeave, Unit: "s", Variant: v.name, Streams: n, Rows: rows}
	b.figures.Add(k, a.unlocked(t, 10*time.Millisecond).Sub(left).Seconds())
	delays := a.delays(samples)
	k.Measure, k.Unit = dashboards99, "ms"
	b.figures.Add(k, Quantile(delays, 0.99))
	k.Measure = dashboardsLatest
	b.figures.Add(k, Quantile(delays, 1))
	s.stop(t)
}

// unlocked waits until nobody holds a lock by which writers see that somebody watches, and returns when that was. Locks of one number are
// those of schema version 4, which BENCH_BEFORE may have: its instances hold one while they live.
func (a *application) unlocked(t testing.TB, pause time.Duration) time.Time {
	t.Helper()
	const held = `select count(*) from pg_locks where locktype = 'advisory' and objsubid = 2 and database = (select oid from pg_database where datname = current_database())`
	harness.Again(t, pause, func() error {
		var n int
		harness.NoError(t, a.admin.QueryRow(t.Context(), held).Scan(&n))
		if n > 0 {
			return fmt.Errorf("%d locks are held after the last stream ended", n)
		}
		return nil
	})
	return time.Now()
}

// dashboard is one stream of several audits, read by a goroutine of its own.
type dashboard struct {
	conn net.Conn
	done chan struct{}

	mu      sync.Mutex
	last    map[int32]int32 // the newest state shown of each audit; -1: none
	samples []sample
	err     error
}

// openDashboard asks for audits of one user, to whom all of them belong.
func openDashboard(t testing.TB, s server, n int) *dashboard {
	t.Helper()
	d := &dashboard{done: make(chan struct{}), last: make(map[int32]int32)}
	var ids []string
	for k := range idsADashboard {
		audit := n%users + users*(n/users*idsADashboard+k)
		d.last[int32(audit)] = -1
		ids = append(ids, strconv.Itoa(audit+1))
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.port()))
	harness.NoError(t, err)
	d.conn = conn
	// The request for one audit of this user's, with another path.
	_, headers, _ := strings.Cut(string(s.request(n%users)), "\r\n")
	if _, err := fmt.Fprintf(conn, "GET /api/v1/sse/audits/progress?ids=%s HTTP/1.1\r\n%s", strings.Join(ids, ","), headers); err != nil {
		t.Fatal(err)
	}
	go d.read()
	return d
}

var dashboardEvent = regexp.MustCompile(`^data: .*"audit_id":(\d+),.*"total_pages":(\d+)`)

func (d *dashboard) read() {
	defer close(d.done)
	lines := bufio.NewScanner(d.conn)
	for lines.Scan() {
		m := dashboardEvent.FindSubmatch(lines.Bytes())
		if m == nil {
			continue
		}
		at := now()
		id, _ := strconv.Atoi(string(m[1])) // digits
		state, _ := strconv.Atoi(string(m[2]))
		d.mu.Lock()
		audit := int32(id - 1)
		if last, watched := d.last[audit]; !watched || int32(state) < last {
			d.err = fmt.Errorf("audit %d is shown in state %d after %d (asked for: %v)", id, state, last, watched)
		}
		d.samples = append(d.samples, sample{audit, d.last[audit], int32(state), at})
		d.last[audit] = int32(state)
		d.mu.Unlock()
	}
}

// await waits until the newest state of each audit is shown.
func (d *dashboard) await(t testing.TB, a *application) {
	t.Helper()
	harness.Again(t, time.Millisecond, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		harness.NoError(t, d.err)
		for audit, state := range d.last {
			if newest := a.newest(int(audit)); state != newest {
				return fmt.Errorf("a dashboard shows state %d of audit %d, of which %d is the newest", state, audit, newest)
			}
		}
		return nil
	})
}

// leave ends the stream and returns what it was shown.
func (d *dashboard) leave(t testing.TB) []sample {
	t.Helper()
	if err := d.conn.Close(); err != nil {
		t.Error(err)
	}
	<-d.done
	return d.samples
}

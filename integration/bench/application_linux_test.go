package bench

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

const (
	users       = 20 // who share the audits
	connections = 8  // of the application
)

func user(k int) string { return fmt.Sprintf("user-%d", k%users) }

// application owns the audits of one database and writes them. It knows when each state was written.
type application struct {
	dsn    string
	admin  *pgx.Conn
	conns  []*pgx.Conn
	audits int // those that are watched, of all rows; audit k has the key k+1
	rows   int
	uuids  bool // see uuid

	mu      sync.Mutex
	written [][]int64 // for each audit, when the UPDATE of each state began
}

const update = `update audits set total_pages = total_pages + 1, progress = (total_pages + 1) % 101 where id = $1 returning total_pages`

// newApplication makes a database with rows of running audits. A variant that listens to PostgreSQL is installed in it.
func newApplication(t testing.TB, pg *localpg.Server, v variant, rows, audits int) *application {
	t.Helper()
	name := fmt.Sprintf("%s-%d", v.name, rows)
	pgtest.Psql(t, pg.DSN("postgres"), "create database "+pgx.Identifier{name}.Sanitize())
	dsn, err := url.Parse(pg.DSN(name))
	harness.NoError(t, err)
	a := &application{dsn: dsn.String(), audits: audits, rows: rows, uuids: v.uuids, written: make([][]int64, rows)}
	a.admin = pgtest.Connect(t, a.dsn)
	flags := append([]string{"install", "--table", "public.audits"}, v.install...)
	if v.uuids {
		harness.Exec(t, a.admin, "create table audits (id uuid primary key, url text, user_id text, status text, progress int, total_pages int, message text)")
		harness.Exec(t, a.admin, "create sequence n; alter table audits alter id set default md5(nextval('n')::text)::uuid")
	} else {
		flags = append(flags, "--create")
	}
	install := exec.CommandContext(t.Context(), v.binary(t), flags...)
	install.Env = harness.Environment([]string{"DATABASE_URL=" + a.dsn})
	if v.peer {
		install.Args = append(install.Args, "--no-triggers")
	}
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	harness.Exec(t, a.admin, `insert into audits (url, user_id, status, total_pages, message)
		select 'https://example.com', 'user-' || (n - 1) % $1, 'running', 0, 'Analyzing pages...' from generate_series(1, $2::int) n`, users, rows)
	harness.Exec(t, a.admin, "vacuum analyze audits")
	for range connections {
		a.conns = append(a.conns, pgtest.Connect(t, a.dsn))
	}
	for k := range a.written {
		a.written[k] = []int64{0}
	}
	return a
}

// key is the row's.
func (a *application) key(audit int) any {
	if a.uuids {
		return uuid(audit)
	}
	return audit + 1
}

// uuid is the key that the audit's row has where keys are uuids.
func uuid(audit int) string {
	sum := md5.Sum([]byte(strconv.Itoa(audit + 1)))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:])
}

// json is what an event of ours says of a state, for the peer.
func (a *application) json(audit int, state int32) []byte {
	return fmt.Appendf(nil, `{"audit_id":%d,"status":"running","progress":%d,"message":"Analyzing pages...","total_pages":%d}`, audit+1, state%101, state)
}

// newest is the number of the newest state.
func (a *application) newest(audit int) int32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int32(len(a.written[audit]) - 1)
}

// write is one update, committed and, where there is somebody to tell, told. Each audit has one writer at a time.
func (a *application) write(ctx context.Context, conn *pgx.Conn, p publisher, audit int) error {
	began := now()
	var state int32
	if err := conn.QueryRow(ctx, update, a.key(audit)).Scan(&state); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	a.mu.Lock()
	a.written[audit] = append(a.written[audit], began)
	known := int32(len(a.written[audit]) - 1)
	a.mu.Unlock()
	if state != known {
		return fmt.Errorf("audit %d is in state %d, want %d", audit, state, known)
	}
	return p.publish(audit, a.json(audit, state))
}

// run updates the audits in turn, rate times a second, whether or not earlier ones are done, for a time.
func (a *application) run(t testing.TB, s server, audits int, rate float64, d time.Duration) (updates int) {
	t.Helper()
	updates = max(int(rate*d.Seconds()), 1)
	var wg sync.WaitGroup
	errs := make([]error, connections)
	began := time.Now()
	for w, conn := range a.conns {
		p := s.publisher(t)
		wg.Go(func() {
			defer p.close()
			for k := range updates {
				if k%audits%connections != w { // an audit is always written by the same connection
					continue
				}
				time.Sleep(time.Until(began.Add(time.Duration(float64(k) / rate * float64(time.Second)))))
				if err := a.write(t.Context(), conn, p, k%audits); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	harness.NoError(t, errors.Join(errs...))
	return updates
}

// delays says, in milliseconds, how long it took from before each update to each client's reading that state or a newer.
func (a *application) delays(samples []sample) []float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]float64, 0, len(samples))
	for _, s := range samples {
		if s.From < 0 {
			continue
		}
		for state := s.From + 1; state <= s.To && int(state) < len(a.written[s.Audit]); state++ {
			all = append(all, float64(s.At-a.written[s.Audit][state])/1e6)
		}
	}
	return all
}

// databaseServer starts PostgreSQL with its own settings: a commit waits for the disk.
func databaseServer(t testing.TB) *localpg.Server {
	t.Helper()
	return pgtest.NewServer(t, func(cfg *localpg.Config) {
		cfg.Settings = map[string]string{"max_connections": "200"}
	})
}

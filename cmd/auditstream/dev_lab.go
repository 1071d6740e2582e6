package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"auditstream/internal/server/web"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	devPause     = 8 * time.Second
	pauseRetry   = 200 * time.Millisecond
	pulseTimeout = time.Second
)

// devLab does what the page's buttons say, and reads the state of listener and database for the page. It connects as superuser.
type devLab struct {
	owner      *pgxpool.Pool
	simulation *simulation
	pause      *pauser
}

func (l *devLab) actions() map[string]web.Action {
	return map[string]web.Action{
		"start": func(ctx context.Context, _ url.Values) (any, error) {
			id, err := l.simulation.start(ctx)
			return map[string]int64{"id": id}, err
		},
		"fail": func(ctx context.Context, query url.Values) (any, error) {
			id, err := strconv.ParseInt(query.Get("id"), 10, 64)
			if err != nil {
				return nil, web.Refusal(fmt.Sprintf("id=%q is no number; give that of an audit", query.Get("id")))
			}
			return map[string]int64{"id": id}, l.simulation.fail(ctx, id)
		},
		"kill-listener": func(ctx context.Context, _ url.Values) (any, error) { return l.killListener(ctx) },
		"pause": func(context.Context, url.Values) (any, error) {
			return map[string]int{"seconds": int(devPause.Seconds())}, l.pause.request()
		},
	}
}

const listeners = `from pg_stat_activity where application_name = 'auditstream listener' and datname = current_database()`

func (l *devLab) killListener(ctx context.Context) (any, error) {
	var pid int
	err := l.owner.QueryRow(ctx, `select pid from (select pid, pg_terminate_backend(pid) as killed `+listeners+`) as l where killed limit 1`).Scan(&pid)
	if err == pgx.ErrNoRows {
		return nil, web.Refusal("There is no listening connection just now: try again in a moment")
	}
	if err != nil {
		return nil, fmt.Errorf("terminate the listener's connection: %w", err)
	}
	return map[string]int{"pid": pid}, nil
}

// pulse is the state of listener and database.
type pulse struct {
	Database string `json:"database"` // up, paused, or silent
	// ResumesIn is the rest of the database's pause, in ms.
	ResumesIn int64 `json:"resumes_in,omitempty"`
	// Listener is the id of the PostgreSQL process that serves the listening connection; 0: there is none.
	Listener int `json:"listener,omitempty"`
	// Commits maps the id of an event to the time of the commit that caused it, in ms since 1970.
	Commits map[string]float64 `json:"commits,omitempty"`
}

func (l *devLab) pulse(ctx context.Context) any {
	if left := l.pause.remaining(); left > 0 {
		return pulse{Database: "paused", ResumesIn: left.Milliseconds()}
	}
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
	defer cancel()
	p, err := l.readPulse(ctx)
	if err != nil {
		return pulse{Database: "silent"}
	}
	return p
}

// readPulse reads states and the times of their commits in one snapshot, so that the times belong to the states.
func (l *devLab) readPulse(ctx context.Context) (p pulse, err error) {
	var ids []int64
	var keys []store.Key
	for _, audit := range l.simulation.recent() {
		ids = append(ids, audit.ID)
		keys = append(keys, store.IntKey(audit.ID))
	}
	p = pulse{Database: "up", Commits: map[string]float64{}}
	err = pgx.BeginTxFunc(ctx, l.owner, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		states, err := store.New(tx, store.Audits).Rows(ctx, keys)
		if err != nil {
			return err
		}
		committed := map[int64]time.Time{}
		var id int64
		var at *time.Time // nil: the row was frozen since, and its commit's time is lost
		rows, err := tx.Query(ctx, `select id, pg_xact_commit_timestamp(xmin) from audits where id = any($1)`, ids)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
			if at != nil {
				committed[id] = *at
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, state := range states {
			if at, ok := committed[state.ID.Int()]; ok {
				p.Commits[state.Fingerprint] = float64(at.UnixMicro()) / 1000
			}
		}
		return tx.QueryRow(ctx, `select coalesce(max(pid), 0) `+listeners).Scan(&p.Listener)
	})
	return p, err
}

// loopbackAddress reports whether only this machine can connect to the address.
func loopbackAddress(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	return ip.Unmap().IsLoopback()
}

// pausable is a database server that can be paused, like a localpg.Server.
type pausable interface {
	Pause() error
	Resume() error
}

// pauser pauses the database for devPause at each request. Only run pauses and resumes, because a localpg.Server is not safe for concurrent
// use. run does not return while the database is paused.
type pauser struct {
	pg       pausable
	logger   *slog.Logger
	requests chan struct{}

	mu    sync.Mutex
	until time.Time // zero: the database is not paused
}

func newPauser(pg pausable, logger *slog.Logger) *pauser {
	return &pauser{pg: pg, logger: logger, requests: make(chan struct{}, 1)}
}

// request asks run to pause the database, and does not wait for it. Safe for concurrent use.
func (p *pauser) request() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.IsZero() {
		return web.Refusal("PostgreSQL is paused already")
	}
	p.until = time.Now().Add(devPause)
	p.requests <- struct{}{} // does not block: until was zero, so the channel is empty
	return nil
}

// remaining returns the rest of the pause, 0 if there is none. Safe for concurrent use.
func (p *pauser) remaining() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until.IsZero() {
		return 0
	}
	return max(time.Until(p.until), time.Millisecond)
}

// run pauses and resumes until ctx is done, and returns nil.
func (p *pauser) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.requests:
		}
		if err := p.pg.Pause(); err != nil {
			p.logger.Warn("PostgreSQL cannot be paused", "error", err)
		} else {
			_ = pause(ctx, devPause) // fails if dev ends, which ends the pause, too
		}
		for {
			err := p.pg.Resume()
			if err == nil {
				break
			}
			p.logger.Error("PostgreSQL cannot be resumed yet, trying again", "error", err)
			if pause(ctx, pauseRetry) != nil {
				return nil // stopping the server resumes it, too
			}
		}
		p.mu.Lock()
		p.until = time.Time{}
		p.mu.Unlock()
	}
}

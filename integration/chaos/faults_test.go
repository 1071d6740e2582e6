package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// breaker breaks things and mends them. Each fault opens its windows before it strikes and closes them when all is
// mended; what takes longer, such as LISTEN coming back, is the product's, and is checked.
type breaker struct {
	server       *localpg.Server // belongs to the first lane: its methods are not for concurrent use
	admin        string          // URL of the database, for the superuser
	listen, pool *pgtest.TCPProxy
	proxied      int // the instance behind the proxies
	replicas     []*replica
	redis        *redistest.Server // nil: there is none
	redisHole    *pgtest.TCPProxy  // to Redis, of the instance behind the proxies
	relay        *replica
	journal      *journal
	path         string // of the binary

	stage sync.RWMutex // held by whoever breaks something, exclusively by the fault that happens alone
}

// run works a lane off until the time is up. It always mends what it broke.
func (b *breaker) run(ctx context.Context, faults []plannedFault, duration time.Duration) error {
	end := time.Now().Add(duration)
	for _, f := range faults {
		if time.Until(end) < f.gap || !pause(ctx, f.gap) {
			break
		}
		if err := b.staged(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.kind, err)
		}
		b.journal.count(f.kind)
	}
	return nil
}

func (b *breaker) staged(ctx context.Context, f plannedFault) error {
	if f.kind == alone {
		b.stage.Lock()
		defer b.stage.Unlock()
	} else {
		b.stage.RLock()
		defer b.stage.RUnlock()
	}
	return b.fault(ctx, f)
}

func (b *breaker) fault(ctx context.Context, f plannedFault) error {
	switch f.kind {
	case faultTerminate:
		return b.terminate(ctx)
	case faultFast, faultImmediate, faultCrash, faultPause:
		return b.outage(ctx, f)
	case faultHoleListen, faultHoleCut, faultHolePool, faultHoleBoth:
		b.blackHole(ctx, f)
		return nil
	case faultTerm, faultKill, faultFreeze:
		return b.restart(ctx, f, b.replicas[f.instance])
	case faultRelayKill, faultRelayFreeze:
		return b.restart(ctx, f, b.relay)
	case faultRedisKill, faultRedisPause, faultRedisHole:
		return b.redisOutage(ctx, f)
	default:
		return b.unhook(ctx, f)
	}
}

// terminate ends the sessions that listen, of all instances.
func (b *breaker) terminate(ctx context.Context) error {
	defer b.journal.end(b.journal.begin(faultTerminate, deaf, everyInstance))
	return b.sql(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where application_name in ('auditstream listener', 'auditstream locks')`)
}

func (b *breaker) outage(ctx context.Context, f plannedFault) error {
	defer b.journal.end(b.journal.beginOutage(f.kind))
	stop := map[faultKind]func(context.Context) error{
		faultFast: b.server.StopFast, faultImmediate: b.server.StopImmediate, faultCrash: b.server.Crash,
		faultPause: func(context.Context) error { return b.server.Pause() },
	}[f.kind]
	if err := stop(ctx); err != nil {
		return err
	}
	pause(ctx, f.hold)
	if f.kind == faultPause {
		return b.server.Resume()
	}
	return b.server.Restart(ctx)
}

// blackHole stops forwarding between one instance and PostgreSQL.
func (b *breaker) blackHole(ctx context.Context, f plannedFault) {
	var proxies []*pgtest.TCPProxy
	if f.kind != faultHolePool {
		defer b.journal.end(b.journal.begin(f.kind, deaf, b.proxied))
		proxies = append(proxies, b.listen)
	}
	if f.kind == faultHolePool || f.kind == faultHoleBoth {
		defer b.journal.end(b.journal.begin(f.kind, blind, b.proxied))
		proxies = append(proxies, b.pool)
	}
	for _, p := range proxies {
		p.Pause()
	}
	pause(ctx, f.hold)
	for _, p := range proxies {
		if f.kind == faultHoleCut || f.kind == faultHoleBoth {
			p.DropAll()
		}
		p.Resume()
	}
}

// restart ends an instance and starts it again on its port, or lets it stand still for a while.
func (b *breaker) restart(ctx context.Context, f plannedFault, r *replica) error {
	e := down
	if r == b.relay {
		e = deaf
	}
	defer b.journal.end(b.journal.begin(f.kind, e, r.n))
	if f.kind == faultFreeze || f.kind == faultRelayFreeze {
		process := r.current().Cmd.Process
		if err := process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, f.hold)
		return process.Signal(syscall.SIGCONT)
	}
	sig := map[faultKind]syscall.Signal{faultTerm: syscall.SIGTERM, faultKill: syscall.SIGKILL, faultRelayKill: syscall.SIGKILL}[f.kind]
	if err := r.stop(ctx, sig); err != nil {
		return err
	}
	pause(ctx, f.hold)
	return r.start(ctx)
}

// unhook takes triggers away, as a careless migration does, and lets the command put them back.
func (b *breaker) unhook(ctx context.Context, f plannedFault) error {
	defer b.journal.end(b.journal.begin(f.kind, mute, everyInstance))
	statement := "alter table audits disable trigger user"
	if f.kind == faultTriggerDrop {
		trigger := []string{"insert", "update", "delete", "truncate"}[f.variant%4]
		statement = fmt.Sprintf("drop trigger if exists auditstream_%s on audits; drop trigger if exists %s on audits", trigger, copies.trigger(trigger))
	}
	if err := b.untilDone(ctx, func() error { return b.sql(ctx, statement) }); err != nil {
		return err
	}
	pause(ctx, f.hold)
	return b.untilDone(ctx, func() error { return b.install(ctx) })
}

// untilDone tries again what fails because another lane has PostgreSQL down, or because the application works.
func (b *breaker) untilDone(ctx context.Context, do func() error) error {
	for {
		began := time.Now()
		err := do()
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		if err == nil || !b.journal.outage(began, time.Now()) && (!ok || pgErr.Code != "55P03") {
			return err
		}
		if !pause(ctx, 300*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

func (b *breaker) install(ctx context.Context) error {
	return errors.Join(installAgain(ctx, b.path, b.admin, "--role", harness.ServeRole), installAgain(ctx, b.path, b.admin, copies.install()...))
}

// sql runs a statement on a connection of its own. A lock that the application holds is not waited for: its other
// writers would queue behind.
func (b *breaker) sql(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, b.admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // PostgreSQL may be down by now
	if _, err := conn.Exec(ctx, "set lock_timeout = '100ms'"); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return err
}

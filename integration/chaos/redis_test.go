package chaos

import (
	"context"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"
)

const shortChaosRedis = 20 * time.Second

// testChaosRedis is TestChaos where the instances hear of changes through a relay and Redis, which break, too.
func testChaosRedis(t *testing.T) {
	t.Parallel()
	plan := chaosPlan(t, shortChaosRedis, redisLanes)
	server := pgtest.NewServer(t)
	db := harness.Adopt(t, server.DSN("postgres"))
	redis := redistest.Start(t)
	hole := pgtest.Proxy(t, redis.Addr)
	c := &chaos{plan: plan, journal: newJournal()}
	env := func(addr string) []string {
		return []string{"DATABASE_URL=" + db.Serve, "SSE_SOURCE=redis", "REDIS_RELAY=on", "REDIS_URL=redis://" + addr + "/0"}
	}
	c.replicas = []*replica{newReplica(t, 0, time.Hour, env(redis.Addr)...), newReplica(t, 1, 15*time.Second, env(hole.Addr())...)}
	for _, r := range c.replicas {
		r.redis = true
	}
	c.relay = newReplica(t, everyInstance, 0, env(redis.Addr)...)
	c.relay.command = "relay"
	c.breaker = &breaker{server: server, admin: db.Admin, proxied: 1, redis: redis, redisHole: hole,
		replicas: c.replicas, relay: c.relay, journal: c.journal, path: harness.Binary(t)}
	harness.NoError(t, c.relay.start(t.Context()))
	c.populate(t, db)
	chaosRun(t, plan, c)
}

// redisOutage kills or stops Redis, or swallows what it and one instance have to say.
func (b *breaker) redisOutage(ctx context.Context, f plannedFault) error {
	instance := everyInstance
	if f.kind == faultRedisHole {
		instance = b.proxied
	}
	defer b.journal.end(b.journal.begin(f.kind, deaf, instance))
	switch f.kind {
	case faultRedisKill:
		b.redis.Kill()
		pause(ctx, f.hold)
		return b.redis.Resume()
	case faultRedisPause:
		if err := b.redis.Process().Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, f.hold)
		return b.redis.Process().Signal(syscall.SIGCONT)
	default:
		b.redisHole.Pause()
		pause(ctx, f.hold)
		b.redisHole.DropAll()
		b.redisHole.Resume()
		return nil
	}
}

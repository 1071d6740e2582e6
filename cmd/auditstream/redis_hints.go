package main

import (
	"auditstream/internal/pgnotify"
	"auditstream/internal/pgnotify/redisnotify"
)

// hints returns what makes the source of notifications, for service.Config; nil with SSE_SOURCE=db.
func (c *serveCmd) hints() (func(tells func() bool) (pgnotify.Source, func() string), error) {
	if c.SSESource != "redis" && c.RedisURL == "" { // dev sets no URL
		return nil, nil
	}
	options, err := c.redisFlags.options()
	if err != nil { // also with SSE_SOURCE=db: a wrong URL is reported before it is needed
		return nil, err
	}
	if c.SSESource != "redis" {
		return nil, nil
	}
	return func(tells func() bool) (pgnotify.Source, func() string) {
		source := redisnotify.NewSource(options)
		return source, func() string { return doubtOf(source, c.RedisRelay == "on", tells) }
	}, nil
}

// doubtOf says why Redis may not carry all changes although the connection works; "" if it does.
func doubtOf(source *redisnotify.Source, needsRelay bool, tells func() bool) string {
	switch {
	case source.RelayDead(needsRelay):
		return "no relay is heard on Redis (auditstream relay, with the same REDIS_URL)"
	case source.Relayed() && !tells():
		return "a relay passes on only what the triggers notify of, and they cannot learn what is watched"
	}
	return ""
}

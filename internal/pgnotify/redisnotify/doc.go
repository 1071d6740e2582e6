// Package redisnotify carries hints that rows changed over Redis instead of PostgreSQL's LISTEN. A relay (cmd/auditstream) listens on
// PostgreSQL and passes the hints to a [Publisher]; any number of instances of serve hear them through a [Source], which they give to a
// [pgnotify.Listener].
//
// The rule that keeps it right: a hint is trusted as little as a notification. A hint is a message on the channel audit.progress.PAYLOAD,
// with the payload of a NOTIFY; the body of the message does not matter. The payload !relay is a relay's heartbeat: it proves to all
// instances that the relay hears PostgreSQL and that Redis hears the relay, without a NOTIFY for each instance.
//
// The triggers notify only while somebody holds a lock: see docs/watch-as-locks.md. An instance holds its locks in the session of its
// pgnotify.Registrar, which does not LISTEN. So the relay, which watches nothing, hears of all rows that any instance watches.
//
// Files, in the order in which to read them: client.go (REDIS_URL), source.go, publisher.go.
package redisnotify

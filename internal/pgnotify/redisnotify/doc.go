// Package redisnotify carries the hints that rows changed over Redis in place of PostgreSQL's LISTEN: a [Source] hears
// them, and a [Publisher] passes on what one PostgreSQL listener hears to any number of instances.
//
// A hint is a message on the channel audit.progress.{payload}, whatever its body says, where the payload is what that of a NOTIFY is,
// and as little trusted; or !relay, by which a relay says that it hears PostgreSQL and Redis hears it: that beat proves the way
// before Redis, for all instances at once and without a NOTIFY for each.
//
// The triggers ring only while somebody holds a lock, see docs/watch-as-locks.md. Here it is a pgnotify.Registrar's session, which does
// not LISTEN; the relay, which watches nothing, hears of all that any instance watches and of nothing else.
package redisnotify

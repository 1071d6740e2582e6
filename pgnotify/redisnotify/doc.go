// Package redisnotify carries the hints that rows changed over Redis in place of PostgreSQL's LISTEN: a [Listener] hears
// them, and a [Publisher] passes on what one PostgreSQL listener hears to any number of instances.
//
// A hint is a message on the channel audit.progress.{id}, whatever its body says. What follows the prefix is what the payload
// of a NOTIFY is, and is as little trusted: an id, * (read everything that is watched), !text, a listener's canary to itself, or
// !relay, by which a relay says that it hears PostgreSQL and Redis hears it. The canary proves that messages arrive; that beat
// proves the way before Redis, for all instances at once and without a NOTIFY for each.
//
// The rule that keeps it right is pgnotify's: a message is a hint and the row is the truth, so messages may be lost, forged,
// repeated or late. Messages may be lost whenever the connection was, so each subscription begins with a resync; so does the
// first message that a publisher gets through after one that it did not.
//
// Each relay passes on each change, with its name as the body. An instance counts one relay's hints alone as changes where their
// number matters, which is for reading on a timer what changes very often; it reads for the others' all the same.
//
// The triggers ring only for what is registered under an advisory lock that somebody holds (auditstream.watch). The lock goes
// with the session of PostgreSQL that listens, of which there is none here: a pgnotify.Instance holds it, on a session that
// does not LISTEN. So the relay, which registers nothing, hears of all that any instance watches and of nothing else.
package redisnotify

// Package pgnotify turns PostgreSQL notifications into fresh states of the audits that somebody watches.
//
// The [Listener] owns the connection that LISTENs and hears which rows changed; the [Hub] reads those rows, up to 500 in one
// query, and hands each subscriber the newest state. The [Registrar] tells writers what is watched, by locks that a connection of its
// own holds.
//
// The rule that keeps it right: a notification is a hint and the row is the truth. A notification, a new subscriber, a lock that was
// taken, the safety net and a reconnect only mark a key dirty; one goroutine reads what is dirty, one read after the
// other, so states can arrive late but never go back. A mark set while a read is under way leads to another read.
package pgnotify

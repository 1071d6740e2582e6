// Package pgnotify turns PostgreSQL notifications into fresh states of the audits that somebody watches.
//
// The [Listener] owns the connection that LISTENs and hears which rows changed; the [Hub] reads those rows, in one query
// for all of them, and hands each subscriber the newest state.
//
// The rule that keeps it right: a notification is a hint and the row is the truth. Whatever rings (a notification, a new
// subscriber, the safety net, a reconnect) only marks an id dirty; one goroutine reads what is dirty, one read after the
// other, so states can arrive late but never go back. A mark set while a read is under way leads to another read.
package pgnotify

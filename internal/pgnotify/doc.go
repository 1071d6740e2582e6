// Package pgnotify turns PostgreSQL notifications into fresh states of the rows that somebody watches.
//
// The [Listener] hears on its own connection which rows changed. The [Hub] reads those rows, up to 500 in one query, and gives each
// subscriber the newest state. The [Registrar] tells writers what is watched, with advisory locks that another connection holds: see
// docs/watch-as-locks.md.
//
// The rule that keeps it right: a notification is a hint and the row is the truth. A notification, a new subscriber, a new lock, the
// safety net and a reconnect only mark a key dirty. One goroutine reads what is dirty, one read after the other, so states can arrive
// late but never go back. A mark that is set during a read leads to another read.
//
// Who calls what: package service makes one Listener and one Registrar for the process and one Hub for each feed, and runs them. Package
// server sees a Hub through an interface of its own. The Listener calls a [Sink], which calls [Hub.Notify] and [Hub.Resync]; the Hub
// calls [Announcer.Want] and [Announcer.Leave], and the Registrar answers with [Hub.Mark]. Nothing here calls the server.
//
// Files, in the order in which to read them: hub.go, reader.go, subscription.go, owner_subscription.go and pace.go (the Hub); listener.go,
// session.go and postgres.go (the Listener); announcer.go, registrar.go, lock_session.go and bucket.go (the Registrar); connection.go,
// backoff.go, trouble.go and bell.go (what they share); metrics.go. Folder redisnotify carries the same hints over Redis.
package pgnotify

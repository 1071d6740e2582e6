// Package connpool serves connections that were taken from net/http, or that it never had, without a goroutine and buffers for each of them.
// A connection's [Task] notes what has happened, and one of a few writers then runs the task.
//
// The rule that keeps it right: no writer waits for a client. When a write must wait, another writer takes this one's place.
//
// Who calls what: only package server uses it. Its listener calls [Pool.Adopt] and [Pool.GiveToHTTP]; a handler calls [Pool.Hijack],
// [Conn.Begin] and [Conn.Serve]; timers and the hub call [Conn.Schedule]; the writers call [Task.Run], which calls the other methods of
// [Conn]. net/http's Shutdown does not know these connections, so the server calls [Pool.Drain] and then [Pool.End].
//
// Files, in the order in which to read them: conn.go (one connection), pool.go (the connections and the writers), return_listener.go (a
// connection goes to net/http), disconnects_linux.go (epoll finds clients that disconnect; on other systems disconnects_other.go stands in).
package connpool

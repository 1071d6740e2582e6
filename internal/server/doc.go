// Package server answers HTTP requests: it finds out who asks, checks whose row it is, and streams the row's states.
//
// The rule that keeps it right: every state is checked against its owner before it is written (checkAccess), the first as well as each
// later one. Only event.go writes SSE bytes, and only writeError and refuseStream choose the answer to an error.
//
// Who calls what: package service sets the fields of [Config] through which this package reaches rows ([Hub], Ping, Drift and others), and
// imports this package, never the reverse. The root package uses [NewHandler], cmd/auditstream uses [New], which adds listeners and TLS. A
// hub calls a subscription's wake from its own goroutine; wake only sets a flag of the stream. All else of a stream happens in Run, which
// one goroutine calls at a time.
//
// Files, in the order in which to read them: handler.go, routes.go and feed.go (from a request to what it asks for); stream_route.go,
// stream.go and event.go (a stream); response.go and connection.go (the two kinds of connection that a stream writes to); status.go (the
// polling fallback and probes); bearer.go, verifier.go, claims.go, keyset.go, jwks.go, token_cache.go, fault.go and viewer.go (who asks);
// errors.go (what is refused, and how); stream_limit.go, address_limit.go, refusal_limit.go and origin.go (limits and CORS); server.go, reload.go,
// admin.go and the socket files (a server of its own); config.go, metrics.go, access_log.go, trace.go. Folder web holds the page.
package server

// Package auditstream shows rows of PostgreSQL in browsers while they change: a row changes, the transaction commits, and every browser
// that watches it sees it within milliseconds, over Server-Sent Events.
//
// # Serve it from your own program
//
// [New] takes your program's pgxpool.Pool and returns a [Service], which is an http.Handler for any router. [Service.Run] does the work
// until its context is done; you start its goroutine.
//
//	as, err := auditstream.New(pool, auditstream.Options{Viewer: fromSession})
//	if err != nil {
//		return err
//	}
//	router.PathPrefix("/api/v1/").Handler(as)
//	group.Go(func() error { return as.Run(ctx) })
//
// A browser follows row 42 of the table with
//
//	new EventSource("/api/v1/sse/audits/42/progress")
//
// For another prefix, use http.StripPrefix; see the example of it. The routes are streams, their polling fallback
// /api/v1/{feed}/{id}/status, and /healthz, /readyz and /openapi.yaml where your router passes these on; docs/api.md describes them.
//
// # Say who asks
//
// [Options].Viewer is your function from a request to a [Viewer]; most programs look the session up there. Its error decides the answer
// to the client; see [ErrUnauthenticated]. Without it requests carry a JWT, and [Options].Auth says how to verify it. A row is shown to
// its owners alone: its user_id is the viewer's UserID; or it has no user_id, and its user_email is the viewer's Email; or its group_id
// is one of the viewer's Groups.
//
// # Adopt a table
//
// Triggers announce the changes that writers make, and rows are read from a view. [Install] makes both. It changes nothing where they
// exist already, so a program may call it at each start. [InstallSQL] returns the SQL that Install would run, for goose, atlas,
// rivermigrate and other migration tools.
//
//	_, err := auditstream.Install(ctx, conn, auditstream.Table{Name: "public.audits"})
//
// Each table is a feed. The first is called audits; [Table].Feed names others.
//
// # Follow rows without a browser
//
// [Service.Watch] is an iterator over the states of a row.
//
//	for state, err := range as.Watch(ctx, auditstream.Key{ID: "42"}) {
//		...
//	}
//
// # Shut down
//
// When Run's context is done, each stream gets a random time to reconnect after and ends; Run returns when all have ended. An
// http.Server's Shutdown waits for streams and does not end them, so cancel Run's context first: see the example.
//
// # What it does to your program
//
// It uses connections of the pool for reads, and opens two of its own with [Options].ListenConfig: one for LISTEN, one for locks. It
// handles no signal, reads no environment variable or flag, and writes to no default logger or registry. Over HTTP/1.1 without TLS it
// hijacks the connections of streams, so that a stream needs several times less memory; an http.Server's Shutdown then does not know these
// connections, and Run ends them.
//
// Middleware around the handler must let http.ResponseController flush and set deadlines: where it wraps the ResponseWriter, the wrapper
// needs an Unwrap method. Middleware must not compress streams.
//
// # Read the code
//
// The rule that keeps this package right: it wires and translates, and decides nothing itself. Package internal/service does the work for
// the command as well; here its settings and errors get the names of [Options] and [Table] (optionNames). No package of this module but
// auditstreamtest and the examples imports this one.
//
// Files, in the order in which to read them: auditstream.go (Service), options.go, watch.go (following a row), install.go, errors.go,
// names.go (the command's names translated), registrations.go (metrics that can be taken back).
//
// The module has no host in its path, because nobody knows yet where it will be published: make module PATH=host/owner/auditstream renames it.
package auditstream

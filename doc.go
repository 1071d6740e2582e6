// Package auditstream shows rows of PostgreSQL in browsers while they change: a row changes, the transaction commits, and every browser
// that watches it sees it within milliseconds, over Server-Sent Events.
//
// # Serve it from your own program
//
// [New] takes the pgxpool.Pool that the program has and returns a [Service], which is an http.Handler for any router. Its Run does the
// work in the background, until its context is done.
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
// Under another prefix, use http.StripPrefix; see the example of it. The routes are those of the API page: streams, their polling
// fallback /api/v1/{feed}/{id}/status, and /healthz, /readyz and /openapi.yaml where the handler is asked for them.
//
// # Say who asks
//
// [Options].Viewer is a function of yours from a request to a [Viewer]: the session, in most programs. Its errors say what the client
// is answered; see [ErrUnauthenticated]. Without it requests carry a JWT, which [Options].Auth says how to verify. A row is shown to whom
// it belongs, and to nobody else: its user_id is the viewer's UserID; where it has none, its user_email is the viewer's Email; or
// its group_id is one of the viewer's Groups.
//
// # Adopt a table
//
// Writers announce their changes by triggers, and rows are read from a view. [Install] makes both, and changes nothing where they are
// there already, so that a program may call it each time it starts. [InstallSQL] returns what it would run, for goose, atlas, rivermigrate
// and whatever else runs migrations.
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
// When Run's context is done, streams are told when to come back, at a random time each, and end; Run returns when they have. An
// http.Server's Shutdown waits for streams and does not end them, so end Run's context first: see the example.
//
// # What it does to your program
//
// It uses connections of the pool for reads, and two of its own that lead where [Options].ListenConfig says, for LISTEN and
// for locks. It handles no signal, reads no environment variable or flag, and writes to no default logger or registry. Where your HTTP
// server speaks HTTP/1.1 without TLS, streams' connections are taken from it, which makes each several times smaller; an
// http.Server's Shutdown then knows nothing of them, and Run ends them.
//
// Middleware around the handler must let http.ResponseController flush and set deadlines, by an Unwrap method where it wraps
// the ResponseWriter, and must not compress streams.
//
// The module has no host in its path, because nobody knows yet where it will be published: make module PATH=host/owner/auditstream renames it.
package auditstream

// Package service is everything between a database and the server, for serve, dev and programs that embed auditstream: the feeds, a hub
// for each, the listener, the locks, and the checks of the schema while it runs. All wiring is here.
//
// The rule that keeps it right: it takes its configuration from [Config] alone, and touches nothing of the process: no flags, environment
// variables, signals or default loggers.
//
// Who calls what: the root package and cmd/auditstream call [New], [Service.Serve] and [Service.Run]. Package server calls the feeds through
// the functions that Serve sets in server.Config. The Listener of package pgnotify calls the schemaWatch, which passes notifications and
// resyncs to the feeds and their hubs.
//
// Files, in the order in which to read them: service.go (the wiring), feeds.go (the feeds and their hubs), feed_lookup.go (which feed a
// request names), schema.go (the schema's version), drift.go (what was changed since the install), remedy.go (the commands that repair it),
// watch.go (rows followed without a browser), queue.go and row_metrics.go (metrics), traced_loader.go, skip_ping.go.
package service

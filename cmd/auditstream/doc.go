// Command auditstream shows live progress from PostgreSQL in browsers, over Server-Sent Events.
//
// The rule that keeps it right: a command finds out what is asked for, calls a package that does it, and turns the outcome into text and an
// exit status: 0 done, 1 failed, 2 wrong usage; watch has two more. Only main.go and reload.go handle signals, and only main ends the process.
//
// Who calls what: serve and dev wire internal/service to internal/server, as the root package does for other programs; install, uninstall
// and doctor call internal/sql; watch is an HTTP client of a server, and shares only keys and IsFinal with it.
//
// Files, in the order in which to read them: main.go and flags.go (the command line); serve.go, database.go, reload.go and install_at_start.go
// (serve), with env_file.go, fenced_server.go, hide_names.go, open_files.go, go_runtime.go, redis_hints.go and tracing.go (what serve needs);
// install.go; doctor.go and a file for each group of its checks; relay.go and relay_admin.go; token.go; watch.go, watch_follow.go,
// watch_connect.go, watch_events.go, watch_rows.go and watch_show.go (watch); dev.go and a file for each part of dev; version.go, man.go.
package main

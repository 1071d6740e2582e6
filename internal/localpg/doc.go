// Package localpg runs a private PostgreSQL server from the binaries of this machine: for `auditstream dev`, whose data stays in Dir, and for
// tests (Ephemeral).
//
// The rule that keeps it right: a directory belongs to one process at a time, the holder of its lock file. Only the holder may stop the
// servers that it finds running there, so a second run fails instead of stopping the first one's server.
//
// Who calls what: `auditstream dev`, package pgtest and the integration tests call [Start] and then [Server.Stop]; pgtest also calls
// [Sweep]. The methods that break a server (Crash, Pause, StopImmediate) are for tests.
//
// Files, in the order in which to read them: localpg.go (Start and Stop), lock.go, binaries.go, account.go (as whom the server runs, and
// where its data may be), initdb.go, standby.go, process.go (the postmaster), control.go (stop, pause, crash), orphans.go (servers of
// killed runs), sys_linux.go and sys_other.go.
package localpg

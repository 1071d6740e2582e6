// Package pgtest gives each test of this repository a real PostgreSQL.
//
// The rule that keeps it right: a test never skips and never shares. It gets an empty database of its own, or it fails and says what to do.
//
// The server is that of TEST_DATABASE_URL if it is set; otherwise a container if a Docker engine answers; otherwise one from local
// binaries. AUDITSTREAM_TEST_POSTGRES=local or =container allows only that kind.
//
// Who calls what: only tests import it. TestMain calls [Main]; a test calls [New], [Template.New], or [NewServer] if it breaks the server.
//
// Files, in the order in which to read them: pgtest.go (Main, New), template.go, server.go (which server), container.go (with the program
// in postgrescontainer), memory_linux.go and memory_other.go (where its data is), psql.go, proxy.go (a network that fails).
package pgtest

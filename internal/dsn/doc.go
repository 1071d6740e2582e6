// Package dsn reads the connection strings that people have: those of PostgreSQL, and those that they copy from other tools.
//
// The rule that keeps it right: no part of a string that may be part of a password gets into an error or a warning, or into the names of
// host, user and database, which a connection error quotes later. So Parse checks the shape of a string before it is parsed, and messages
// quote only names from the lists in parameters.go.
//
// Who calls what: only the command calls [Parse] for each setting with a connection string, and [LookAtRedis] for REDIS_URL. It makes no
// connection.
//
// Files, in the order in which to read them: dsn.go (the checks and the messages), parameters.go (what other tools write).
package dsn

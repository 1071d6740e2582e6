package main

import (
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// Connection errors of servers and poolers name user and database in more ways than pgx's own text.
func TestErrorsOfConnectingNameNobody(t *testing.T) {
	t.Parallel()
	const begins = "load rows: failed to connect to `user=zebra database=zebradb`:\n\tdb:5432 (127.0.0.1): server error: FATAL: "
	for _, text := range []string{
		`password authentication failed for user "zebra" (SQLSTATE 28P01)`,
		`no pg_hba.conf entry for host "10.0.0.1", user "zebra", database "zebradb", no encryption (SQLSTATE 28000)`,
		`Passwort-Authentifizierung für Benutzer »zebra« fehlgeschlagen (SQLSTATE 28P01)`,
		"authentification par mot de passe échouée pour l'utilisateur «\u00a0zebra\u00a0» (SQLSTATE 28P01)",
		`too many connections for database "zebradb" (SQLSTATE 53300)`,
		`permission denied to set role "zebraowner" (SQLSTATE 42501)`,
		`role "zebraowner" does not exist (SQLSTATE 22023)`,
		`no such database: zebradb (SQLSTATE 08P01)`,
		`no such user: zebra (SQLSTATE 08P01)`,
		`database "zebradb" is not currently accepting connections (SQLSTATE 55000)`,
	} {
		got := hideNames(begins + text)
		if strings.Contains(got, "zebra") || !strings.Contains(got, "db:5432") || !strings.Contains(got, "SQLSTATE") {
			t.Errorf("%s\nbecomes %s", text, got)
		}
	}
	const plain = `failed to connect: FATAL: unrecognized configuration parameter "bogus" (SQLSTATE 42704)`
	testkit.Equal(t, hideNames(plain), plain, plain)
}

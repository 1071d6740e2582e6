package sql

import (
	"testing"

	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5/pgconn"
)

// With thousands of partitions uninstall failed for "out of shared memory", and said nothing of a way out.
func TestFullLockTableSaysWhatToDo(t *testing.T) {
	t.Parallel()
	err := &pgconn.PgError{Severity: "ERROR", Code: "53200", Message: "out of shared memory"}
	p := &Plan{SQL: "begin;\ndrop view if exists auditstream.progress;\ndrop trigger if exists \"a\" on \"public\".\"ev\";\ndrop trigger if exists \"b\" on \"public\".\"ev\";\ncommit;\n"}
	const full = ": PostgreSQL's lock table is full, so nothing was changed; raise max_locks_per_transaction, which takes a restart"
	testkit.Equal(t, explain("uninstall", p, err).Error(), "uninstall"+full+`, or drop the triggers first, each in a transaction of its own, which psql does with: set lock_timeout = '200ms'; `+
		`drop trigger if exists "a" on "public"."ev"; drop trigger if exists "b" on "public"."ev"; and uninstall again: ERROR: out of shared memory (SQLSTATE 53200)`, "uninstall")
	testkit.Equal(t, explain("uninstall", &Plan{}, err).Error(), "uninstall"+full+": ERROR: out of shared memory (SQLSTATE 53200)", "a feed without triggers")
	testkit.Equal(t, explain("install", p, err).Error(), "install"+full+", or install with --no-triggers: ERROR: out of shared memory (SQLSTATE 53200)", "install")
}

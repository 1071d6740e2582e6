package store_test

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// One read returns several rows, with every type of key and in every mode of executing statements, and tells apart the rows that cannot
// be read.
func TestSeveralKeysOfEachType(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	keys := map[store.KeyType][]store.Key{
		store.IntegerKeys: {"1", "2", "3"},
		store.UUIDKeys:    {"00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002", "ffffffff-ffff-ffff-ffff-fffffffffff3"},
		store.TextKeys:    {"a,b", `{"ä"}`, " '\\ "},
	}
	types := map[store.KeyType]string{store.IntegerKeys: "bigint", store.UUIDKeys: "uuid", store.TextKeys: "text"}
	pgtest.Psql(t, dsn, `create schema auditstream`)
	for kind, of := range keys {
		var rows []string
		for n, key := range of {
			rows = append(rows, fmt.Sprintf(`('%s'::%s, 'alice', null, 'running', %d)`, strings.ReplaceAll(string(key), "'", "''"), types[kind], n-1))
		}
		pgtest.Psql(t, dsn, fmt.Sprintf(`create view auditstream.progress_%s as select id, user_id, user_email::text, status, (10 / progress)::int as progress, null::text as message, null::text as error
			from (values %s) x (id, user_id, user_email, status, progress)`, types[kind], strings.Join(rows, ", ")))
	}
	for kind, of := range keys {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
			cfg, err := pgx.ParseConfig(dsn)
			testkit.NoError(t, err)
			cfg.DefaultQueryExecMode = mode
			conn, err := pgx.ConnectConfig(t.Context(), cfg)
			testkit.NoError(t, err)
			s := store.New(conn, &store.Feed{Name: "jobs", View: "auditstream.progress_" + types[kind], Key: kind})
			if states, err := s.Rows(t.Context(), nil); err != nil || len(states) > 0 {
				t.Errorf("%s, %s, no keys: %v, %v", types[kind], mode, states, err)
			}
			states, err := s.Rows(t.Context(), of)
			if err != nil || len(states) != 3 {
				t.Fatalf("%s, %s: %d states, %v", types[kind], mode, len(states), err)
			}
			for _, state := range states {
				if bad := state.ID == of[1]; bad != (state.Err != nil) { // a division by zero
					t.Errorf("%s, %s: %q: %v", types[kind], mode, state.ID, state.Err)
				}
			}
			ids, _, err := s.Owned(t.Context(), store.Viewer{Subject: "alice"}.Owners())
			if err != nil || len(ids) != 3 {
				t.Errorf("%s, %s: all of mine: %q, %v", types[kind], mode, ids, err)
			}
			_ = conn.Close(t.Context())
		}
	}
}

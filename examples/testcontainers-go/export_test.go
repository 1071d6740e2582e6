package export_test

import (
	"bufio"
	"cmp"
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	export "auditstream/examples/testcontainers-go"

	"auditstream/auditstreamtest/container"

	"github.com/jackc/pgx/v5"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
)

// Whoever began an export sees its end as soon as it is committed.
func TestUserSeesTheEndOfTheExport(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	database, err := postgres.Run(ctx, cmp.Or(os.Getenv("POSTGRES_IMAGE"), "postgres:17-alpine"), postgres.BasicWaitStrategies())
	testcontainers.CleanupContainer(t, database)
	must(t, err)
	dsn, err := database.ConnectionString(ctx)
	must(t, err)
	db, err := pgx.Connect(ctx, dsn)
	must(t, err)
	defer db.Close(context.WithoutCancel(ctx))
	_, err = db.Exec(ctx, export.Schema)
	must(t, err)

	as, err := container.Run(ctx, cmp.Or(os.Getenv("AUDITSTREAM_IMAGE"), "auditstream"), container.WithDatabase(database), container.WithTable("public.exports"))
	testcontainers.CleanupContainer(t, as)
	must(t, err)

	var id int64
	must(t, db.QueryRow(ctx, `insert into exports (user_id) values ('user-1') returning id`).Scan(&id))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, as.URL+"/api/v1/sse/audits/1/progress", nil)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+as.Token("user-1"))
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()
	var seen []string
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); { // which ends, because the stream ends with the export
		state, isState := strings.CutPrefix(lines.Text(), "data: ")
		if !isState {
			continue
		}
		if seen = append(seen, state); len(seen) == 1 { // the user watches: now the work begins
			must(t, export.Run(ctx, db, id))
		}
	}
	const first, last = `{"audit_id":1,"status":"pending","progress":0}`, `{"audit_id":1,"status":"completed","progress":100}`
	if len(seen) < 2 || seen[0] != first || seen[len(seen)-1] != last {
		t.Errorf("the user saw %q, want %s first and %s last", seen, first, last)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package container_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"auditstream/auditstreamtest/container"

	"github.com/jackc/pgx/v5"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
)

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// An UPDATE in one container is an event from the other. AUDITSTREAM_IMAGE and POSTGRES_IMAGE name others than auditstream, which make image
// builds, and postgres:17-alpine.
func TestUpdateReachesAStreamOfTheContainer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	database, err := postgres.Run(ctx, env("POSTGRES_IMAGE", "postgres:17-alpine"), postgres.WithDatabase("app"), postgres.WithUsername("app"), postgres.WithPassword("secret"), postgres.BasicWaitStrategies())
	testcontainers.CleanupContainer(t, database)
	if err != nil {
		t.Fatal(err)
	}
	dsn, err := database.ConnectionString(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	execute := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	execute(`create table audits (id bigint primary key, user_id text, status text, progress int)`)
	execute(`insert into audits values (42, 'user-1', 'running', 25)`)

	as, err := container.Run(ctx, env("AUDITSTREAM_IMAGE", "auditstream"), container.WithDatabase(database), container.WithTable("public.audits"))
	testcontainers.CleanupContainer(t, as)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, as.URL+"/api/v1/sse/audits/42/progress", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+as.Token("user-1"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("status %d, the stream ended without %s: %v", resp.StatusCode, text, lines.Err())
	}
	until(`"progress":25`)
	execute(`update audits set progress = 55 where id = 42`)
	until(`"progress":55`)
}

func TestRunNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := container.Run(t.Context(), "auditstream"); err == nil || !strings.Contains(err.Error(), "give WithDatabase") {
		t.Errorf("%v", err)
	}
}

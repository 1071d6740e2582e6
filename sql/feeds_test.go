package sql_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"auditstream/sql"

	"github.com/jackc/pgx/v5"
)

// Feeds that are installed and uninstalled at a time are nothing to each other: one's triggers are not taken for nobody's by another.
func TestInstallsOfSeveralFeedsAtATime(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	const feeds = 6
	for n := range feeds {
		exec(t, conn, fmt.Sprintf(`create table jobs_%d (id int primary key, status text, progress int, user_id text)`, n))
	}
	before := catalog(t, conn)
	var group sync.WaitGroup
	for n := range feeds {
		group.Go(func() {
			if err := installAndUninstall(t.Context(), dsn, sql.Options{Feed: fmt.Sprintf("jobs_%d", n), Table: fmt.Sprintf("jobs_%d", n)}); err != nil {
				t.Errorf("feed %d: %v", n, err)
			}
		})
	}
	group.Wait()
	equal(t, "what is left", difference(catalog(t, conn), before), nil)
}

func installAndUninstall(ctx context.Context, dsn string, o sql.Options) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for range 4 {
		for _, change := range []func(context.Context, *pgx.Conn, sql.Options) (*sql.Plan, error){sql.Install, sql.Install, sql.Uninstall} {
			if _, err := change(ctx, conn, o); err != nil {
				return err
			}
		}
	}
	return nil
}

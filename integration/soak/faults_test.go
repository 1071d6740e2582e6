package soak

import (
	"context"
	"time"

	"auditstream/integration/harness"
)

const (
	faultListener = "listener's connection terminated"
	faultPool     = "pool's connections terminated"
	faultNetwork  = "pool's connections reset"
)

// breakConnections breaks one kind of the server's connections to PostgreSQL after the other.
func (s *soak) breakConnections(ctx context.Context, every time.Duration) {
	terminate := func(application string) error {
		_, err := s.writers.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
			where usename = $1 and application_name = $2`, harness.ServeRole, application)
		return err
	}
	faults := []struct {
		name   string
		inject func() error
	}{
		{faultListener, func() error { return terminate("auditstream listener") }},
		{faultNetwork, func() error { s.pool.DropAll(); return nil }},
		{faultPool, func() error { return terminate("auditstream") }},
	}
	for n := 0; sleep(ctx.Done(), every); n++ {
		fault := faults[n%len(faults)]
		if err := fault.inject(); err != nil {
			if ctx.Err() == nil {
				s.problem("%s: %v", fault.name, err)
			}
			return
		}
		s.count(fault.name)
	}
}

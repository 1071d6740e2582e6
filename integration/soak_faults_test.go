package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"auditstream/integration/series"
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
			where usename = $1 and application_name = $2`, role, application)
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

// summary is the run in words and tables, for the README.
func (s *soak) summary(record *series.Record) string {
	var b strings.Builder
	slices.Sort(s.late)
	late := func(q float64) time.Duration {
		if len(s.late) == 0 {
			return 0
		}
		return s.late[int(q*float64(len(s.late)-1))].Round(100 * time.Microsecond)
	}
	fmt.Fprintf(&b, "%s. Start and end are at rest; median, highest and trend are under load, after a warm-up of %s.\n\n",
		record.Title, series.Clock(record.WarmUp))
	b.WriteString(record.Markdown())
	fmt.Fprintf(&b, "\n%d audits were watched to their end, which was seen %v after the commit in the median, %v at most.\n\n| what happened | times |\n| --- | ---: |\n",
		len(s.late), late(0.5), late(1))
	for _, name := range slices.Concat([]string{visitCount}, visitNames(), auditEnds, []string{faultListener, faultPool, faultNetwork}) {
		fmt.Fprintf(&b, "| %s | %d |\n", name, s.counts[name])
	}
	return b.String()
}

package ops

import "testing"

// Each job queue is adopted by the command in docs/job-queues.md: its viewers see jobs from waiting to the end.
func TestDocsJobQueues(t *testing.T) {
	t.Parallel()
	tablesPage{file: "docs/job-queues.md", folder: "integration/queues", other: []string{"What a worker writes", "River", "pg-boss", "graphile-worker", "gue", "A queue that is not here"}}.runAll(t)
}

// So is each shape of a table of one's own by its command in docs/adopt-a-table.md.
func TestDocsAdoptATable(t *testing.T) {
	t.Parallel()
	tablesPage{file: "docs/adopt-a-table.md", folder: "integration/shapes", other: []string{"The table audits", "Feeds", "No table at all", "How a field is shown"}}.runAll(t)
}

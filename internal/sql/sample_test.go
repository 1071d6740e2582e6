package sql_test

import (
	"slices"
	"strings"
	"testing"

	"auditstream/internal/sql"
)

// Install says what viewers will see, and for a large table which reads are slow. Doctor says the same later.
func TestInstallSaysWhatItSees(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id bigserial primary key, state text, done int, total int, owner int, org text);
		insert into jobs (state, owner, org) select (array['Success', 'busy', ' odd ', null])[1 + n % 4], case when n % 10 > 0 then n end, case when n % 20 = 0 then 'o' end from generate_series(1, 20000) n;
		analyze jobs`)
	o := sql.Options{Feed: "jobs", Table: "jobs", Columns: map[string]string{"status": "state", "progress": "done/total", "user_id": "owner", "group_id": "org"}, Words: []sql.Word{{Stored: "busy", Shown: "running"}}, Ends: []string{"odd"}}
	const ends, ownerless = `the status "success" sounds final and ends no stream, in 5000 rows: their streams stay open; give --status success=completed, or =failed, or --ends success`, `1000 of 20000 rows have no owner, so that nobody sees them`
	notes := []string{`shown: id from id, user_id from owner, status from state, progress from done/total, group_id from org`, `statuses: "odd" (5000, ends a row), "pending" (5000, ends nothing), "running" (5000, ends nothing), "success" (5000, ends nothing)`}
	index := func(column, expression string) string {
		return `no index finds the rows of one ` + column + `: each stream of all rows of one owner reads the whole of public.jobs; create index concurrently on "public"."jobs" ((` + expression + `))`
	}
	for name, install := range map[string]func() (*sql.Plan, error){
		"planned": func() (*sql.Plan, error) { return sql.PlanInstall(t.Context(), conn, o) },
		"run":     func() (*sql.Plan, error) { return sql.Install(t.Context(), conn, o) },
		"again": func() (*sql.Plan, error) {
			return sql.Install(t.Context(), conn, sql.Options{Feed: "jobs", Table: "jobs"})
		},
	} {
		if name == "again" {
			if _, err := sql.Install(t.Context(), conn, o); err != nil {
				t.Fatal(err)
			}
		}
		plan, err := install()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		equal(t, name+": notes", plan.Notes, notes)
		equal(t, name+": warnings", warnings(plan), []string{ends, ownerless, index("user_id", `"owner"::text`), index("group_id", `"org"`)})
	}
	feeds, err := sql.Feeds(t.Context(), conn)
	if err != nil || len(feeds) != 1 {
		t.Fatalf("feeds %+v, error %v", feeds, err)
	}
	seen, err := sql.See(t.Context(), conn, feeds[0])
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "doctor: notes", seen.Notes, notes[1:])
	equal(t, "doctor: warnings", seen.Warnings, []string{ends, ownerless})
	for _, warning := range warnings(must(sql.PlanInstall(t.Context(), conn, o))) { // what it says to type is what helps
		if _, create, ok := strings.Cut(warning, "; create index"); ok {
			exec(t, conn, "create index"+create)
		}
	}
	exec(t, conn, `update jobs set state = 'completed' where state = 'Success'; update jobs set owner = 1 where owner is null`)
	plan := must(sql.PlanInstall(t.Context(), conn, o))
	equal(t, "after what it says", warnings(plan), nil)
	if slices.Contains(plan.Notes, notes[1]) {
		t.Errorf("notes %q", plan.Notes)
	}
	if scanned, err := sql.Scanned(t.Context(), conn, feeds[0]); scanned != "" || err != nil {
		t.Errorf("one row reads the whole of %s, %v", scanned, err)
	}
	exec(t, conn, `alter table jobs drop constraint jobs_pkey`)
	if scanned, err := sql.Scanned(t.Context(), conn, feeds[0]); scanned != "jobs" || err != nil {
		t.Errorf("without its key: %s, %v", scanned, err)
	}
}

func must(plan *sql.Plan, err error) *sql.Plan {
	if err != nil {
		panic(err)
	}
	return plan
}

package sql_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// Install says what viewers will see, and for a large table which reads are slow. Doctor says the same later.
func TestInstallSaysWhatItSees(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id bigserial primary key, state text, done int, total int, owner int, org text);
		insert into jobs (state, owner, org) select (array['Success', 'busy', ' odd ', null])[1 + n % 4], case when n % 10 > 0 then n end,
			case when n % 20 = 0 then 'o' end from generate_series(1, 20000) n;
		analyze jobs`)
	o := sql.Options{Feed: "jobs", Table: "jobs", Columns: map[string]string{"status": "state", "progress": "done/total", "user_id": "owner",
		"group_id": "org"}, Words: []sql.Word{{Stored: "busy", Shown: "running"}}, Ends: []string{"odd"}}
	const ends, ownerless = `statuses that sound final and end no stream: "success" (5000); the streams of such rows stay open: ` +
		`for each give, as here for the first, --status success=completed, or =failed, or --ends success`,
		`1000 of 20000 rows have no owner, so that nobody sees them`
	notes := []string{`shown: id from id, user_id from owner, status from state, progress from done/total, group_id from org`,
		`not shown, as there is no such column: message, error; where another column holds it, give --column message=NAME`,
		`statuses: "odd" (5000, ends a row), "pending" (5000, ends nothing), "busy" as "running" (5000, ends nothing), "success" (5000, ends nothing)`}
	index := func(column, expression string) string {
		return `no index finds the rows of one ` + column + `: each stream of all rows of one owner reads the whole of public.jobs; ` +
			`create index concurrently on "public"."jobs" ((` + expression + `))`
	}
	plans := []*sql.Plan{planned(t, conn, o), install(t, conn, o), install(t, conn, sql.Options{Feed: "jobs", Table: "jobs"})}
	for n, name := range []string{"planned", "run", "again"} {
		equal(t, name+": notes", plans[n].Notes, notes)
		equal(t, name+": warnings", warnings(plans[n]), []string{ends, ownerless, index("user_id", `"owner"::text`), index("group_id", `"org"`)})
	}
	feeds, err := sql.Feeds(t.Context(), conn)
	if err != nil || len(feeds) != 1 {
		t.Fatalf("feeds %+v, error %v", feeds, err)
	}
	seen, err := sql.See(t.Context(), conn, feeds[0])
	testkit.NoError(t, err)
	equal(t, "doctor: notes", seen.Notes, []string{strings.Replace(notes[2], `"busy" as `, "", 1)})
	const endsRemedy, ownerRemedy = `Run auditstream install again for this feed, with --status or --ends for each of these words.`,
		`Write the owner into these rows, or run auditstream install again for this feed, with --column user_id= and the column that has it, or with --public.`
	if want := []sql.SeenWarning{{Text: ends, Remedy: endsRemedy}, {Text: ownerless, Remedy: ownerRemedy}}; !slices.Equal(seen.Warnings, want) {
		t.Errorf("doctor: warnings %q, want %q", seen.Warnings, want)
	}
	for _, warning := range warnings(planned(t, conn, o)) { // what it says to type is what helps
		if _, create, ok := strings.Cut(warning, "; create index"); ok {
			exec(t, conn, "create index"+create)
		}
	}
	exec(t, conn, `update jobs set state = 'completed' where state = 'Success'; update jobs set owner = 1 where owner is null`)
	plan := planned(t, conn, o)
	equal(t, "after what it says", warnings(plan), nil)
	if slices.Contains(plan.Notes, notes[2]) {
		t.Errorf("notes %q", plan.Notes)
	}
	if scanned, err := sql.Scanned(t.Context(), conn, feeds[0]); scanned.Table != "" || err != nil {
		t.Errorf("one row reads the whole of %s, %v", scanned.Table, err)
	}
	exec(t, conn, `alter table jobs drop constraint jobs_pkey`)
	if scanned, err := sql.Scanned(t.Context(), conn, feeds[0]); scanned.Table != "public.jobs" || scanned.Index() != "an index of it that begins with id" || err != nil {
		t.Errorf("without its key: %+v, %v", scanned, err)
	}
}

// Install names the words that no row has yet, and guesses none.
func TestInstallNamesLabels(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create type state as enum ('Wartet', 'done', 'FERTIG', 'GELÖSCHT', 'it''s', 'running'); create domain label as state;
		create domain word as text check (value in ('a b', 'x''y', 'ok'));
		do $$ begin execute (select 'create type many as enum (' || string_agg(format('%L', 'label ' || n), ', ') || ', ''done'')'
		from generate_series(1, 2000) n); end $$`)
	const known, final = `not known as an end or as none: %s; if a row has ended then, give --status %s=completed, or =failed, or --ends %[2]s`,
		`statuses that sound final and end no stream: %s; the streams of such rows stay open: ` +
			`for each give, as here for the first, --status %s=completed, or =failed, or --ends %[2]s`
	labels := []string{`statuses: "done" (0, ends nothing), "fertig" (0, ends nothing), "gelÖscht" (0, ends a row), ` +
		`"it's" (0, ends nothing), "wartet" as "pending" (0, ends nothing), "running" (0, ends nothing)`,
		fmt.Sprintf(known, `"fertig", "it's"`, "fertig"), fmt.Sprintf(final, `"done" (0)`, "done")}
	for declared, want := range map[string][]string{
		"state": labels,
		"label": labels,
		"word": {`statuses: "a b" (0, ends nothing), "ok" (0, ends nothing), "x'y" (0, ends nothing)`, fmt.Sprintf(known, `"a b", "x'y"`, "'a b'"),
			fmt.Sprintf(final, `"ok" (0)`, "ok")},
		"text check (status in ('new', 'aborted', 'GELÖSCHT'))": {
			`statuses: "aborted" (0, ends nothing), "gelÖscht" (0, ends a row), "new" (0, ends nothing)`,
			fmt.Sprintf(final, `"aborted" (0)`, "aborted")},
		"varchar(9) check (status in ('a,b]''', 'new') or status is null)": {`statuses: "a,b]'" (0, ends nothing), "new" (0, ends nothing)`,
			fmt.Sprintf(known, `"a,b]'"`, "WORD")},
		"smallint check (status = any ('{-1,2}')) check (status in (0, -7))": {`statuses: "-7" (0, ends nothing), "0" (0, ends nothing)`,
			fmt.Sprintf(known, `"-7", "0"`, "0")},
		"boolean": {`statuses: "false" (0, ends nothing), "true" (0, ends nothing)`, fmt.Sprintf(known, `"false", "true"`, "false")},
		"text check (status not in ('a', 'b')) check (status <> 'c')": nil,
		"text check (status in (E'a\\\\b', 'c'))": {`statuses: "a\\b" (0, ends nothing), "c" (0, ends nothing)`,
			fmt.Sprintf(known, `"a\\b", "c"`, "c")},
	} {
		exec(t, conn, `drop table if exists jobs;
			create table jobs (id int primary key, user_id text, message text, error text, progress int, status `+declared+`)`)
		plan := planned(t, conn, sql.Options{Feed: "jobs", Words: []sql.Word{{Stored: "wartet", Shown: "pending"}},
			Ends: []string{"GELÖSCHT "}})
		equal(t, declared, append(plan.Notes[1:], warnings(plan)...), want)
	}
	exec(t, conn, `alter table jobs drop status, add status many; insert into jobs values (1, 'u', '', '', 1, 'label 7')`)
	plan := planned(t, conn, sql.Options{Feed: "jobs"})
	const begins = `statuses: "label 7" (1, ends nothing), "done" (0, `
	if notes := strings.Join(plan.Notes[1:], "\n"); len(notes) > 1500 || !strings.HasPrefix(notes, begins) ||
		!strings.Contains(notes, `(0, ends nothing) and 1981 more`) || !strings.Contains(notes, `" and 14 more; if`) {
		t.Errorf("notes %s", notes)
	}
	equal(t, "2,000 labels: warnings", warnings(plan), []string{fmt.Sprintf(final, `"done" (0)`, "done")})
}

// It names what it has found no column for, and a column that may be meant.
func TestInstallNamesWhatIsNotShown(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table audits (id int primary key, user_id text, status text, progress int,
		"a'note" text, "failure reason" text, message_id int, pages int)`)
	const begin, names = `not shown, as there is no such column: `, `; where another column holds it, give --column `
	for want, columns := range map[string]map[string]string{
		begin + `message, geo_score, total_pages, error` + names +
			`message='a'\''note' --column total_pages=pages --column error='failure reason'`: nil,
		begin + `geo_score` + names + `geo_score=NAME`: {"message": "", "error": "failure reason", "total_pages": ""},
		"": {"message": "", "error": "", "total_pages": "", "geo_score": "progress"},
	} {
		plan := planned(t, conn, sql.Options{Columns: columns})
		testkit.Equal(t, strings.Join(plan.Notes[1:], "\n"), want, fmt.Sprint(columns))
	}
}

// A query that joins a row's members gives one id several rows, of which one viewer saw one and the next none, and nothing said why.
func TestIdsWithSeveralRowsAreAWarning(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id text unique, status text, progress int); create table members (job text, name text);
		insert into jobs values ('1', 'x', 1), (null, 'x', 1), (null, 'x', 1); insert into members values ('1', 'alice')`)
	install(t, conn, sql.Options{Feed: "jobs", View: `select j.*, m.name as user_id from public.jobs j join public.members m on m.job = j.id or j.id is null`})
	feeds, err := sql.Feeds(t.Context(), conn)
	testkit.NoError(t, err)
	for _, want := range [][]sql.SeenWarning{nil, {{Text: `ids with several rows: 1; viewers see any one of them, with its owner`,
		Remedy: `Show each id in one row. Where many may see it, give it a group_id, and start serve with JWT_GROUPS_CLAIM.`}}} {
		seen, err := sql.See(t.Context(), conn, feeds[0])
		if err != nil || !slices.Equal(seen.Warnings, want) {
			t.Errorf("warnings %q, error %v, want %q", seen.Warnings, err, want)
		}
		exec(t, conn, `insert into members values ('1', 'bob')`)
	}
}

// Install of a --view listed no statuses, and did not say why.
func TestInstallOfAViewSaysThatItReadsNoStatuses(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, jobsWithSteps)
	plan := install(t, conn, sql.Options{Feed: "jobs", Table: "app.jobs", View: stepsView})
	if want := `statuses: not read, since install never runs the view of --view; auditstream doctor lists them`; !slices.Contains(plan.Notes, want) {
		t.Errorf("notes %q", plan.Notes)
	}
}

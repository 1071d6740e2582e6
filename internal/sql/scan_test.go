package sql_test

import (
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// Doctor warned of scans of a small table, which PostgreSQL reads faster than its index, and named no column where it was right.
func TestScansOfSmallTablesAreNoFinding(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table teams (id bigint primary key, name text); insert into teams values (1, 'a');
		create table jobs (id bigint primary key, status text, progress int, team_id bigint); insert into jobs values (1, 'x', 1, 1);
		create table steps (n bigserial primary key, job_id bigint, done boolean); insert into steps (job_id) select n from generate_series(1, 999) n;
		analyze teams, jobs, steps`)
	install(t, conn, sql.Options{Feed: "jobs", Table: "jobs", Columns: map[string]string{"user_id": "team_id"}, Lookups: []string{"team_id=public.teams.id:name"}})
	install(t, conn, sql.Options{Feed: "stepped", Table: "jobs", Public: true, View: `select j.id, j.status, (select count(*) from public.steps s
		where not s.done and s.job_id = j.id) as progress from public.jobs j`})
	feeds, err := sql.Feeds(t.Context(), conn)
	testkit.NoError(t, err)
	testkit.Equal(t, len(feeds), 2, "feeds")
	scans := func() (found []string) {
		for _, f := range feeds {
			scan, err := sql.Scanned(t.Context(), pgtest.Connect(t, dsn), f)
			testkit.NoError(t, err)
			if scan.Table != "" {
				found = append(found, f.Name+": "+scan.Table+": "+scan.Index())
			}
		}
		return found
	}
	equal(t, "of small tables", scans(), nil)
	exec(t, conn, `insert into steps (job_id) values (1); analyze steps; alter table teams rename id to "Team Id";
		insert into teams select n from generate_series(2, 1001) n; alter table teams drop constraint teams_pkey; analyze teams`)
	equal(t, "of large ones", scans(), []string{`jobs: public.teams: an index of it that begins with "Team Id"`,
		`stepped: public.steps: an index of it that begins with job_id`})
	exec(t, conn, `create index on steps (job_id); create index on teams ("Team Id")`)
	equal(t, "of large ones with indexes", scans(), nil)
}

// Install warned that nothing made the key unique or found it, though a partial index of just the rows that are shown does both; and did not
// warn of a partitioned table whose primary key has another column.
func TestWarningsOfPartialAndPartitionedKeys(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	const scan, several = `no index of public.jobs begins with id: every read scans the whole table; create index concurrently on "public"."jobs" ("id")`,
		`nothing makes id unique in public.jobs: of several rows with one id viewers see any`
	for name, test := range map[string]struct {
		key, after, hide string
		want             []string
	}{
		"that of the shown rows":        {``, `; create unique index on jobs (id) where "Gone" is null`, "Gone", nil},
		"of a boolean":                  {``, `; create unique index on jobs (id) where maybe is not true`, "maybe", nil},
		"of a boolean's null":           {``, `; create unique index on jobs (id) where maybe is null`, "maybe", []string{scan, several}},
		"of a boolean that may be null": {``, `; create unique index on jobs (id) where not maybe`, "maybe", []string{scan, several}},
		"of a boolean that is never null, by which no read is planned": {``, `; create unique index on jobs (id) where not "off"`, "off", []string{scan}},
		"of other rows":             {``, `; create unique index on jobs (id) where "Gone" is not null`, "Gone", []string{scan, several}},
		"of rows that are hidden":   {``, `; create unique index on jobs (id) where "Gone" is null`, "", []string{scan, several}},
		"not unique":                {``, `; create index on jobs (id) where "Gone" is null`, "Gone", []string{several}},
		"of two columns":            {``, `; create unique index on jobs (id, part) where "Gone" is null`, "Gone", []string{several}},
		"by the key and another":    {`, primary key (id, part)`, `partition by range (part)`, "", []string{several}},
		"partitioned by the key":    {`, primary key (id)`, `partition by range (id)`, "", nil},
		"unpartitioned, of another": {`, primary key (id, part)`, ``, "", []string{several}},
	} {
		exec(t, conn, `drop table if exists jobs; create table jobs (id int, part int, user_id text, status text, progress int, "Gone" date, off boolean not null, maybe boolean`+
			test.key+`) `+test.after)
		equal(t, name, warnings(planned(t, conn, sql.Options{Feed: "jobs", Hide: test.hide})), test.want)
	}
	exec(t, conn, `drop table jobs; create table jobs (id int, user_id text, status text, progress int, "Gone" date);
		create unique index on jobs (id) where "Gone" is null; insert into jobs select n from generate_series(1, 2000) n; analyze jobs`)
	install(t, conn, sql.Options{Feed: "jobs", Hide: "Gone"})
	feeds, err := sql.Feeds(t.Context(), conn)
	testkit.NoError(t, err)
	if scan, err := sql.Scanned(t.Context(), conn, feeds[0]); scan.Table != "" || err != nil {
		t.Errorf("one row reads the whole of %+v, %v", scan, err)
	}
}

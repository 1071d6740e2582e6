package ops

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// healthy asks doctor, and shows a viewer an update.
func (o *operator) healthy(i *harness.Instance, database string) {
	o.Helper()
	o.doctor(database)
	id := o.postgres(database, "select min(id) from audits")
	s := i.Watch(o, id, o.alice())
	s.NextProgress(o)
	o.pushes(s, database, id)
	s.Cancel()
}

func (o *operator) doctor(database string) {
	o.Helper()
	if code, out, err := harness.TryCommand(o, []string{"DATABASE_URL=" + o.serveURL(database), "JWT_SECRET=" + harness.JWTSecret}, "doctor"); code != 0 {
		o.Errorf("doctor of %s: %s%s", database, out, err)
	}
}

// pushes changes an audit until a stream says so: what had been there before may still be on its way. No two changes are the same: a stream that
// shows one already has nothing to say where the states between were never read.
func (o *operator) pushes(s *harness.Stream, database, id string) {
	o.Helper()
	o.pushed++
	want := 51 + o.pushed%49 // rows begin with 1 to 50
	o.postgres(database, fmt.Sprintf("update audits set %s = %d where id = %s", o.progressColumn(database), want, id))
	for s.NextProgress(o).Progress != want {
	}
}

// progressColumn is what the column is called after a migration has renamed it.
func (o *operator) progressColumn(database string) string {
	return o.postgres(database, `select quote_ident(attname) from pg_attribute where attrelid = 'audits'::regclass and attname in ('progress', 'percent') and not attisdropped
		order by attname desc limit 1`)
}

// rows wants 50 in a copy that knows nothing of auditstream, and that they can be written.
func (o *operator) rows(database string) {
	o.Helper()
	got := o.postgres(database, `update audits set progress = progress; select count(*), (select count(*) from pg_constraint where conrelid = 'audits'::regclass and contype = 'p') from audits`)
	if got != "50|1" {
		o.Errorf("%s has (rows, primary keys) %s, want 50|1", database, got)
	}
}

// restored runs a block that makes a database, and looks whether that works.
func (o *operator) restored(database string) func(string) {
	return func(text string) {
		o.Helper()
		o.terminal.Type(text)
		o.rows(database)
		o.healthy(o.serve(database), database)
	}
}

// during runs a block while a viewer watches: it ends with the state of before, and notifications arrive.
func (o *operator) during(text string) {
	o.Helper()
	const id = "7"
	s := o.app.Watch(o, id, o.alice())
	first := s.NextProgress(o)
	o.terminal.Type("pg_dump --format=custom --file=app.dump app") // what this page's last step left
	o.postgres("app", "update audits set progress = 99 where id = "+id)
	s.NextProgress(o)
	o.terminal.Type(text)
	harness.Equal(o, s.NextProgress(o).Progress, first.Progress, "after the restore the viewer is shown", first)
	o.rows("app")
	o.pushes(s, "app", id)
	o.doctor("app")
}

// overHalfRestored runs a block on what a restore has left that went on after errors (U4). Until then rows are there twice, and writes work.
func (o *operator) overHalfRestored(text string) {
	o.Helper()
	o.terminal.Type("pg_dump --clean --if-exists --schema=public app >clean.sql; psql app <clean.sql")
	if n := o.postgres("app", "update audits set progress = progress; insert into audits (user_id, status, progress) values ('alice', 'running', 1); select count(*) from audits"); n != "101" {
		o.Errorf("%s rows of 50 that were restored over themselves, and one more; want 101", n)
	}
	o.terminal.Type(text)
	o.rows("app")
	o.healthy(o.app, "app")
}

// elsewhere runs a block on another server, which has the owner's role alone.
func (o *operator) elsewhere(text string) {
	o.Helper()
	there := *o
	there.server = documentServer(o.T)
	there.postgres("postgres", "create role owner login createdb createrole password 'password'")
	o.at(there.server)
	there.restored("elsewhere")(text)
	o.at(o.server)
}

// structure compares what the block writes with the dump of a database that has never had anything of ours.
func (o *operator) structure(text string) {
	o.Helper()
	o.terminal.Type(text + `
		pg_dump --schema-only copy >plain.sql
		for file in structure plain; do grep -v -e restrict -e '^$' -e '^--$' $file.sql >$file; done
		diff plain structure
		createdb --owner=owner loaded
		psql -1 -v ON_ERROR_STOP=1 --file=structure.sql loaded`)
}

// replica serves from a database that another one's changes are replicated to.
func (o *operator) replica(text string) {
	o.Helper()
	o.terminal.Type(text)
	harness.Becomes(o, func() string { return o.postgres("replica", "select count(*) from audits") }, "50", "rows of the replica")
	s := o.serve("replica").Watch(o, "9", o.alice())
	s.NextProgress(o)
	for _, progress := range []int{61, 62} {
		o.postgres("app", fmt.Sprintf("update audits set progress = %d where id = 9", progress))
		harness.Equal(o, s.NextProgress(o).Progress, progress, "a viewer of the replica is shown")
	}
}

// rowSecurity is forced, and nobody is shown anything, until the block has been run.
func (o *operator) rowSecurity(text string) {
	o.Helper()
	o.postgres("app", "alter table audits enable row level security; alter table audits force row level security")
	status := func(want int) {
		o.Helper()
		o.app.AskAs(o, o.alice(), harness.StatusPath("7")).WantStatus(o, want)
	}
	status(404)
	o.terminal.Type(text)
	status(200)
	o.healthy(o.app, "app")
}

// TestDocsBackup runs the page's commands as they stand and in their order, and looks after each whether rows, triggers, view and serve
// are as they should be.
func TestDocsBackup(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	run := func(text string) { o.terminal.Type(text) }
	steps := []struct {
		begin string
		do    func(string)
	}{
		{"export PGUSER=owner ", func(text string) {
			run(text + "auditstream install --table public.audits --role auditstream_serve")
			o.app = o.serve("app")
		}},
		{"pg_dump --format=custom --file=app.dump app", func(text string) {
			run(text + `
				psql -U postgres -c 'grant pg_read_all_data to backup'
				pg_dump -U backup --file=backup.sql app
				psql -U postgres -c 'revoke pg_read_all_data from backup'`)
		}},
		{"psql app -c 'grant usage on schema auditstream to backup'", run},
		{"createdb --owner=owner restored", o.restored("restored")},
		{"createdb --owner=owner elsewhere", o.elsewhere},
		{"pg_restore --clean --if-exists --exit-on-error", o.during},
		{"pg_restore --data-only --table=audits", o.during},
		{"pg_dump --format=custom --schema=public --file=public.dump app", func(text string) {
			run(text + "createdb half; pg_dump --schema=public app | psql half")
			o.rows("copy")
			o.rows("half")
		}},
		{"auditstream uninstall\npg_restore --clean", o.overHalfRestored},
		{"pg_dump --schema-only --exclude-schema=auditstream", o.structure},
		{"pg_upgrade ", func(string) {
			if !testNames(t)["TestPgUpgrade"] {
				t.Error("there is no test of pg_upgrade")
			}
		}},
		{"auditstream install --table public.audits", func(text string) { run(text); o.healthy(o.app, "app") }},
		{"createdb --template=copy another", func(text string) { run(text); o.rows("another") }},
		{"pg_dump --schema-only --file=schema.sql app", o.replica},
		{"auditstream uninstall\npsql -1", o.migrate},
		{"auditstream install --table public.audits", func(text string) { run(text); o.healthy(o.app, "app") }},
		{"psql -U postgres app -c \"create role auditstream_owner", o.rowSecurity},
	}
	blocks := harness.DocBlocks(t, backupPage)
	if len(blocks) != len(steps) {
		t.Fatalf("%s has %d blocks of commands, and this test knows %d", backupPage, len(blocks), len(steps))
	}
	for n, step := range steps {
		if !strings.HasPrefix(blocks[n].Text, step.begin) {
			t.Fatalf("this test does not know the command, or not in this place, where it expects %q: %v", step.begin, blocks[n])
		}
		t.Logf("%v", blocks[n])
		step.do(blocks[n].Text)
	}
}

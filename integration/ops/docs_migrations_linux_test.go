package ops

import (
	"os"
	"path/filepath"
	"strings"

	"auditstream/integration/harness"
)

const mended = "install mends it"

// migrations are what tools write, in the order in which they are run. What alone says, PostgreSQL says when the page's first command is left
// out, or the other two are enough.
var migrations = []struct{ tool, alone, sql string }{
	{"Rails change_column", "cannot alter type of a column used by a view", `ALTER TABLE "audits" ALTER COLUMN "progress" TYPE bigint`},
	{"Django AlterField", "cannot alter type of a column used by a view", `ALTER TABLE "audits" ALTER COLUMN "progress" TYPE integer USING "progress"::integer`},
	{"Prisma, a type", "cannot alter type of a column used by a view", `ALTER TABLE "audits" ALTER COLUMN "progress" SET DATA TYPE DOUBLE PRECISION`},
	{"Alembic alter_column", "cannot alter type of a column used by a view", `ALTER TABLE audits ALTER COLUMN user_id TYPE VARCHAR(255)`},
	{"TypeORM", "cannot drop column message", `ALTER TABLE "audits" DROP COLUMN "message"; ALTER TABLE "audits" ADD "message" character varying(500)`},
	{"Prisma, a column anew", "cannot drop column message", `ALTER TABLE "audits" DROP COLUMN "message", ADD COLUMN "message" TEXT NOT NULL DEFAULT ''`},
	{"strong_migrations", mended, `ALTER TABLE "audits" ADD COLUMN "progress_new" bigint; UPDATE "audits" SET "progress_new" = "progress";
		ALTER TABLE "audits" RENAME COLUMN "progress" TO "progress_old"; ALTER TABLE "audits" RENAME COLUMN "progress_new" TO "progress"`},
	{"and its clean-up", mended, `ALTER TABLE "audits" DROP COLUMN "progress_old"`},
	{"pg-osc", mended, `CREATE TABLE pgosc_st_audits_1 (LIKE audits INCLUDING ALL); ALTER TABLE pgosc_st_audits_1 DROP COLUMN message;
		INSERT INTO pgosc_st_audits_1 SELECT id, user_id, status, progress FROM audits;
		ALTER TABLE audits RENAME TO pgosc_op_table_audits; ALTER TABLE pgosc_st_audits_1 RENAME TO audits`},
	{"and its --drop", mended, `DROP TABLE pgosc_op_table_audits`},
	{"Alembic batch_alter_table", "cannot drop table audits", `CREATE TABLE _alembic_tmp_audits (id BIGINT NOT NULL, user_id TEXT NOT NULL, status VARCHAR(20) NOT NULL,
		progress INTEGER NOT NULL, message TEXT, PRIMARY KEY (id)); INSERT INTO _alembic_tmp_audits (id, user_id, status, progress) SELECT id, user_id, status, progress FROM audits;
		DROP TABLE audits; ALTER TABLE _alembic_tmp_audits RENAME TO audits`},
	{"pgslice", mended, `CREATE TABLE "public"."audits_intermediate" (LIKE "public"."audits" INCLUDING DEFAULTS) PARTITION BY RANGE ("id");
		CREATE TABLE "public"."audits_1" PARTITION OF "public"."audits_intermediate" FOR VALUES FROM (1) TO (26);
		CREATE TABLE "public"."audits_2" PARTITION OF "public"."audits_intermediate" FOR VALUES FROM (26) TO (1000);
		ALTER TABLE "public"."audits_intermediate" ADD PRIMARY KEY ("id"); INSERT INTO "public"."audits_intermediate" SELECT * FROM "public"."audits";
		ALTER TABLE "public"."audits" RENAME TO "audits_retired"; ALTER TABLE "public"."audits_intermediate" RENAME TO "audits"`},
	{"a change of owner", mended, `ALTER TABLE audits OWNER TO owner2`},
	{"Rails create_table, force: :cascade", mended, `DROP TABLE IF EXISTS "audits" CASCADE; CREATE TABLE "audits" ("id" bigserial primary key, "user_id" text NOT NULL,
		"status" text NOT NULL, "progress" integer NOT NULL, "message" text); INSERT INTO "audits" ("user_id", "status", "progress") SELECT 'alice', 'running', n FROM generate_series(1, 50) n`},
	{"Rails drop_table, create_table", "cannot drop table audits", `DROP TABLE "audits"; CREATE TABLE "audits" ("id" bigserial primary key, "user_id" character varying NOT NULL,
		"status" character varying NOT NULL, "progress" integer NOT NULL, "message" text);
		INSERT INTO "audits" ("user_id", "status", "progress") SELECT 'alice', 'running', n FROM generate_series(1, 50) n`},
}

// migrate runs the block around each migration, while one viewer watches all the time.
func (o *operator) migrate(text string) {
	o.Helper()
	const id = "7"
	s := o.app.Watch(o, id, o.alice())
	s.NextProgress(o)
	o.terminal.Type("psql app -c 'alter table audits rename column progress to percent'")
	o.pushes(s, "app", id)
	o.terminal.Type("auditstream install\npsql app -c 'alter table audits rename column percent to progress'\nauditstream install")
	_, without, _ := strings.Cut(text, "\n")
	for _, m := range migrations {
		o.Logf("%s: %s", m.tool, m.sql)
		harness.NoError(o, os.WriteFile(filepath.Join(o.dir, "migration.sql"), []byte(m.sql+";\n"), 0o600))
		switch m.alone {
		case mended:
			o.terminal.Type(without)
			// Where serve compares between the two commands it ends the stream, and shows nothing before it has compared again.
			o.app.WaitStatus(o, o.alice(), harness.StatusPath(id), 200)
			s = o.app.Watch(o, id, o.alice())
			s.NextProgress(o)
		default:
			harness.WantIn(o, o.terminal.Type("! psql -1 -v ON_ERROR_STOP=1 --file=migration.sql app"), m.alone)
			fallthrough
		case "":
			o.terminal.Type(text)
		}
		o.rows("app")
		o.pushes(s, "app", id)
		o.doctor("app")
	}
}

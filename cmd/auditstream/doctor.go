package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5/pgxpool"
)

type doctorCmd struct {
	databaseFlags `embed:""`
	listenFlags   `embed:""`
	authFlags     `embed:"" group:"Tokens"`
	liveFlags     `embed:"" group:"Health check"`
	envFileFlags  `embed:""`
}

func (c *doctorCmd) Help() string {
	return `Run it with the environment of serve. It changes nothing, and prints one line a check: ok, warn or FAIL, the last two
with what to do. The exit status is 0 when nothing failed, else 1.

With --live it only asks the serve of this machine for /healthz, by HTTP_ADDR and TLS_CERT_FILE, as health checks do, and
leaves the rest alone. The database may be away then: a restart would not bring it back.`
}

// checkTimeout bounds each check, so that a check that hangs does not keep the others from running.
const checkTimeout = 8 * time.Second

// finding is one result of a check, with the remedy. A check may have several, or none.
type finding struct {
	grade  string
	text   string
	remedy string
}

const (
	gradeOK   = "ok"
	gradeWarn = "warn"
	gradeFail = "FAIL"
)

func ok(format string, args ...any) finding {
	return finding{grade: gradeOK, text: fmt.Sprintf(format, args...)}
}

func warn(remedy, format string, args ...any) finding {
	return finding{grade: gradeWarn, text: fmt.Sprintf(format, args...), remedy: remedy}
}

func fail(remedy, format string, args ...any) finding {
	return finding{grade: gradeFail, text: fmt.Sprintf(format, args...), remedy: remedy}
}

// unanswered is the finding of a check whose query failed.
func unanswered(question string, err error) finding {
	err, _ = explain(err)
	return fail("", "%s: %v", question, err)
}

func (f finding) String() string {
	line := fmt.Sprintf("%-4s  %s\n", f.grade, oneLine(f.text))
	if f.remedy != "" {
		line += "      " + oneLine(f.remedy) + "\n"
	}
	return line
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (c *doctorCmd) Run(ctx context.Context, std streams) error {
	if c.Live {
		return c.live(ctx, std)
	}
	d := &doctor{cmd: c, out: std.out}
	d.examineDatabase(ctx)
	d.run(ctx, d.secrets)
	d.run(ctx, d.keySet)
	switch {
	case d.failed == 1:
		return fmt.Errorf("1 check failed")
	case d.failed > 1:
		return fmt.Errorf("%d checks failed", d.failed)
	}
	return nil
}

// doctor is one run of the checks.
type doctor struct {
	cmd    *doctorCmd
	out    io.Writer
	failed int

	pool         *pgxpool.Pool // of DATABASE_URL, as serve opens it
	status       sql.Status    // set by the check installation
	adopted      []sql.Feed    // set by the check installation
	otherVersion bool          // set by the check schema: the schema is not of this program's version
}

// run runs a check and prints its findings.
func (d *doctor) run(ctx context.Context, check func(context.Context) []finding) (passed bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	passed = true
	for _, f := range check(ctx) {
		if f.grade == gradeFail {
			passed = false
			d.failed++
		}
		fmt.Fprint(d.out, f)
	}
	return passed
}

// examineDatabase runs the checks that need DATABASE_URL, if it connects: otherwise all of them would report the same error.
func (d *doctor) examineDatabase(ctx context.Context) {
	if !d.run(ctx, d.databaseURL) {
		return
	}
	pool, err := openPool(ctx, d.cmd.DatabaseURL)
	if err != nil {
		d.run(ctx, func(context.Context) []finding { return []finding{fail("", "%v", err)} })
		return
	}
	defer pool.Close()
	d.pool = pool
	if !d.run(ctx, d.connection) {
		return
	}
	for _, check := range []func(context.Context) []finding{
		d.version, d.primary, d.role, d.installation, d.schema, d.triggers, d.drift, d.feedContents, d.listen, d.queue, d.connections, d.clock,
	} {
		d.run(ctx, check)
	}
}

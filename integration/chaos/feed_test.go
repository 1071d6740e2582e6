package chaos

import (
	"context"
	"crypto/md5"
	"fmt"
	"os/exec"
	"strconv"

	"auditstream/integration/harness"
)

// chaosFeed is as what a client sees the audits. Half of them see them as a second feed of the same table, whose keys are uuids and whose
// fields have names of their own: what is committed, and what breaks, is then the same for both.
type chaosFeed string

const copies chaosFeed = "copies"

var chaosFeeds = []chaosFeed{"audits", copies}

// column is the statement that gives the table the keys of copies.
func (chaosFeed) column() string {
	return "alter table audits add copy uuid unique generated always as (md5(id::text)::uuid) stored"
}

func (f chaosFeed) install() []string {
	return []string{"--role", harness.ServeRole, "--feed", string(f), "--table", "public.audits", "--column", "id=copy", "--field", "score=geo_score", "--field", "pages=total_pages"}
}

func (f chaosFeed) trigger(event string) string { return "auditstream_" + string(f) + "_" + event }

// key is the audit's in the feed.
func (f chaosFeed) key(audit int64) string {
	if f != copies {
		return strconv.FormatInt(audit, 10)
	}
	sum := md5.Sum([]byte(strconv.FormatInt(audit, 10)))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:])
}

func installAgain(ctx context.Context, path, dsn string, flags ...string) error {
	cmd := exec.CommandContext(ctx, path, append([]string{"install"}, flags...)...)
	cmd.Env = harness.Environment([]string{"DATABASE_URL=" + dsn})
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("auditstream install: %w: %s", err, out)
	}
	return nil
}

package sql_test

import (
	"slices"
	"strings"
	"testing"

	"auditstream/internal/sql"
)

// A later install with one --status took back all others, without a word.
func TestLaterInstallSaysWhichWordsItTakesBack(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id int primary key, status text, progress int, user_id text, gone date); create table steps (job int); create table files (job int)`)
	noted := func(o sql.Options) string {
		notes := slices.DeleteFunc(install(t, conn, o).Notes, func(n string) bool { return !strings.HasPrefix(n, "no longer in effect: ") })
		return strings.Join(notes, "\n")
	}
	const why = `; of an option that can be repeated, what is given replaces all of the last install: give these, too, to keep them`
	words := []sql.Word{{Stored: "done", Shown: "completed"}, {Stored: "it's off", Shown: "failed"}, {Source: "gone", Stored: "set", Shown: "gone"}}
	first := sql.Options{Feed: "jobs", Words: words, Ends: []string{"gone", "off"}, Fields: []string{"when=gone", "status_text=status"}, Rings: []string{"steps=job"}}
	for _, step := range []struct {
		what string
		o    sql.Options
		want string
	}{
		{"first", first, ""},
		{"nothing given", sql.Options{Feed: "jobs"}, ""},
		{"the same given", first, ""},
		{"others", sql.Options{Feed: "jobs", Words: []sql.Word{{Stored: "done", Shown: "failed"}}, Ends: []string{"GONE"}, Fields: []string{"when=status"}, Rings: []string{"files=job"}},
			`no longer in effect: --status 'it'\''s off=failed', --status 'gone=set=gone', --ends off, --field 'status_text=status', --ring 'steps=job'` + why},
		{"again", sql.Options{Feed: "jobs"}, ""},
	} {
		if got := noted(step.o); got != step.want {
			t.Errorf("%s:\n got %s\nwant %s", step.what, got, step.want)
		}
	}
}

package sql

import "strings"

const (
	beginScript  = "begin isolation level read committed read write;\n"
	commitScript = "\ncommit;\n"
	notifyScript = "notify auditstream, '*';\n"
)

// What a script sets for its transaction is somebody else's for the rest of it: a search_path without the schema of its own table would fail
// a migration tool.
const (
	keepSettings = `do $$ begin perform pg_catalog.set_config('auditstream.kept_' || name, pg_catalog.current_setting(name), true)
    from pg_catalog.unnest('{search_path, lock_timeout, standard_conforming_strings, quote_all_identifiers, role}'::text[]) as name; end $$;
`
	restoreSettings = `do $$ begin perform pg_catalog.set_config(name, pg_catalog.current_setting('auditstream.kept_' || name), true)
    from pg_catalog.unnest('{search_path, lock_timeout, standard_conforming_strings, quote_all_identifiers, role}'::text[]) as name; end $$;
`
)

// Migration is the script for a transaction that is somebody else's: without begin and commit, and what it tells serve is sent with
// that transaction's commit.
func (p *Plan) Migration() string {
	before, script, found := strings.Cut(strings.Replace(p.SQL, "\nbegin;\n"+notifyScript+"commit;\n", "\n"+notifyScript, 1), beginScript)
	if !found {
		return ""
	}
	end := strings.LastIndex(script, commitScript)
	return before + keepSettings + script[:end+1] + script[end+len(commitScript):] + restoreSettings
}

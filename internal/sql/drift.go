package sql

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Finding is one difference between what was chosen and what there is. An install repairs it, unless Remedy says otherwise.
type Finding struct {
	// Feed is the name of the feed.
	Feed string
	// Kind is one of [FindingKinds]. It may be shown to everybody.
	Kind string
	// Text is a sentence for operators, with names of tables, columns and roles.
	Text string
	// Remedy says what to do when an install cannot repair it; "" means: install again.
	Remedy string
	// Stale says that the owners that the view shows may be out of date, so that nothing may be shown.
	Stale bool
}

// FindingKinds are the kinds of a [Finding]: a table or a column was replaced by another one; an object has a new owner; somebody lacks a
// right; row level security hides rows; an object of install's is missing or altered; the key is not unique any more; the choices are not
// known.
var FindingKinds = []string{"table", "column", "owner", "rights", "row_security", "object", "key", "choices"}

// A Drift is what has changed in the database since the install.
type Drift struct {
	Findings []Finding
	// Table (quoted and with its schema), Triggers and Always are what was chosen, for the command that repairs it.
	Table            string
	Triggers, Always bool
}

// Compare finds what has changed since the install, for serve, which runs as the current role. It needs only the rights of serve, runs no code
// of others, takes no lock for which a writer waits, and changes nothing. conn must not be in a transaction. Without an install of this
// version it finds nothing.
func Compare(ctx context.Context, conn *pgx.Conn) (Drift, error) {
	return inReadTransaction(ctx, conn, time.Second, func() (Drift, error) {
		err := emptySearchPath(ctx, conn)
		if err != nil {
			return Drift{}, err
		}
		there, err := loadInstalled(ctx, conn, defaultFeed)
		if err != nil {
			return Drift{}, err
		}
		return there.drift(ctx, conn)
	})
}

// driftOfOthers adds the findings about the other feeds, without those about objects that all feeds share.
func (i *installation) driftOfOthers(ctx context.Context, conn *pgx.Conn, found []Finding) ([]Finding, error) {
	said := make(map[string]bool)
	for n := range found {
		found[n].Feed = defaultFeed
		said[found[n].Text] = true
	}
	for _, c := range i.all {
		if c.Feed == defaultFeed || !feedName.MatchString(c.Feed) {
			continue
		}
		other, err := loadInstalled(ctx, conn, c.Feed)
		if err != nil {
			return nil, err
		}
		more, err := other.compare(ctx, conn, true)
		if err != nil {
			return nil, err
		}
		for _, f := range more {
			if said[f.Text] {
				continue
			}
			said[f.Text] = true
			f.Feed = c.Feed
			if f.Remedy == "" {
				f.Remedy = fmt.Sprintf("auditstream install --feed %s --table %s", c.Feed, ShellQuote(ident(c.Made.Schema, c.Made.Name)))
			}
			f.Text = "feed " + c.Feed + ": " + f.Text
			found = append(found, f)
		}
	}
	return found, nil
}

func (i *installation) drift(ctx context.Context, conn *pgx.Conn) (d Drift, err error) {
	s, err := ReadSchema(ctx, conn) // for what the choices do not say
	if err != nil {
		return d, err
	}
	d.Table, d.Triggers, d.Always = describeTriggers(i)[0].Table, s.Triggers || i.Feeds || i.Kind == "", s.Always
	if c := i.chosen; c != nil && c.Made.Name != "" {
		d.Table, d.Triggers, d.Always = ident(c.Made.Schema, c.Made.Name), c.Options.Triggers, c.Options.Always
	}
	d.Findings, err = i.compare(ctx, conn, true)
	if err == nil {
		d.Findings, err = i.driftOfOthers(ctx, conn, d.Findings)
	}
	return d, err
}

const (
	ourSchema    = "schema auditstream"
	feedsView    = "view auditstream.feeds"
	choicesTable = "table auditstream.choices"
	ourFunction  = "function auditstream.changed()"
)

// compare finds all differences of one feed. serves says that the current role is that of serve, so its rights count, too.
func (i *installation) compare(ctx context.Context, conn *pgx.Conn, serves bool) ([]Finding, error) {
	if v := i.version(); i.Moved != "" {
		return []Finding{{Kind: "object", Text: "the schema auditstream is called " + i.Moved + " now",
			Remedy: "give it back its name: alter schema " + i.Moved + " rename to auditstream"}}, nil
	} else if i.chosen == nil && v != SchemaVersion && (v != 0 || i.Choices != "closed") {
		return nil, nil // nothing is installed, or it is handwritten or of another version
	}
	var found []Finding
	if way := i.dropForeign(); way != "" {
		found = append(found, Finding{Kind: "object", Text: "something else has the name of what install makes", Remedy: way + "; and install again"})
	}
	if i.chosen == nil && found == nil {
		found = append(found, i.unknownChoices())
	} else if i.chosen != nil {
		replaced, err := i.replacedNames(ctx, conn)
		if err != nil {
			return nil, err
		}
		found = slices.Concat(found, replaced, i.changedObjects(), i.changedOwners())
		stale := slices.ContainsFunc(replaced, func(f Finding) bool { return f.Stale })
		if was := i.chosen.Made; !stale && i.Made.Name != "" && i.Made.Sources[i.id()] != "" && (was.Unique && !i.Made.Unique || was.Indexed && !i.Made.Indexed) {
			key := ident(i.Made.Sources[i.id()])
			found = append(found, Finding{Kind: "key", Text: fmt.Sprintf("the index that made %s of %s unique, or found its rows, is gone: a restore that goes on after errors"+
				" leaves a table without its primary key, and rows twice", key, i.tableName()),
				Remedy: fmt.Sprintf("look for rows that are there twice, then: create unique index concurrently on %s (%s)", i.tableName(), key)})
		}
	}
	roles, lookups := []string{}, false
	if i.chosen != nil {
		roles, lookups = append(roles, i.chosen.Options.Roles...), len(i.chosen.Options.Lookups) > 0
	}
	rows, err := collect(ctx, conn, "rights", pgx.RowToStructByNameLax[Finding], i.in(missingRightsSQL), roles, serves, lookups)
	return append(found, rows...), err
}

func (i *installation) tableName() string { return ident(i.Made.Schema, i.Made.Name) }

// dropForeign returns the statement that drops what install did not make and cannot replace.
func (i *installation) dropForeign() string {
	if i.Foreign == "" && i.Kind == "v" && i.chosen != nil && !i.madeByInstall() {
		return "drop view auditstream." + i.view()
	}
	return i.Foreign
}

func (i *installation) unknownChoices() Finding {
	if i.Choices == "closed" {
		return Finding{Kind: "choices", Text: "the current role may not read auditstream.choices, so what has changed since the install is not known"}
	}
	return Finding{Kind: "choices", Text: "auditstream.choices does not say what was chosen"}
}

// replacedNames finds the table and the columns whose names belong to others now. A rename alone is not a finding, because the view follows
// it.
func (i *installation) replacedNames(ctx context.Context, conn *pgx.Conn) ([]Finding, error) {
	was, now := i.chosen.Made, i.Made
	if now.Name == "" || was.Name == "" {
		return nil, nil // the view reads several tables or none: it is altered or missing
	}
	names := map[string][]string{} // from the former name of a source to the view's columns
	for view, name := range was.Sources {
		if source := now.Sources[view]; source != "" && source != name {
			names[name] = append(names[name], view)
		}
	}
	moved := was.Schema != now.Schema || was.Name != now.Name
	if !moved && len(names) == 0 {
		return nil, nil
	}
	type holder struct{ Kind, Name string } // a view that reads the renamed table and has its old name does not count
	there, err := collect(ctx, conn, "names", pgx.RowToStructByPos[holder], `
		select c.relkind::text, '' from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where $5 and n.nspname = $1 and c.relname = $2
			and not exists (select from pg_catalog.pg_rewrite w join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
				join pg_catalog.pg_class r on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and r.oid = d.refobjid join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
				where w.ev_class = c.oid and c.relkind = 'v' and rn.nspname = $3 and r.relname = $4)
		union all
		select '', a.attname::text from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		where n.nspname = $3 and c.relname = $4 and a.attname = any ($6::text[]) and a.attnum > 0 and not a.attisdropped order by 2`,
		was.Schema, was.Name, now.Schema, now.Name, moved, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, holder := range there {
		if holder.Kind != "" {
			f := Finding{Kind: "table", Stale: true, Text: fmt.Sprintf("another table is called %s now, and viewers still see the rows of the adopted table, which is called %s now",
				ident(was.Schema, was.Name), i.tableName())}
			if holder.Kind != "r" && holder.Kind != "p" { // install cannot adopt it
				f.Remedy = fmt.Sprintf("auditstream install --table %s, if that is still the table; else auditstream uninstall, and install with the --table that it is",
					ShellQuote(i.tableName()))
			}
			found = append(found, f)
			continue
		}
		name := holder.Name
		slices.Sort(names[name])
		for _, view := range names[name] {
			found = append(found, Finding{Kind: "column", Stale: view == "user_id" || view == "user_email",
				Text: fmt.Sprintf("another column of %s is called %s now, and viewers still see as %s the adopted column, which is called %s now",
					i.tableName(), ident(name), view, ident(now.Sources[view]))})
		}
	}
	return found, nil
}

// replacedBy reports whether t has the name that the adopted table had at the install.
func (i *installation) replacedBy(t *table) bool { return i.chosen != nil && t.named(i.chosen.Made) }

// changedObjects finds install's objects that are missing, altered or disabled, and triggers that install did not make.
func (i *installation) changedObjects() []Finding {
	var found []Finding
	add := func(format string, args ...any) {
		found = append(found, Finding{Kind: "object", Text: fmt.Sprintf(format, args...)})
	}
	was, now := i.chosen.Made, i.Made
	if len(was.Objects) == 0 {
		return []Finding{i.unknownChoices()}
	}
	way := i.dropForeign()
	for _, name := range slices.Sorted(maps.Keys(was.Objects)) {
		before := was.Objects[name]
		after, there := now.Objects[name]
		switch {
		case strings.HasSuffix(way, name[strings.Index(name, " "):]): // dropForeign's finding says it
		case !there:
			add("the %s is missing", name)
		case before.Off != after.Off:
			add("the %s is %s", name, cmp.Or(after.Off, "enabled"))
		// Another major version of PostgreSQL writes and stores definitions in another way.
		case was.Server != now.Server:
		case before.Text != after.Text && before.Tree != after.Tree:
			add("the %s is not as install made it", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now.Objects)) {
		after := now.Objects[name]
		_, before := was.Objects[name]
		switch {
		case before:
		case after.Off != "":
			add("the %s is %s", name, after.Off)
		case strings.HasPrefix(name, "trigger ") && i.originalTrigger(name) == "":
			add("the %s calls a function of auditstream's and is not install's", name)
			found[len(found)-1].Remedy = "unless it is meant, " + i.dropTrigger(name) + ": install leaves it alone"
		}
	}
	return found
}

// dropTrigger returns the statement that drops a trigger of Made.Objects.
func (i *installation) dropTrigger(object string) string {
	for _, g := range i.Triggers {
		if name := "trigger " + g.Trigger; name == object || name+" on "+g.Display == object {
			return fmt.Sprintf("drop trigger %s on %s", ident(g.Trigger), g.table().quoted())
		}
	}
	return "drop " + object
}

// originalTrigger returns the former name of a renamed trigger of install's; "" when it is not one.
func (i *installation) originalTrigger(name string) string {
	for was, before := range i.chosen.Made.Objects {
		if _, there := i.Made.Objects[was]; !there && strings.HasPrefix(was, "trigger ") && before.Tree == i.Made.Objects[name].Tree {
			return was
		}
	}
	return ""
}

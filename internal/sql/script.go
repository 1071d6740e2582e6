package sql

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// installScript fills in install.sql. It returns "" when nothing has to change.
func installScript(ctx context.Context, conn *pgx.Conn, o Options, t *table, m *mapping, there *installation, found []Finding) (string, error) {
	rings := m.rings
	if o.NoTriggers {
		rings = nil
	}
	vars := there.tableVars(o, t, m, rings)
	// A checksum of the script and the options, without what depends on the state of the database.
	sum := md5.Sum([]byte(render(installSQL, vars) + recordChoices(o, nil, m, "")))
	asked := hex.EncodeToString(sum[:])
	maps.Copy(vars, there.vars(othersTriggers(there.all, there.naming)))
	current := there.isCurrent(o, asked, found)
	var own []string
	if slices.ContainsFunc(found, func(f Finding) bool { return f.Kind == "owner" || f.Kind == "row_security" && !t.RowSecurity }) {
		own, current = there.takeOwnership(), false
	}

	dropView := !current && there.Kind != "" && (!there.replaceable(m) || there.chosen != nil && !there.trusts(there.Made.Objects[there.viewObject()]))
	roles, grants, err := grantsFor(ctx, conn, o, there, dropView, !current)
	if err != nil {
		return "", err
	}
	vars["options"] = recordChoices(o, roles, m, asked)
	if current && !slices.Equal(roles, there.chosen.Options.Roles) {
		grants = append(grants, fmt.Sprintf("update auditstream.choices set options = %s where feed = %s;", literal(vars["options"]), literal(o.Feed)))
	}
	if current && len(grants) == 0 {
		return "", nil
	}
	for name, yes := range map[string]bool{
		"objects": !current, "new_schema": !there.Schema, "drop_view": dropView, "new_feeds": !there.Feeds, "old_schema": there.Old,
		"drop_owner": len(m.owners()) == 0 && there.Feeds, "last": !slices.ContainsFunc(there.all, func(c *choices) bool { return c.Feed != o.Feed && c.Options.Triggers }),
		"drop_triggers": o.NoTriggers && (there.Feeds || len(there.Triggers) > 0),
	} {
		vars[name] = strconv.FormatBool(yes)
	}
	vars["take_over"] = strings.Join(append(own, there.dropStaleTriggers(t, rings)...), "\n")
	vars["lock_wait"], vars["lock_timeout"], vars["grants"] = milliseconds(o.LockWait), milliseconds(o.LockTimeout), strings.Join(grants, "\n")
	vars["keep_always"] = there.keepAlways()
	script := render(installSQL, vars)
	if t.OID == 0 {
		created := auditsSQL
		if o.Feed != defaultFeed {
			created = feedSQL
		}
		script = strings.Replace(script, searchPath, searchPath+"\n"+render(created, vars), 1)
	}
	return script, nil
}

// tableVars returns install.sql's variables for the table, its columns and the options.
func (i *installation) tableVars(o Options, t *table, m *mapping, rings []ring) map[string]string {
	owners := m.owners()
	vars := map[string]string{
		"table": t.quoted(), "key": ident(m.key.Name), "objects": "true", "triggers": strconv.FormatBool(!o.NoTriggers),
		"class": strconv.Itoa(lockClass), "buckets": strconv.Itoa(i.Buckets), "mask": strconv.Itoa(i.Buckets - 1), "always": strconv.FormatBool(o.NotifyAlways),
		"owners": strings.Join(owners, ", "), "has_owners": strconv.FormatBool(len(owners) > 0),
		"more": "", "report": o.report, "reports": strconv.FormatBool(o.report != ""),
	}
	maps.Copy(vars, i.vars(nil))
	for _, name := range viewColumns {
		vars[name] = "null::" + viewTypes[name]
	}
	for _, c := range m.columns {
		if vars[c.name] = c.value(); !slices.Contains(viewColumns, c.name) {
			vars["more"] += fmt.Sprintf(", %s as %s", c.value(), c.name)
		}
	}
	m.keyVars(vars, i.naming, t)
	vars["rings"] = strings.TrimSuffix(ringTriggers(rings, m, i.naming, vars), "\n")
	return vars
}

// isCurrent reports whether the last install made what this one would make. asked is this one's checksum.
func (i *installation) isCurrent(o Options, asked string, found []Finding) bool {
	return versionOf(i.Comment, i.Watch, i.Prepare) > 0 && i.Feeds == !o.NoTriggers && i.chosen != nil && i.chosen.Options.Asked == asked && !i.Old &&
		i.chosen.Made.Server == i.Made.Server && !slices.ContainsFunc(found, func(f Finding) bool { return f.Remedy == "" && f.Kind != "rights" }) &&
		(slices.Contains(i.roles(), o.Role) || o.Role == "" || i.Made.Objects[choicesTable].Owner == i.Made.Installer)
}

// keepAlways returns the statements that set ALWAYS again, which an operator has set and "create or replace trigger" resets.
func (i *installation) keepAlways() string {
	var statements []string
	for _, t := range i.Triggers {
		if t.Enabled == "A" {
			statements = append(statements, fmt.Sprintf("alter table only %s enable always trigger %s;", t.table().quoted(), ident(t.Trigger)))
		}
	}
	return strings.Join(statements, "\n")
}

// milliseconds writes d as PostgreSQL reads it.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

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
	owners := m.owners()
	vars := map[string]string{
		"table": t.quoted(), "key": ident(m.key.Name), "objects": "true", "triggers": strconv.FormatBool(!o.NoTriggers),
		"class": strconv.Itoa(lockClass), "buckets": strconv.Itoa(there.Buckets), "mask": strconv.Itoa(there.Buckets - 1), "look": "",
		"owners": strings.Join(owners, ", "), "has_owners": strconv.FormatBool(len(owners) > 0),
	}
	if o.NotifyAlways {
		vars["look"] = "false and"
	}
	maps.Copy(vars, there.vars(nil))
	vars["more"], vars["report"], vars["reports"] = "", o.report, strconv.FormatBool(o.report != "")
	for _, name := range viewColumns {
		vars[name] = "null::" + viewTypes[name]
	}
	for _, c := range m.columns {
		if vars[c.name] = c.value(); !slices.Contains(viewColumns, c.name) {
			vars["more"] += fmt.Sprintf(", %s as %s", c.value(), c.name)
		}
	}
	m.keyVars(vars, there.naming, t)
	rings := m.rings
	if o.NoTriggers {
		rings = nil
	}
	vars["rings"] = strings.TrimSuffix(ringTriggers(rings, m, there.naming, vars), "\n")
	// A checksum of the script and the options, without what depends on the state of the database.
	sum := md5.Sum([]byte(render(installSQL, vars) + recordChoices(o, nil, m, "")))
	asked := hex.EncodeToString(sum[:])
	maps.Copy(vars, there.vars(othersTriggers(there.all, there.naming)))
	current := versionOf(there.Comment, there.Watch, there.Prepare) > 0 && there.Feeds == !o.NoTriggers && there.chosen != nil && there.chosen.Options.Asked == asked && !there.Old &&
		there.chosen.Made.Server == there.Made.Server && !slices.ContainsFunc(found, func(f Finding) bool { return f.Remedy == "" && f.Kind != "rights" }) &&
		(slices.Contains(there.roles(), o.Role) || o.Role == "" || there.Made.Objects[choicesTable].Owner == there.Made.Installer)
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
	if current && len(own) > 0 {
		grants = append(own, grants...)
	}
	if current && len(grants) == 0 {
		return "", nil
	}
	for name, yes := range map[string]bool{
		"objects": !current, "new_schema": !there.Schema, "drop_view": dropView, "new_feeds": !there.Feeds, "old_schema": there.Old,
		"drop_owner": len(owners) == 0 && there.Feeds, "last": !slices.ContainsFunc(there.all, func(c *choices) bool { return c.Feed != o.Feed && c.Options.Triggers }),
		"drop_triggers": o.NoTriggers && (there.Feeds || len(there.Triggers) > 0),
	} {
		vars[name] = strconv.FormatBool(yes)
	}
	vars["take_over"] = strings.Join(append(own, there.dropStaleTriggers(t, rings)...), "\n")
	vars["lock_wait"], vars["lock_timeout"], vars["grants"] = milliseconds(o.LockWait), milliseconds(o.LockTimeout), strings.Join(grants, "\n")
	for _, t := range there.Triggers {
		if t.Enabled == "A" { // an operator has set ALWAYS, which "create or replace trigger" would reset
			vars["keep_always"] += fmt.Sprintf("alter table only %s enable always trigger %s;\n", t.table().quoted(), ident(t.Trigger))
		}
	}
	vars["keep_always"] = strings.TrimSuffix(vars["keep_always"], "\n")
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

// milliseconds writes d as PostgreSQL reads it.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

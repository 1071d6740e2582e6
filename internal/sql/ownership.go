package sql

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// changedOwners finds objects whose owner is not trusted: neither a superuser, nor the table's owner, nor the role that has installed, while the
// table has the same owner.
func (i *installation) changedOwners() []Finding {
	strangers := make(map[string][]string)
	for name, o := range i.Made.Objects {
		if !i.trusts(o) {
			strangers[o.Owner] = append(strangers[o.Owner], name)
		}
	}
	var found []Finding
	for _, owner := range slices.Sorted(maps.Keys(strangers)) {
		slices.Sort(strangers[owner])
		found = append(found, Finding{Kind: "owner", Text: fmt.Sprintf("%s belongs to %s, who does not own %s: %s does", strings.Join(strangers[owner], ", "),
			owner, i.tableName(), i.Made.Owner)})
	}
	return found
}

func (i *installation) trusts(o object) bool {
	return i.chosen == nil || o.Owner == "" || o.Super || i.Made.Name == "" || o.Owner == i.Made.Owner ||
		o.Owner == i.chosen.Made.Installer && i.Made.Owner == i.chosen.Made.Owner
}

func owners(objects map[string]object, which func(object) bool) []string {
	var all []string
	for _, o := range objects {
		if o.Owner != "" && which(o) {
			all = append(all, o.Owner)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// takeOwnership returns the statements that give the current role the objects of untrusted owners, and a view that its owner cannot read. The
// table of choices and the view of an untrusted owner are made anew instead.
func (i *installation) takeOwnership() []string {
	var own []string
	for name, o := range i.Made.Objects {
		if name == choicesTable && !i.trusts(o) { // it is made anew
			own = append(own, "drop table auditstream.choices;")
		} else if name != choicesTable && o.Owner != "" && o.Owner != i.Made.Installer && (name == i.viewObject() || !i.trusts(o)) {
			switch alter := fmt.Sprintf("alter %s owner to %s;", name, ident(i.Made.Installer)); {
			case name == ourSchema: // objects that others make there would be used
				own = append(own, alter+"\n"+revokeCreate)
			case name == ourFunction: // security definer would run it with its owner's rights
				own = append(own, alter+" alter "+name+" security invoker;")
			case strings.HasPrefix(name, "function "): // it is made anew
				own = append(own, "drop "+name+";")
			default:
				own = append(own, alter)
			}
		}
	}
	slices.Sort(own)
	return own
}

// dropStaleTriggers returns the statements that drop triggers of install's: on a table that t has replaced; those that were renamed or made
// constraint triggers, which "create or replace trigger" refuses; and those of former rings.
func (i *installation) dropStaleTriggers(t *table, rings []ring) []string {
	var drop []string
	for _, g := range i.Triggers {
		known := i.known(g.Trigger)
		elsewhere := g.OID != t.OID
		if i.rings(g.Trigger) {
			elsewhere = !slices.ContainsFunc(rings, func(r ring) bool { return r.table.OID == g.OID })
		}
		if !g.Copy && (known && (elsewhere || g.Constraint) || !known && i.chosen != nil && i.originalTrigger("trigger "+g.Trigger) != "") {
			drop = append(drop, fmt.Sprintf("drop trigger if exists %s on %s;", ident(g.Trigger), g.table().quoted()))
		}
	}
	return drop
}

// revokeCreate revokes CREATE on the schema from all but its owner.
const revokeCreate = `do $$ declare acl text; begin
    for acl in select format('revoke create on schema auditstream from %s cascade', case when x.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end)
        from pg_namespace n, aclexplode(n.nspacl) x where n.nspname = 'auditstream' and x.grantee <> n.nspowner and x.privilege_type = 'CREATE' loop
        execute acl;
    end loop;
end $$;`

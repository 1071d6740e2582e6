package sql

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A naming is how a feed's objects are called.
type naming string

func (n naming) first() bool { return n == defaultFeed }

// view is the name of the feed's view in the schema auditstream, and id that of its first column.
func (n naming) view() string {
	if n.first() {
		return "progress"
	}
	return "progress_" + string(n)
}

func (n naming) id() string {
	if n.first() {
		return "audit_id"
	}
	return "id"
}

// trigger is the name of one of the feed's triggers: insert, update, delete, owner, truncate.
func (n naming) trigger(event string) string {
	if n.first() {
		return "auditstream_" + event
	}
	return "auditstream_" + string(n) + "_" + event
}

var events = []string{"insert", "update", "delete", "owner", "truncate"} // owner where a column says whose a row is

// triggers are the names of all.
func (n naming) triggers() (names []string) {
	for _, event := range events {
		names = append(names, n.trigger(event))
	}
	return names
}

// ring is the name of one of the triggers on another table whose changes ring a row of the feed's. No feed has a $ in its name.
func (n naming) ring(event string) string { return "auditstream_" + string(n) + "$" + event }

// known says whether a trigger is called as one of install's.
func (n naming) known(trigger string) bool {
	return slices.Contains(n.triggers(), trigger) || n.rings(trigger) || n.first() && trigger == "auditstream_key"
}

// rings says whether a trigger is called as one on another table.
func (n naming) rings(trigger string) bool {
	return strings.HasPrefix(trigger, n.ring(""))
}

// viewObject is what made.Objects call the view.
func (n naming) viewObject() string { return "view auditstream." + n.view() }

// in is a query about the view of audits, about the feed's.
func (n naming) in(query string) string {
	if n.first() {
		return query
	}
	return strings.NewReplacer("auditstream.progress", "auditstream."+n.view(), "'progress'", "'"+n.view()+"'").Replace(query)
}

// mix is the number that the triggers mix into the hashes of keys: all feeds share the buckets.
func (n naming) mix() int32 {
	if n.first() {
		return 0
	}
	sum := sha256.Sum256([]byte(n))
	return int32(binary.BigEndian.Uint32(sum[:]) & 0x7fffffff)
}

// vars are what install.sql calls the feed's objects. others are the triggers of other feeds.
func (n naming) vars(others []string) map[string]string {
	vars := map[string]string{"feed": string(n), "view": n.view(), "id": n.id(), "others": "{" + strings.Join(others, ",") + "}"}
	for _, event := range events {
		vars["t_"+event] = n.trigger(event)
	}
	return vars
}

// reportName is what the function is called that writes to the table that install makes: one feed has the short name.
func (i *installed) reportName() string {
	if slices.ContainsFunc(i.all, func(c *choices) bool { return c.Options.Report == "report" && c.Feed != string(i.naming) }) {
		return "report_" + string(i.naming)
	}
	return "report"
}

// reportSQL drops such a function.
func reportSQL(name string) (statements string) {
	for _, key := range []string{"bigint", "text"} { // the first calls the second
		statements += fmt.Sprintf("drop function if exists auditstream.%s(%s, double precision, text, text, text, text);\n", ident(name), key)
	}
	return statements
}

// othersTriggers are those of all feeds but one.
func othersTriggers(all []*choices, n naming) (names []string) {
	for _, c := range all {
		if other := naming(c.Feed); other != n && feedName.MatchString(c.Feed) {
			names = append(names, other.triggers()...)
			for _, event := range events {
				names = append(names, other.ring(event))
			}
		}
	}
	slices.Sort(names)
	return names
}

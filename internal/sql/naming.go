package sql

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A naming is a feed's name, from which the names of its objects follow.
type naming string

func (n naming) first() bool { return n == defaultFeed }

// view returns the name of the feed's view in the schema auditstream, and id that of its first column.
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

// trigger returns the name of one of the feed's triggers: one of events.
func (n naming) trigger(event string) string {
	if n.first() {
		return "auditstream_" + event
	}
	return "auditstream_" + string(n) + "_" + event
}

var events = []string{"insert", "update", "rekey", "delete", "owner", "truncate"} // owner only when the table has a column that names one

// triggers returns the names of all of the feed's triggers.
func (n naming) triggers() (names []string) {
	for _, event := range events {
		names = append(names, n.trigger(event))
	}
	return names
}

// ring returns the name of one of the triggers on a ring's table. It cannot be another feed's name, because no feed has a $ in its name.
func (n naming) ring(event string) string { return "auditstream_" + string(n) + "$" + event }

// known reports whether install makes a trigger of this name.
func (n naming) known(trigger string) bool {
	return slices.Contains(n.triggers(), trigger) || n.rings(trigger) || n.first() && trigger == "auditstream_key"
}

// rings reports whether install makes a trigger of this name on a ring's table.
func (n naming) rings(trigger string) bool {
	return strings.HasPrefix(trigger, n.ring(""))
}

// viewObject returns the view's key in madeObjects.Objects.
func (n naming) viewObject() string { return "view auditstream." + n.view() }

// in changes a query about the view of audits into one about the feed's view.
func (n naming) in(query string) string {
	if n.first() {
		return query
	}
	return strings.NewReplacer("auditstream.progress", "auditstream."+n.view(), "'progress'", "'"+n.view()+"'").Replace(query)
}

// mix returns the number that the triggers mix into the hash of a key. All feeds share the buckets, so equal keys of two feeds must not share
// one.
func (n naming) mix() int32 {
	if n.first() {
		return 0
	}
	sum := sha256.Sum256([]byte(n))
	return int32(binary.BigEndian.Uint32(sum[:]) & 0x7fffffff)
}

// vars returns install.sql's variables for the names of the feed's objects. others are the triggers of other feeds.
func (n naming) vars(others []string) map[string]string {
	vars := map[string]string{"feed": string(n), "view": n.view(), "id": n.id(), "others": "{" + strings.Join(others, ",") + "}"}
	for _, event := range events {
		vars["t_"+event] = n.trigger(event)
	}
	return vars
}

// reportName returns the name of the function that writes to the table made by Create. Only one feed can have the short name report.
func (i *installation) reportName() string {
	if slices.ContainsFunc(i.all, func(c *choices) bool { return c.Options.Report == "report" && c.Feed != string(i.naming) }) {
		return "report_" + string(i.naming)
	}
	return "report"
}

// reportSQL returns the statements that drop such a function.
func reportSQL(name string) (statements string) {
	for _, key := range []string{"bigint", "text"} { // the first calls the second
		statements += fmt.Sprintf("drop function if exists auditstream.%s(%s, double precision, text, text, text, text);\n", ident(name), key)
	}
	return statements
}

// othersTriggers returns the names of the triggers of all feeds but n.
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

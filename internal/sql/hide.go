package sql

import "fmt"

// A neverNullError says that Options.Hide would hide every row.
type neverNullError struct {
	table  *table
	column *attribute
	kept   string // the feed of the last install, whose choice it is; "": it was given
}

func (e *neverNullError) Error() string {
	text := fmt.Sprintf("--hide %s: column %[1]s of %s is %s and never null, so every row would be hidden: name a column that is null in the rows to show, or a boolean that is not true in them;"+
		" or give --view FILE with a query that has a where clause", e.column.Name, e.table.Display, e.column.Type)
	if e.kept != "" {
		text += "; this --hide is of the last install, and auditstream uninstall --feed " + e.kept + " takes it back"
	}
	return text
}

// findHidden returns the column of Options.Hide, or nil when none is given. It refuses one that is never null, unless it is a boolean.
func findHidden(t *table, o Options) (*attribute, error) {
	if o.Hide == "" {
		return nil, nil
	}
	a := t.columnByName(o.Hide)
	switch {
	case a == nil:
		return nil, t.noColumn(o.Hide, "%s has no column %s, which --hide names", t.Display, o.Hide)
	case a.NotNull && a.builtInBase() != "bool":
		return nil, &neverNullError{table: t, column: a, kept: o.hideKept}
	}
	return a, nil
}

// notHidden returns the condition of the rows that the column does not hide: it is null or, of a boolean, not true. Neither needs an operator,
// so none of somebody else's can run.
func (a *attribute) notHidden() string {
	if a.builtInBase() == "bool" {
		return a.ref("a") + " is not true"
	}
	return "a." + ident(a.Name) + " is not distinct from null"
}

package store

import (
	"regexp"
	"slices"
)

// Feed is one adopted table, as the schema auditstream describes it. Do not change it after a [Store] was made with it.
type Feed struct {
	// Name is its name in URLs and notifications.
	Name string
	// View is the view from which its rows are read, with its schema and quoted for SQL.
	View string
	// Key is the type of its keys.
	Key KeyType
	// Mix is the number that the triggers mix into the hash of a key. See bucket.go in package pgnotify.
	Mix int32
	// Ends are the statuses that end a row, besides completed and failed.
	Ends []string
	// Deleted is the status that viewers see when a row that they watch is deleted. When it is empty, they see that the row is gone.
	Deleted string
	// Public says that every viewer may see every row.
	Public bool
	// Groups says that the view has the column group_id, and Fields that it has the column fields, which the operator's --field options fill.
	Groups, Fields bool
}

var feedName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// IsFeedName reports whether name is valid for a feed.
func IsFeedName(name string) bool { return feedName.MatchString(name) }

// DefaultFeed is the name of the first feed. The API page fixes its JSON and its routes.
const DefaultFeed = "audits"

// Audits is the feed that is served when the database describes none: its view was written by hand.
var Audits = &Feed{Name: DefaultFeed, View: "auditstream.progress"}

// isDefault reports whether f is the feed audits, which a nil Feed also means.
func (f *Feed) isDefault() bool { return f == nil || f.Name == DefaultFeed }

// ends reports whether a status ends a row.
func (f *Feed) ends(status string) bool {
	return status == "completed" || status == "failed" || f != nil && slices.Contains(f.Ends, status)
}

// endings returns all statuses that end a row.
func (f *Feed) endings() []string { return append([]string{"completed", "failed"}, f.Ends...) }

// Owners returns every Owner whose rows the viewer may see in this feed.
func (f *Feed) Owners(v Viewer) []Owner {
	owners := v.Owners()
	if f.Public {
		owners = append(owners, Owner{kind: everyone})
	}
	if !f.Groups {
		return owners
	}
	for _, group := range v.Groups {
		if o := (Owner{group, groupOwner}); !blank(group) && !slices.Contains(owners, o) {
			owners = append(owners, o)
		}
	}
	return owners
}

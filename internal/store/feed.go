package store

import (
	"regexp"
	"slices"
)

// Feed is one adopted table, as the database describes it. It must not be changed once a [Store] has it.
type Feed struct {
	// Name is what URLs and notifications call it.
	Name string
	// View is what its rows are read from, quoted for SQL and with its schema.
	View string
	// Key is the type of the rows' keys.
	Key KeyType
	// Mix is the number that the triggers mix into the keys' hashes; see pgnotify.
	Mix int32
	// Ends are the statuses after which no change is expected, besides completed and failed.
	Ends []string
	// Deleted is the status with which a row is shown that was deleted while somebody watched it; empty: it is said to be gone.
	Deleted string
	// Public says that every viewer may see every row.
	Public bool
	// Groups and Fields say that the view has a column group_id, and one of the fields that the operator has chosen.
	Groups, Fields bool
}

var feedName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// IsFeedName reports whether a feed may be called so.
func IsFeedName(name string) bool { return feedName.MatchString(name) }

// DefaultFeed is the name of the first feed, whose JSON and routes the API page fixes.
const DefaultFeed = "audits"

// Audits is the feed that is there without anybody's having described it: a view that was written by hand.
var Audits = &Feed{Name: DefaultFeed, View: "auditstream.progress"}

// isDefault also takes nil for a feed: what was made without one is of audits.
func (f *Feed) isDefault() bool { return f == nil || f.Name == DefaultFeed }

// ends reports whether no change is expected after a status.
func (f *Feed) ends(status string) bool {
	return status == "completed" || status == "failed" || f != nil && slices.Contains(f.Ends, status)
}

// endings are all such statuses.
func (f *Feed) endings() []string { return append([]string{"completed", "failed"}, f.Ends...) }

// Owners are as whom a viewer sees rows.
func (f *Feed) Owners(v Viewer) []Owner {
	owners := v.Owners()
	if f.Public {
		owners = append(owners, Owner{kind: everybody})
	}
	if !f.Groups {
		return owners
	}
	for _, group := range v.Groups {
		if o := (Owner{group, ofGroup}); !blank(group) && !slices.Contains(owners, o) {
			owners = append(owners, o)
		}
	}
	return owners
}

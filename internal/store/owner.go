package store

import (
	"slices"
	"strings"
	"unicode"
)

// Owner is one identity that may see rows: a user, an e-mail address, a group, or everyone. A row has Owners, and so has a viewer; the
// viewer may see the row when they share one. Owners are comparable; the zero Owner is nobody.
type Owner struct {
	name string
	kind ownerKind
}

type ownerKind uint8

const (
	_            ownerKind = iota
	subjectOwner           // a user_id
	emailOwner             // a folded user_email, of rows without a user_id
	groupOwner             // a group_id, in addition to the two above
	everyone               // every viewer of a public feed
)

// Owner returns who owns the row: its user_id or, without one, its user_email. A blank value counts as none: applications write an empty
// text when there is no owner, and a token with a blank claim must not see such a row.
func (a Row) Owner() Owner {
	if id := deref(a.UserID); !blank(id) {
		return Owner{id, subjectOwner}
	}
	if email := deref(a.UserEmail); !blank(email) {
		return Owner{foldEmail(email), emailOwner}
	}
	return Owner{}
}

// Owners returns all who may see the row, each once: its owner, its group, and everyone if the feed is public.
func (a Row) Owners() []Owner {
	var owners []Owner
	if owner := a.Owner(); owner != (Owner{}) {
		owners = append(owners, owner)
	}
	if group := deref(a.GroupID); !blank(group) {
		owners = append(owners, Owner{group, groupOwner})
	}
	if a.Feed != nil && a.Feed.Public {
		owners = append(owners, Owner{kind: everyone})
	}
	return owners
}

// blank reports whether a text has no visible character, and so names nobody.
func blank(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// Owners returns the viewer's identities as a user: subject and e-mail address. Blank claims are left out. [Feed.Owners] adds the groups.
func (v Viewer) Owners() []Owner {
	var owners []Owner
	if !blank(v.Subject) {
		owners = append(owners, Owner{v.Subject, subjectOwner})
	}
	if !blank(v.Email) {
		owners = append(owners, Owner{foldEmail(v.Email), emailOwner})
	}
	return owners
}

// matches reports whether the viewer has this identity. It runs for each state that is sent, and a token may name many groups, so it
// builds no list of them.
func (v Viewer) matches(o Owner) bool {
	switch o.kind {
	case subjectOwner:
		return o.name == v.Subject
	case emailOwner:
		return o.name == foldEmail(v.Email)
	case groupOwner:
		return slices.Contains(v.Groups, o.name)
	}
	return o.kind == everyone
}

// asciiEmail returns the ASCII characters of a folded address, by which rows are looked up: how a database folds other letters depends
// on its collation. The look-up finds all rows of the owner, and may find rows of others, too.
func (o Owner) asciiEmail() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, o.name)
}

package store

import (
	"slices"
	"strings"
	"unicode"
)

// Owner is who owns an audit, or as whom somebody may own audits. It is comparable; the zero Owner is nobody.
type Owner struct {
	name string
	kind ownerKind
}

type ownerKind uint8

const (
	_         ownerKind = iota
	bySubject           // a user_id
	byEmail             // of rows without a user_id; folded
	ofGroup             // a group_id, beside the above
	everybody           // of a public feed
)

// Owner says who owns the audit: its user_id, or, where it has none, its user_email. One in which nothing can be seen is none:
// applications write ” where they have nobody, and a blank that names nobody must not be somebody's.
func (a Audit) Owner() Owner {
	if id := deref(a.UserID); !blank(id) {
		return Owner{id, bySubject}
	}
	if email := deref(a.UserEmail); !blank(email) {
		return Owner{foldEmail(email), byEmail}
	}
	return Owner{}
}

// Owners are all to whom the audit is shown, each once: whoever owns it, those of its group, and of a public feed everybody.
func (a Audit) Owners() []Owner {
	var owners []Owner
	if owner := a.Owner(); owner != (Owner{}) {
		owners = append(owners, owner)
	}
	if group := deref(a.GroupID); !blank(group) {
		owners = append(owners, Owner{group, ofGroup})
	}
	if a.Feed != nil && a.Feed.Public {
		owners = append(owners, Owner{kind: everybody})
	}
	return owners
}

// blank reports whether a text names nobody: it has no character that can be seen.
func blank(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// Owners are the Owners that the viewer is, two at most. A blank claim is none.
func (v Viewer) Owners() []Owner {
	var owners []Owner
	if !blank(v.Subject) {
		owners = append(owners, Owner{v.Subject, bySubject})
	}
	if !blank(v.Email) {
		owners = append(owners, Owner{foldEmail(v.Email), byEmail})
	}
	return owners
}

// is reports whether the viewer is an owner, or one of a group's. It is asked for each state that is sent, and a token may name many groups.
func (v Viewer) is(o Owner) bool {
	switch o.kind {
	case bySubject:
		return o.name == v.Subject
	case byEmail:
		return o.name == foldEmail(v.Email)
	case ofGroup:
		return slices.Contains(v.Groups, o.name)
	}
	return o.kind == everybody
}

// asciiEmail is the part of a folded address by which rows are looked up: what a database makes of other letters depends
// on its collation. It finds all that the owner has, and may find others'.
func (o Owner) asciiEmail() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, o.name)
}

package store

import (
	"strings"
	"unicode"
)

// Owner is who owns an audit, or as whom somebody may own audits. It is comparable; the zero Owner is nobody.
type Owner struct {
	subject string // a user_id
	email   string // folded; of rows without a user_id
}

// Owner says who owns the audit: its user_id, or, where it has none, its user_email. One in which nothing can be seen is none:
// applications write ” where they have nobody, and a blank that names nobody must not be somebody's.
func (a Audit) Owner() Owner {
	if id := deref(a.UserID); !blank(id) {
		return Owner{subject: id}
	}
	if email := deref(a.UserEmail); !blank(email) {
		return Owner{email: foldEmail(email)}
	}
	return Owner{}
}

// blank reports whether a text names nobody: it has no character that can be seen.
func blank(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// Owners are the Owners that the viewer is, two at most. A blank claim is none.
func (v Viewer) Owners() []Owner {
	var owners []Owner
	if !blank(v.Subject) {
		owners = append(owners, Owner{subject: v.Subject})
	}
	if !blank(v.Email) {
		owners = append(owners, Owner{email: foldEmail(v.Email)})
	}
	return owners
}

// asciiEmail is the part of a folded address by which rows are looked up: what a database makes of other letters depends
// on its collation. It finds all that the owner has, and may find others'.
func (o Owner) asciiEmail() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, o.email)
}

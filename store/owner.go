package store

import "strings"

// Owner is who owns an audit, or as whom somebody may own audits. It is comparable; the zero Owner is nobody.
type Owner struct {
	subject string // a user_id
	email   string // folded; of rows without a user_id
}

// Owner says who owns the audit: its user_id, or, where it has none, its user_email.
func (a Audit) Owner() Owner {
	if id := deref(a.UserID); id != "" {
		return Owner{subject: id}
	}
	return Owner{email: foldEmail(deref(a.UserEmail))}
}

// Owners are the one or two Owners that the viewer is.
func (v Viewer) Owners() []Owner {
	var owners []Owner
	if v.Subject != "" {
		owners = append(owners, Owner{subject: v.Subject})
	}
	if v.Email != "" {
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

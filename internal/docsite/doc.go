// Package docsite makes HTML of the documents in docs/.
//
// The rule that keeps it right: a link leads to a page of the site or is shown as text, and nothing is fetched from elsewhere, so that
// dev's content security policy holds for the documents, too.
//
// Who calls what: dev serves [Handler] under /docs/; "make docs" runs the command in write, which writes [Files] to a directory.
//
// Files, in the order in which to read them: site.go (the pages), handler.go, write/main.go.
package docsite

// Package docs is the documents, for those who read them in a browser: see internal/docsite.
package docs

import "embed"

// Files are the pages and their pictures.
//
//go:embed *.md *.svg *.png
var Files embed.FS

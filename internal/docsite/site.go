package docsite

import (
	"bytes"
	_ "embed"
	"fmt"
	"html"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync"

	"auditstream/docs"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

//go:embed site.css
var style []byte

// order is the order of the pages in the navigation. A page that is not in it comes last.
var order = []string{
	"start", "adopt-a-table", "job-queues", "tokens-and-issuers",
	"browser", "react", "terminal", "api", "go-package", "testing",
	"deploy", "configuration", "connection-strings", "proxies", "poolers-and-failover", "redis", "monitoring", "upgrade", "backup-and-migrations",
	"troubleshooting",
	"how-it-works", "decisions", "watch-as-locks", "reliability", "figures", "limits", "contributing",
}

// Files returns the site by file names: a page NAME.html for each NAME.md of docs/, index.html, the pictures and the style. The first call
// makes it.
var Files = sync.OnceValues(func() (map[string][]byte, error) {
	site := map[string][]byte{"site.css": style}
	titles, err := titlesOf(docs.Files)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(docs.Files, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		source, err := fs.ReadFile(docs.Files, entry.Name())
		if err != nil {
			return nil, err
		}
		name, isPage := strings.CutSuffix(entry.Name(), ".md")
		if !isPage {
			site[entry.Name()] = source
			continue
		}
		if site[name+".html"], err = page(name, source, titles); err != nil {
			return nil, fmt.Errorf("docs/%s: %w", entry.Name(), err)
		}
	}
	site["index.html"] = site[order[0]+".html"]
	return site, nil
})

type title struct{ name, text string }

var firstHeading = regexp.MustCompile(`(?m)^# (.+)$`)

// titlesOf returns the pages with their titles, in the navigation's order.
func titlesOf(files fs.FS) (titles []title, err error) {
	names, err := fs.Glob(files, "*.md")
	if err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for _, name := range names {
		left[strings.TrimSuffix(name, ".md")] = true
	}
	for _, name := range append(append([]string(nil), order...), stems(names)...) {
		if !left[name] {
			continue
		}
		delete(left, name)
		source, err := fs.ReadFile(files, name+".md")
		if err != nil {
			return nil, err
		}
		heading := firstHeading.FindSubmatch(source)
		if heading == nil {
			return nil, fmt.Errorf("docs/%s.md has no title: begin it with # TITLE", name)
		}
		titles = append(titles, title{name, string(heading[1])})
	}
	return titles, nil
}

func stems(names []string) (all []string) {
	for _, name := range names {
		all = append(all, strings.TrimSuffix(name, ".md"))
	}
	return all
}

var markdown = goldmark.New(
	goldmark.WithExtensions(extension.Table),
	goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(util.Prioritized(links{}, 100))),
)

func page(name string, source []byte, titles []title) ([]byte, error) {
	var body, nav bytes.Buffer
	if err := markdown.Convert(source, &body, parser.WithContext(parser.NewContext(parser.WithIDs(&anchors{})))); err != nil {
		return nil, err
	}
	heading := ""
	for _, t := range titles {
		current := ""
		if t.name == name {
			heading, current = t.text, ` aria-current="page"`
		}
		fmt.Fprintf(&nav, "<li><a href=\"%s.html\"%s>%s</a></li>\n", t.name, current, html.EscapeString(t.text))
	}
	return fmt.Appendf(nil, `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%s - auditstream</title>
<link rel="stylesheet" href="site.css">
<link rel="icon" href="data:,">
<nav aria-label="Documents"><ul>
%s</ul></nav>
<main>
%s</main>
</html>
`, html.EscapeString(heading), nav.Bytes(), body.Bytes()), nil
}

// anchors makes the anchors of headings as GitHub does: the documents' links use these.
type anchors struct{}

var noAnchor = regexp.MustCompile(`[^\w\- ]`)

func (*anchors) Generate(heading []byte, _ ast.NodeKind) []byte {
	return []byte(strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(string(heading)), ""), " ", "-"))
}

func (*anchors) Put([]byte) {}

// links makes links between documents lead to the site's pages, and replaces links into the repository by their text.
type links struct{}

func (links) Transform(document *ast.Document, _ text.Reader, _ parser.Context) {
	var repository []*ast.Link
	_ = ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		link, ok := n.(*ast.Link)
		if !ok || !entering {
			return ast.WalkContinue, nil
		}
		target, anchor, _ := strings.Cut(string(link.Destination), "#")
		switch stem, isPage := strings.CutSuffix(target, ".md"); {
		case strings.HasPrefix(target, "../"):
			repository = append(repository, link)
		case isPage && path.Base(target) == target:
			link.Destination = []byte(strings.TrimSuffix(stem+".html#"+anchor, "#"))
		}
		return ast.WalkContinue, nil
	})
	for _, link := range repository {
		for child := link.FirstChild(); child != nil; child = link.FirstChild() {
			link.Parent().InsertBefore(link.Parent(), link, child)
		}
		link.Parent().RemoveChild(link.Parent(), link)
	}
}

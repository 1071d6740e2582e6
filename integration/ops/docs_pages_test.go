package ops

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

const (
	mostWords = 1000 // of README, which sells and starts
	mostLines = 250  // of a page, which is about one task
)

func TestDocsAreShort(t *testing.T) {
	t.Parallel()
	if words := len(strings.Fields(harness.Document(t, "README.md"))); words > mostWords {
		t.Errorf("README.md has %d words, want %d at most: move what explains to a page of docs/", words, mostWords)
	}
	for _, page := range append(pages(t), "CONTRIBUTING.md") {
		if lines := strings.Count(harness.Document(t, page), "\n"); lines > mostLines {
			t.Errorf("%s has %d lines, want %d at most: part it by task", page, lines, mostLines)
		}
	}
}

// namingFiles are the files of the repository that may name a document, by their path in it.
func namingFiles(t testing.TB) (all []string) {
	t.Helper()
	kinds := []string{".md", ".txt", ".go", ".js", ".ts", ".sql", ".yml", ".yaml", ".service", ".default", ".conf", ".cfg", ".json"}
	err := filepath.WalkDir(harness.Path("."), func(file string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{"node_modules", ".git", "bin", "dist", ".auditstream", "testdata", "soak"}, name):
			return filepath.SkipDir
		case !entry.IsDir() && (slices.Contains(kinds, filepath.Ext(name)) || slices.Contains([]string{"Makefile", "run", "release"}, name)):
			all = append(all, filepath.ToSlash(strings.TrimPrefix(file, harness.Path(".")+string(filepath.Separator))))
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d texts, error %v", len(all), err)
	}
	return all
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	htmlPicture  = regexp.MustCompile(`<(?:img|source) [^>]*\b(?:src|srcset)="([^"\s]+)"`)
	namedPage    = regexp.MustCompile(`(?:^|[^\w./-])(docs/[\w-]+\.md(?:#[\w-]+)?)`)
	codeSpan     = regexp.MustCompile("`[^`\n]*`")
	heading      = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// Each link of a document, and each page that a comment, a message or a file of deploy/ names, is there, with its heading.
func TestDocsLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	links := 0
	for _, file := range namingFiles(t) {
		text := harness.Document(t, file)
		var targets []string // from the top of the tree
		for _, m := range namedPage.FindAllStringSubmatch(text, -1) {
			targets = append(targets, m[1])
		}
		if strings.HasSuffix(file, ".md") || file == "llms.txt" {
			text = codeSpan.ReplaceAllString(text, "")
			for _, m := range append(markdownLink.FindAllStringSubmatch(text, -1), htmlPicture.FindAllStringSubmatch(text, -1)...) {
				switch {
				case strings.Contains(m[1], "://"):
				case strings.HasPrefix(m[1], "#"):
					targets = append(targets, file+m[1])
				default:
					targets = append(targets, path.Join(path.Dir(file), m[1]))
				}
			}
		}
		for _, target := range targets {
			links++
			harness.Equal(t, lead(target), "", file, "leads to", target)
		}
	}
	if links < 100 {
		t.Errorf("%d links were found", links)
	}
}

// README and llms.txt name every page.
func TestDocsPagesAreFound(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"README.md", "llms.txt"} {
		text := harness.Document(t, index)
		for _, page := range pages(t) {
			if !strings.Contains(text, "("+page+")") {
				t.Errorf("%s does not link to %s", index, page)
			}
		}
	}
}

// lead says what is wrong with a link; nothing, if it leads somewhere.
func lead(target string) string {
	name, anchor, _ := strings.Cut(target, "#")
	text, err := os.ReadFile(harness.Path(filepath.FromSlash(name)))
	if info, statErr := os.Stat(harness.Path(filepath.FromSlash(name))); statErr == nil && info.IsDir() {
		err = nil
	}
	if err != nil {
		return err.Error()
	}
	if anchor != "" && !slices.Contains(anchors(string(text)), anchor) {
		return "no such heading"
	}
	return ""
}

// anchors are what a document's headings are known by.
func anchors(text string) (all []string) {
	fences := regexp.MustCompile("(?ms)^```.*?^```$")
	for _, m := range heading.FindAllStringSubmatch(fences.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(strings.NewReplacer("`", "", "[", "", "]", "").Replace(m[1]))
		name = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(name, "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// What README links to comes with it in archives and packages.
func TestDocsReadmeIsWholeInArchives(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile(`(?m)^  cp -r (README\.md .*) "\$tree"$`).FindStringSubmatch(harness.Document(t, "deploy/release"))
	if m == nil {
		t.Fatal("deploy/release does not copy README.md")
	}
	shipped := strings.Fields(m[1])
	for _, link := range markdownLink.FindAllStringSubmatch(harness.Document(t, "README.md"), -1) {
		first, _, _ := strings.Cut(link[1], "/")
		if !strings.Contains(link[1], "://") && !slices.Contains(shipped, first) {
			t.Errorf("README.md links to %s, which deploy/release does not put into archives (%s)", link[1], m[1])
		}
	}
}

// ofOthers are texts in docs/troubleshooting.md that another program says.
var ofOthers = []string{
	"address already in use", "permission denied for schema auditstream", "cannot drop column", "cannot alter type of a column used by a view",
	"out of shared memory", "canceling statement due to lock timeout", "cannot PREPARE a transaction that has executed",
	"too many connections", "ulimit -n", "make run",
}

// What docs/troubleshooting.md says is seen is what our programs say.
func TestDocsTroubleshootingQuotes(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	for _, file := range namingFiles(t) {
		if !strings.HasSuffix(file, ".md") && !strings.HasSuffix(file, "_test.go") {
			sources.WriteString(harness.Document(t, file))
		}
	}
	said := strings.NewReplacer(`%s`, "", `" +`, "", "\n", " ").Replace(sources.String())
	entries := regexp.MustCompile(`(?m)^\| (.*?) \| .* \|$`).FindAllStringSubmatch(harness.Document(t, "docs/troubleshooting.md"), -1)
	if len(entries) < 30 {
		t.Errorf("%d entries, want at least 30", len(entries))
	}
	for _, entry := range entries {
		for _, quoted := range regexp.MustCompile("`([^`]+ [^`]+)`").FindAllStringSubmatch(entry[1], -1) {
			if !slices.Contains(ofOthers, quoted[1]) && !strings.Contains(said, quoted[1]) {
				t.Errorf("nothing of ours says %q", quoted[1])
			}
		}
	}
}

// The code of docs/go-package.md is that of the package's examples, which are compiled and vetted.
func TestDocsGoPackageIsItsExamples(t *testing.T) {
	t.Parallel()
	indented := regexp.MustCompile(`(?m)^[ \t]+`)
	examples := indented.ReplaceAllString(harness.Document(t, "example_test.go"), "")
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(harness.Document(t, "docs/go-package.md"), -1)
	if len(blocks) < 5 {
		t.Errorf("%d blocks of code, want at least 5", len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(examples, indented.ReplaceAllString(block[1], "")) {
			t.Errorf("no example has this:\n%s", block[1])
		}
	}
}

// docs/api.md names every path that openapi.yaml has, and each status.
func TestDocsAPIIsWhole(t *testing.T) {
	t.Parallel()
	d, err := harness.ReadDescription()
	harness.NoError(t, err)
	page := harness.Document(t, "docs/api.md")
	for _, route := range d.Routes {
		if !strings.Contains(page, route.Template) {
			t.Errorf("docs/api.md does not name %s", route.Template)
		}
		for method, operation := range route.Item.Operations() {
			for status := range operation.Responses.Map() {
				if !strings.Contains(page, status) {
					t.Errorf("docs/api.md does not name the status %s of %s %s", status, method, route.Template)
				}
			}
		}
	}
}

package harness

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// DocBlock is what a document shows as typed or written to a file: lines with a margin of four, or between fences.
type DocBlock struct {
	Document, section, Text string
}

func (b DocBlock) String() string { return fmt.Sprintf("%s, %s:\n%s", b.Document, b.section, b.Text) }

// DocBlocks parts a document at headings and empty lines.
func DocBlocks(t *testing.T, name string) (blocks []DocBlock) {
	t.Helper()
	section, open, fenced := "", false, false
	for line := range strings.Lines(Document(t, name)) {
		fence := strings.HasPrefix(line, "```")
		if fence {
			fenced = !fenced
		}
		if heading, ok := strings.CutPrefix(line, "#"); ok && !fenced {
			section = strings.Trim(heading, "# \n")
		}
		text, indented := strings.CutPrefix(line, "    ")
		if fenced {
			text = line
		}
		if fence || !fenced && !indented {
			open = false
			continue
		}
		if !open {
			blocks, open = append(blocks, DocBlock{Document: name, section: section}), true
		}
		blocks[len(blocks)-1].Text += text
	}
	return blocks
}

var (
	pageSection = regexp.MustCompile(`(?m)^## (.*)\n`)
	pageBlock   = regexp.MustCompile("(?ms)^```(sql|sh)\n(.*?)^```$")
)

// CommandsOf are those of each section of a page.
func CommandsOf(t testing.TB, file string) map[string][]string {
	t.Helper()
	text := Document(t, file)
	all := make(map[string][]string)
	found := pageSection.FindAllStringSubmatchIndex(text, -1)
	for n, at := range found {
		end := len(text)
		if n+1 < len(found) {
			end = found[n+1][0]
		}
		name := text[at[2]:at[3]]
		all[name] = nil
		for _, block := range pageBlock.FindAllStringSubmatch(text[at[1]:end], -1) {
			all[name] = append(all[name], block[1]+"\n"+block[2])
		}
	}
	return all
}

// Fenced is the block of a document that is shown as the file's: between fences, after a line that names it.
func Fenced(t testing.TB, page, file string) string {
	t.Helper()
	_, text, found := strings.Cut(Document(t, page), "`"+file+"`")
	if found {
		_, text, found = strings.Cut(text, "\n```")
	}
	_, text, _ = strings.Cut(text, "\n") // the fence's language
	text, _, closed := strings.Cut(text, "```")
	if !found || !closed {
		t.Fatalf("%s shows no %s between fences", page, file)
	}
	return text
}

// WantList compares two lists, in their order.
func WantList(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Document is a text file of the repository.
func Document(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(Path(name))
	NoError(t, err)
	return string(text)
}

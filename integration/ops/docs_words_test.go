package ops

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"regexp"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// notTheFieldsWords are what users once read, and the words by which they know the thing. Names of options and of identifiers stay.
var notTheFieldsWords = map[*regexp.Regexp]string{
	regexp.MustCompile(`(?i)(?:^|[^-\w])(?:rings? (?:for|nothing|already)|rang)\b`): "notify",
	regexp.MustCompile(`(?i)\b(?:heed|heeds|heeded)\b`):                             "take effect, act on",
	regexp.MustCompile(`(?i)(?:^|[^-\w])beats?\b`):                                  "heartbeat",
	regexp.MustCompile(`(?i)\bheirs?\b`):                                            "child table",
	regexp.MustCompile(`(?i)\b(?:hang-up|hangs up|hung up)\b`):                      "disconnect",
	regexp.MustCompile(`(?i)\bmend(?:s|ed|ing)?\b`):                                 "repair, fix",
	regexp.MustCompile(`is not allowed: `):                                          "what is wrong, with the value, then what is expected",
}

// What users read (errors, logs, help, documents) has the field's words.
func TestDocsWordsAreTheFields(t *testing.T) {
	t.Parallel()
	for _, file := range namingFiles(t) {
		text := harness.Document(t, file)
		switch {
		case strings.HasSuffix(file, "_test.go"):
			continue
		case strings.HasSuffix(file, ".go"):
			text = messages(t, file, text)
		case !strings.HasSuffix(file, ".md") && !strings.HasPrefix(file, "deploy/") && !strings.HasSuffix(file, "openapi.yaml"):
			continue
		}
		for word, better := range notTheFieldsWords {
			if found := word.FindStringIndex(text); found != nil {
				t.Errorf("%s: %q: write %s", file, text[max(found[0]-60, 0):min(found[1]+60, len(text))], better)
			}
		}
	}
}

// messages are the texts of a Go file that have more than one word.
func messages(t testing.TB, file, source string) string {
	t.Helper()
	parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, source, parser.SkipObjectResolution)
	harness.NoError(t, err)
	var all strings.Builder
	ast.Inspect(parsed, func(n ast.Node) bool {
		if text, ok := n.(*ast.BasicLit); ok && text.Kind == gotoken.STRING && strings.Contains(text.Value, " ") {
			all.WriteString(text.Value + "\n")
		}
		return true
	})
	return all.String()
}

package main

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// The package's file of settings names every variable of serve, once, with its default, and sets none.
func TestDefaultFileNamesEveryVariable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/deb/auditstream.default")
	testkit.NoError(t, err)
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		if _, twice := got[m[1]]; twice {
			t.Errorf("%s is named twice", m[1])
		}
		got[m[1]] = m[2]
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") && line != "\n" {
			t.Errorf("not a comment: %s", line)
		}
	}
	if _, want := variables(t); !maps.Equal(got, want) {
		t.Errorf("auditstream.default has\n%v\nserve has\n%v", got, want)
	}
}

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// The manual page says the same as --help about each command. The packages' test checks that man can read it.
func TestManualIsWhole(t *testing.T) {
	t.Parallel()
	page := command(t, "man", "--date=2026-11-25").want(t, exitDone).out
	mustContain(t, page, `.TH AUDITSTREAM 1 "2026-11-25" "auditstream `)
	if again := command(t, "man", "--date=2026-11-25").want(t, exitDone).out; again != page {
		t.Error("the page is another one each time")
	}
	plain := strings.NewReplacer(`\-`, "-", `\fB`, "", `\fR`, "", `\fI`, "").Replace(page)
	sections := regexp.MustCompile(`(?m)^\.SS `).Split(plain, -1)
	commands := []string{"serve", "relay", "dev", "install", "uninstall", "doctor", "token", "watch", "version"}
	for _, name := range commands {
		at := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, name+"\n") })
		if at < 0 {
			t.Errorf("no section %s", name)
			continue
		}
		help := command(t, name, "--help").want(t, exitDone).out
		for _, want := range regexp.MustCompile(`--[a-z0-9-]+|\$[A-Z_]+`).FindAllString(help, -1) {
			if want != "--help" && !strings.Contains(sections[at], strings.TrimPrefix(want, "$")) {
				t.Errorf("section %s does not name %s", name, want)
			}
		}
	}
	if len(sections) != len(commands)+1 {
		t.Errorf("%d sections, want one for each of %v", len(sections)-1, commands)
	}
	mustContain(t, command(t, "--help").want(t, exitDone).out, "Start here", "auditstream dev")
	mustContain(t, command(t, "man", "--date=today").want(t, exitUsage).stderr, "--date=today is no day; give one")
}

func TestRoffIsProtected(t *testing.T) {
	t.Parallel()
	testkit.Equal(t, roff(".x \n'y' \\n -z"), "\\&.x\n\\(aqy\\(aq \\en \\-z", "roff")
}

package main

import (
	"html"
	"net"
	"os"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// docs/run.svg shows what dev says, but for what differs each time: numbers, addresses and tokens.
func TestDevShowIsThatOfItsPicture(t *testing.T) {
	t.Parallel()
	picture, err := os.ReadFile("../../docs/run.svg")
	testkit.NoError(t, err)
	shown := html.UnescapeString(string(picture))
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: devPort}
	show := devShow{secret: strings.Repeat("k", 32), simulation: &simulation{byHand: 1, foreign: 2}, psql: "psql"}
	lines := 0
	for line := range strings.Lines(show.lines("18", ".auditstream", addr, addr)) {
		line = strings.TrimRight(line, "\n")
		if strings.TrimSpace(line) == "" || strings.ContainsAny(line, "/") || strings.HasPrefix(line, "PostgreSQL 18 ") || line == "    psql" {
			continue
		}
		lines++
		if !strings.Contains(shown, ">"+line+"<") {
			t.Errorf("docs/run.svg does not show %q: draw it anew with make pictures", line)
		}
	}
	if lines < 5 {
		t.Errorf("%d lines were compared, want 5 at least", lines)
	}
}

package main

import (
	"maps"
	"strings"
	"testing"
)

func TestParseEnvFile(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"JWT_SECRET": true, "LOG_LEVEL": true, "SSE_UI": true}
	got, err := parseEnvFile("# a\n; b\n\n JWT_SECRET = \"a=b#'c\" \r\nLOG_LEVEL='debug'\nSSE_UI=", known)
	if want := map[string]string{"JWT_SECRET": "a=b#'c", "LOG_LEVEL": "debug", "SSE_UI": ""}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for text, want := range map[string]string{
		"\nsome-secret":                  "line 2 (not shown",
		"some-secret==":                  "line 1 (not shown",
		"export JWT_SECRET=some-secret":  "line 1 (not shown",
		"=some-secret":                   "line 1 (not shown",
		"PGUSER=some-secret":             "line 1: PGUSER is no variable of auditstream serve",
		"SSE_UI=some-secret\nSSE_UI=on":  "line 2: SSE_UI stands there twice",
		"AUDITSTREAM_ENV_FILE=/etc/more": "AUDITSTREAM_ENV_FILE is no variable of auditstream serve",
	} {
		_, err := parseEnvFile(text, known)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "some-secret") {
			t.Errorf("%q: error %v, want %s without the value", text, err, want)
		}
	}
}

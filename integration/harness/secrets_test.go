package harness

import (
	"strings"
	"testing"
)

// A search that finds nothing because it does not work would be no comfort.
func TestSecretsAreFoundWhereTheyAre(t *testing.T) {
	t.Parallel()
	made := AliceToken(t)
	head, payload, signature := CutToken(t, made)
	own := OwnSecrets([]string{"JWT_SECRET=" + JWTSecret, "JWT_SECRET_PREVIOUS=previous-0123456789", "DATABASE_URL=postgres://u:hush-hush@h/d"},
		[]string{"serve", "--database-listen-url=postgres://u:hidden@h/d", "--jwt-secret=flagged-0123456789"})
	for _, bad := range []string{made, head, payload, signature, JWTSecret, "previous-0123456789", "hush-hush", "hidden", "flagged-0123456789"} {
		if len(Leaks(`{"msg":"x","token":"`+bad+`"}`, own)) == 0 {
			t.Errorf("%s is not found", bad)
		}
	}
	if found := Leaks(`{"msg":"stream ended","audit":1,"reason":"client gone","user":"alice"}`, own); len(found) != 0 {
		t.Errorf("found in an ordinary line: %q", found)
	}

	db := NewDatabase(t)
	db.Insert(t, "message, user_email", `E'secret plan\nof <many> lines', 'alice@private.example'`)
	texts := strings.Join(db.rowTexts(t.Context()), "|")
	for _, want := range []string{"secret plan", "alice@private.example", "https://example.com"} {
		if !strings.Contains(texts, want) {
			t.Errorf("row texts %q, want %s", texts, want)
		}
	}
	i := Serve(t, db.Serve)
	if pages := i.Pages(); !strings.Contains(pages, "auditstream_streams_open") || !strings.Contains(pages, "goroutine profile") || !strings.Contains(pages, "heap profile") {
		t.Error("the pages of the admin address were not read")
	}
}

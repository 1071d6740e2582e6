package load

import (
	"io"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// net/http answers a header that is too long before any route is chosen: a whole answer, and then the end, so that the
// sender reads it and not a reset connection.
func TestAPIHeaderSizeIsBounded(t *testing.T) {
	t.Parallel()
	_, i := harness.ServeFirst(t)
	const tooLong = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n431 Request Header Fields Too Large"
	for _, tt := range []struct {
		name, header string
		want         string // the beginning of the answer
	}{
		{"15 kB", "X-Padding: " + strings.Repeat("x", 15<<10), "HTTP/1.1 200 OK\r\n"},
		{"15 kB in a thousand lines", strings.Repeat("X-Padding: x\r\n", 15<<10/14) + "X-End: x", "HTTP/1.1 200 OK\r\n"},
		{"one of 32 kB", "X-Padding: " + strings.Repeat("x", 32<<10), tooLong},
		{"one of 1 MB", "X-Padding: " + strings.Repeat("x", 1<<20), tooLong},
		{"100,000 lines", strings.Repeat("X-Padding: x\r\n", 100_000) + "X-End: x", tooLong},
		{"an endless name", strings.Repeat("x", 1<<20), tooLong},
		{"an Authorization header of 32 kB", "Authorization: Bearer " + strings.Repeat("x", 32<<10), tooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := whole(t, i, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+tt.header+"\r\n\r\n")
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("answer %q, want %q", got[:min(len(got), 300)], tt.want)
			}
		})
	}
	t.Run("a target of 32 kB", func(t *testing.T) {
		got := whole(t, i, "GET /"+strings.Repeat("x", 32<<10)+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		harness.Equal(t, got, tooLong)
	})
	t.Run("the largest token", func(t *testing.T) {
		// base64 makes 4 bytes of 3; beside the padding there are some 200.
		fits := harness.Token(t, jwt.MapClaims{"sub": "alice", "pad": strings.Repeat("x", 5900)})
		tooLarge := harness.Token(t, jwt.MapClaims{"sub": "alice", "pad": strings.Repeat("x", 6100)})
		if len(fits) < 7900 || len(fits) > 8192 || len(tooLarge) < 8193 {
			t.Fatalf("tokens of %d and %d bytes, want them around 8192", len(fits), len(tooLarge))
		}
		i.Watch(t, "1", fits).WantSoFar(t, harness.FirstEvent)
		i.AskAs(t, tooLarge, harness.StreamPath("1")).WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge)
	})
}

// whole sends bytes and returns all that comes back until the server ends the connection.
func whole(t testing.TB, i *harness.Instance, request string) string {
	t.Helper()
	conn := harness.Dial(t, i.URL)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, request) // the server need not take it all
	}()
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		t.Fatalf("no answer: %v", err)
	}
	_ = conn.Close() // ends the writer
	<-sent
	return string(answer)
}

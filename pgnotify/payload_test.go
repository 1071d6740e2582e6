package pgnotify

import (
	"strconv"
	"testing"
)

func TestParseID(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]int64{
		"1": 1, "42": 42, "9223372036854775807": 9223372036854775807,
	} {
		if got, ok := parseID(payload); !ok || got != want {
			t.Errorf("parseID(%q) = %d, %v, want %d", payload, got, ok, want)
		}
	}
	for _, payload := range []string{
		"", "0", "-1", "+1", "01", " 1", "1 ", "1\n", "1_000", "0x10", "1e3", "*", "!x", "٣", "1\x00",
		"9223372036854775808", "18446744073709551616", "10000000000000000000000000", "NaN",
	} {
		if got, ok := parseID(payload); ok {
			t.Errorf("parseID(%q) = %d, want it refused", payload, got)
		}
	}
}

func FuzzPayload(f *testing.F) {
	for _, seed := range []string{"1", "42", "9223372036854775807", "9223372036854775808", "", "0", "-1", "01", "*", "!canary", "1\n", "٣"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		id, ok := parseID(payload)
		if ok && (id < 1 || strconv.FormatInt(id, 10) != payload) {
			t.Errorf("parseID(%q) = %d, want only what PostgreSQL prints", payload, id)
		}
		if n, err := strconv.ParseInt(payload, 10, 64); !ok && err == nil && n > 0 && strconv.FormatInt(n, 10) == payload {
			t.Errorf("parseID(%q) is refused, want %d", payload, n)
		}
	})
}

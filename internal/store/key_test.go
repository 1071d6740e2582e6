package store

import (
	"strconv"
	"strings"
	"testing"
)

// ParseKey accepts only the form that PostgreSQL prints, and refuses anything else. An accepted key keeps its value as an integer, in
// JSON and in Compare.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{
		"1", "42", "9223372036854775807", "", "0", "-1", "+1", "01", " 1", "1 ", "1\n", "1_000", "0x10", "1e3", "*", "!canary", "!x", "#1", "٣", "\x00", "1\x00",
		"9223372036854775808", "18446744073709551616", "10000000000000000000000000", "NaN", strings.Repeat("9", 7999), strings.Repeat("9", 8000), "1,2,3",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, ok := ParseKey(text)
		id, err := strconv.ParseInt(text, 10, 64)
		if want := err == nil && id > 0 && strconv.FormatInt(id, 10) == text; ok != want {
			t.Fatalf("ParseKey(%q) = %q, %v, want %v", text, key, ok, want)
		}
		if !ok {
			return
		}
		printed := IntegerKeys.json(key)
		if string(key) != text || key.Int() != id || key != IntKey(id) || string(printed) != text {
			t.Errorf("ParseKey(%q) = %q, the integer %d, in JSON %s", text, key, key.Int(), printed)
		}
		if key.Compare("1") < 0 || key.Compare(key) != 0 || key.Compare("9223372036854775807") > 0 {
			t.Errorf("%q is out of order", key)
		}
	})
}

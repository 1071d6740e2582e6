package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
)

// Key names a row: the value of its key column in the application's table, as PostgreSQL prints it. Keys are comparable; no row has the
// zero Key.
type Key string

// MaxKey is the length of the longest key, in bytes. Longer ones are refused.
const MaxKey = 255

// KeyType is the type of a feed's keys. The zero value means integers.
type KeyType string

// The types that a key may have.
const (
	IntegerKeys KeyType = "" // smallint, integer or bigint; the values are greater than 0
	UUIDKeys    KeyType = "uuid"
	TextKeys    KeyType = "text"
)

// IntKey returns the Key of a row whose key is an integer.
func IntKey(id int64) Key { return Key(strconv.FormatInt(id, 10)) }

// Parse reads a key from a URL or a notification, and reports whether it is valid. It accepts only the form that PostgreSQL prints, so
// that each row has one URL. The digits of a uuid may be in either case, because many programs write them in capitals.
func (t KeyType) Parse(text string) (Key, bool) {
	switch {
	case text == "" || len(text) > MaxKey:
		return "", false
	case t == UUIDKeys:
		key := strings.ToLower(text)
		_, ok := UUID(Key(key))
		return Key(key), ok
	case t == TextKeys:
		return Key(strings.Clone(text)), utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return "", false
	}
	key := IntKey(id) // a copy: text may be a slice of something long, which it would keep in memory
	return key, string(key) == text
}

// ParseKey reads an integer key. See [KeyType.Parse].
func ParseKey(text string) (Key, bool) { return IntegerKeys.Parse(text) }

// UUID returns the bytes of a uuid in the form that PostgreSQL prints, and reports whether the key is one.
func UUID(key Key) (id [16]byte, ok bool) {
	if len(key) != 36 || key[8] != '-' || key[13] != '-' || key[18] != '-' || key[23] != '-' {
		return id, false
	}
	n := 0
	for i := 0; i < len(key); i++ {
		digit := strings.IndexByte("0123456789abcdef", key[i])
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		if digit < 0 {
			return id, false
		}
		id[n/2] = id[n/2]<<4 | byte(digit)
		n++
	}
	return id, true
}

// Int returns the key as an integer, or 0 when it is not one.
func (k Key) Int() int64 {
	id, err := strconv.ParseInt(string(k), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// ScanInt64 implements [pgtype.Int64Scanner], for the column of an integer key.
func (k *Key) ScanInt64(n pgtype.Int8) error {
	if !n.Valid {
		return errors.New("cannot scan NULL into a key")
	}
	*k = IntKey(n.Int64)
	return nil
}

// json encodes a key: an integer key as a number, any other as a string.
func (t KeyType) json(k Key) json.RawMessage {
	if t == IntegerKeys {
		return json.RawMessage(cmp.Or(k, "null"))
	}
	text, _ := json.Marshal(string(k)) // Marshal never fails for a string
	return text
}

// Compare orders integer keys by value and other keys as texts.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Int(), other.Int()), cmp.Compare(k, other))
}

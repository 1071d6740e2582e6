package store

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Key names a row: its key in the application's table, as PostgreSQL prints it. It is comparable; the zero Key is no row's.
type Key string

// MaxKey is the most bytes that a key has.
const MaxKey = 255

// KeyType is the type of a feed's keys; zero: integers.
type KeyType string

// What keys may be.
const (
	IntegerKeys KeyType = "" // smallint, integer, bigint: greater than 0
	UUIDKeys    KeyType = "uuid"
	TextKeys    KeyType = "text"
)

// IntKey is the Key of a row whose key is an integer.
func IntKey(id int64) Key { return Key(strconv.FormatInt(id, 10)) }

// Parse reads a key as URLs and notifications have it, and reports whether it is one: in the form alone in which PostgreSQL prints it, so that
// each row has one URL. The case of a uuid's digits does not matter, since many programs write it in capitals.
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
	key := IntKey(id) // a copy: text may be a part of something long
	return key, string(key) == text
}

// ParseKey reads an integer, see [KeyType.Parse].
func ParseKey(text string) (Key, bool) { return IntegerKeys.Parse(text) }

// UUID returns the bytes of a key that is a uuid as PostgreSQL prints it.
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

// Int is the integer that the key is; 0: it is none.
func (k Key) Int() int64 {
	id, err := strconv.ParseInt(string(k), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// json is the key in JSON: a number where the table's is.
func (t KeyType) json(k Key) json.RawMessage {
	if t == IntegerKeys {
		return json.RawMessage(cmp.Or(k, "null"))
	}
	text, _ := json.Marshal(string(k)) // a string is always written
	return text
}

// Compare orders keys that are integers by their size, and others as texts.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Int(), other.Int()), cmp.Compare(k, other))
}

package store

import (
	"cmp"
	"encoding/json"
	"strconv"
)

// Key names a row: its key in the application's table, as PostgreSQL prints it. It is comparable; the zero Key is no row's.
type Key string

// MaxKey is the most bytes that a key has.
const MaxKey = 255

// IntKey is the Key of a row whose key is an integer.
func IntKey(id int64) Key { return Key(strconv.FormatInt(id, 10)) }

// ParseKey reads a key as URLs and notifications have it, and reports whether it is one: an integer greater than 0, in
// the decimal form alone in which PostgreSQL prints it, so that each row has one URL.
func ParseKey(text string) (Key, bool) {
	if len(text) > MaxKey {
		return "", false
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return "", false
	}
	key := IntKey(id) // a copy: text may be a part of something long
	return key, string(key) == text
}

// Int is the integer that the key is; 0: it is none.
func (k Key) Int() int64 {
	id, err := strconv.ParseInt(string(k), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// MarshalJSON implements [json.Marshaler]: a key is a number where the table's is.
func (k Key) MarshalJSON() ([]byte, error) { return []byte(cmp.Or(k, "null")), nil }

// Compare orders keys as their table does.
func (k Key) Compare(other Key) int {
	return cmp.Compare(k.Int(), other.Int())
}

// UnmarshalJSON implements [json.Unmarshaler]: it takes what MarshalJSON makes.
func (k *Key) UnmarshalJSON(text []byte) error {
	var number json.Number
	err := json.Unmarshal(text, &number)
	*k = Key(number)
	return err
}

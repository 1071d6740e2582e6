package pgnotify

import "strings"

// The payloads on our channel besides keys, see [store.ParseKey]. Any database role may send any text on it, so anything else is ignored.
const (
	PayloadResync = "*" // TRUNCATE, or a change whose key is not known
	CanaryPrefix  = "!" // a canary of this or another instance
	bucketPrefix  = "#" // a change in a bucket, from triggers written by hand
)

// IsResync reports whether a payload asks for a read of all that is watched.
func IsResync(payload string) bool {
	return payload == PayloadResync || strings.HasPrefix(payload, bucketPrefix)
}

package pgnotify

import "strconv"

// The payloads on our channel besides ids. Any database role may send any text on it, so anything else is ignored.
const (
	PayloadResync = "*" // TRUNCATE, or a change whose key is not known
	CanaryPrefix  = "!" // a canary of this or another instance
)

// ParseID reads the payload that announces a changed row: the decimal id as PostgreSQL prints it, greater than 0.
func ParseID(payload string) (id int64, ok bool) {
	if payload == "" || len(payload) > 19 || payload[0] < '1' || payload[0] > '9' {
		return 0, false
	}
	id, err := strconv.ParseInt(payload, 10, 64)
	return id, err == nil
}

package pgnotify

import "auditstream/store"

// Announcer tells writers what is watched; a Registrar is one. Its methods do not block.
type Announcer interface {
	// Want says that somebody watches a key, also when others do. Whenever its changes begin to be announced, [Hub.Mark] has it
	// read.
	Want(key store.Key)
	// Leave ends one Want.
	Leave(key store.Key)
	// Announced reports whether each change of a key is announced.
	Announced(key store.Key) bool
	// Flood says whether changes are so many that announcing them makes writers wait for each other.
	Flood(flooded bool)
}

// everything is the Announcer of a hub whose triggers ring for everything.
type everything struct{}

func (everything) Want(store.Key)           {}
func (everything) Leave(store.Key)          {}
func (everything) Announced(store.Key) bool { return true }
func (everything) Flood(bool)               {}

package service

// SkipPing is a context key: its holder tolerates a dead connection, so the pool need not ping a connection before it hands it out.
type SkipPing struct{}

package service

// Unproven is the context's key of those who can do with a connection that may be dead: a pool need not ping it for them.
type Unproven struct{}

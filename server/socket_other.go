//go:build !linux

package server

import "syscall"

// controlSocket has nothing to set where TCP_USER_TIMEOUT does not exist; write deadlines find vanished peers later.
func controlSocket(_, _ string, _ syscall.RawConn) error { return nil }

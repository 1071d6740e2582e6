//go:build !darwin && !linux && !openbsd

package connpool

import "syscall"

// tryWritev writes nothing, so that its caller writes everything with Config.Write.
func tryWritev(syscall.RawConn, [][]byte) (int, error) { return 0, nil }

//go:build !linux

package nonblock

import (
	"net"
	"syscall"
)

// Wrap returns conn.
func Wrap(conn net.Conn) net.Conn { return conn }

// Writev writes nothing, so that its caller writes everything through package net.
func Writev(syscall.RawConn, [][]byte) (int, error) { return 0, nil }

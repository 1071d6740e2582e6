//go:build !linux

package server

import "net"

// listenConfig sets nothing: without TCP_USER_TIMEOUT vanished peers are found later, by write deadlines.
func listenConfig() *net.ListenConfig { return new(net.ListenConfig) }

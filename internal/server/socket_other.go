//go:build !linux

package server

import "net"

// listenConfig has nothing to set where TCP_USER_TIMEOUT does not exist; write deadlines find vanished peers later.
func listenConfig() *net.ListenConfig { return new(net.ListenConfig) }

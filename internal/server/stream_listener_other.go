//go:build !linux

package server

import (
	"context"
	"net"
)

// newStreamListener returns inner: net/http serves all requests.
func newStreamListener(_ context.Context, inner net.Listener, _ *Handler, _ func(func() error)) net.Listener {
	return inner
}

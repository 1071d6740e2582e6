package auditstreamtest

import (
	"context"
	"net"
	"sync"

	"auditstream/internal/tcpproxy"
)

// network carries some of the service's connections to the database, and can pause or cut them. The test's own connections do not use it.
// Safe for concurrent use.
type network struct {
	mu      sync.Mutex
	paused  bool
	proxies map[string]*tcpproxy.Proxy // by the target's network and address
}

func newNetwork() *network { return &network{proxies: make(map[string]*tcpproxy.Proxy)} }

// dial is a pgconn.DialFunc that connects through a proxy.
func (n *network) dial(ctx context.Context, kind, addr string) (net.Conn, error) {
	proxy, err := n.proxy(kind, addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", proxy.Addr())
}

func (n *network) proxy(kind, addr string) (*tcpproxy.Proxy, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := kind + " " + addr
	if n.proxies[key] == nil {
		proxy, err := tcpproxy.New(kind, addr)
		if err != nil {
			return nil, err
		}
		if n.paused {
			proxy.Pause()
		}
		n.proxies[key] = proxy
	}
	return n.proxies[key], nil
}

func (n *network) pause(paused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused = paused
	for _, proxy := range n.proxies {
		if paused {
			proxy.Pause()
		} else {
			proxy.Resume()
		}
	}
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, proxy := range n.proxies {
		proxy.DropAll()
	}
}

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, proxy := range n.proxies {
		proxy.Close()
	}
}

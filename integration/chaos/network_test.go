package chaos

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"auditstream/integration/harness"
)

// address is where the client connects to reach an instance. A vanishing one goes through a proxy of its own.
func (c *chaosClient) address(instance int) string {
	addr := c.replicas[instance].addr
	if c.style != styleVanish {
		return addr
	}
	c.proxies[c.proxy].SetTarget(addr)
	return c.proxies[c.proxy].Addr()
}

func (c *chaosClient) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := new(net.Dialer)
	if c.style == styleSlow {
		dialer = harness.SmallBufferDialer()
	}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err == nil {
		c.mu.Lock()
		c.conn = conn
		c.mu.Unlock()
	}
	return conn, err
}

// slowly reads little, and takes its time.
func slowly(ctx context.Context, body io.Reader, r *rand.Rand) io.Reader {
	return harness.ReaderFunc(func(p []byte) (int, error) {
		pause(ctx, between(r, 0, 400*time.Millisecond))
		return body.Read(p[:min(len(p), 2048)])
	})
}

// willVanish lets a vanishing client go after a while, its connection reset or left behind. What it returns ends the
// waiting and says whether that happened.
func (c *chaosClient) willVanish(cancel context.CancelFunc) (vanished func() bool) {
	if c.style != styleVanish {
		return func() bool { return false }
	}
	quiet := c.rand.IntN(2) == 0
	happened := make(chan struct{})
	timer := time.AfterFunc(between(c.rand, time.Second, 6*time.Second), func() {
		defer close(happened)
		if quiet {
			// The proxy passes on nothing more, not even that the client has gone. The other one loses its ghosts.
			c.proxies[c.proxy].Pause()
			cancel()
			c.proxy = 1 - c.proxy
			c.proxies[c.proxy].DropAll()
			c.proxies[c.proxy].Resume()
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if conn, ok := c.conn.(*net.TCPConn); ok {
			_ = conn.SetLinger(0)
			_ = conn.Close()
		}
		cancel()
	})
	return func() bool {
		if timer.Stop() {
			return false
		}
		<-happened
		return true
	}
}

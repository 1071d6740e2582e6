package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// raw opens a stream by hand on a connection with a small receive buffer, for a visit. When ctx is done, reads of it end.
func (a *audience) raw(ctx context.Context, t *testing.T, audit liveAudit, visit func(context.Context, *net.TCPConn) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host := strings.TrimPrefix(a.server.URL, "http://")
	conn, err := harness.SmallBufferDialer().DialContext(ctx, "tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\n\r\n", harness.StreamPath(audit.id), host, bearer(t, audit)); err != nil {
		return err
	}
	return visit(ctx, conn.(*net.TCPConn))
}

func (a *audience) resetConnection(ctx context.Context, t *testing.T) error {
	return a.raw(ctx, t, a.someAudit(ctx), func(ctx context.Context, conn *net.TCPConn) error {
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			return err
		}
		sleep(ctx.Done(), rand.N(2*time.Second))
		return conn.SetLinger(0)
	})
}

func (a *audience) readSlowly(ctx context.Context, t *testing.T) error {
	return a.raw(ctx, t, a.heavyAudit(ctx), func(ctx context.Context, conn *net.TCPConn) error {
		end := time.Now().Add(3*time.Second + rand.N(3*time.Second))
		for piece := make([]byte, 4096); time.Now().Before(end) && sleep(ctx.Done(), 50*time.Millisecond); {
			if _, err := conn.Read(piece); err != nil {
				return nil // too slow: it was cut off
			}
		}
		return nil
	})
}

// doNotRead stays for longer than the server waits for a write.
func (a *audience) doNotRead(ctx context.Context, t *testing.T) error {
	return a.raw(ctx, t, a.heavyAudit(ctx), func(ctx context.Context, _ *net.TCPConn) error {
		sleep(ctx.Done(), 8*time.Second+rand.N(4*time.Second))
		return nil
	})
}

func (a *audience) sendHalfRequest(ctx context.Context, _ *testing.T) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(a.server.URL, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /api/v1/sse/audits/1/progress HTTP/1.1\r\nHost: exam"); err != nil {
		return err
	}
	sleep(ctx.Done(), rand.N(2*time.Second))
	return nil
}

// vanish sends viewers through a network that then loses everything, the news of their leaving too, until it says so
// with a reset, seconds later.
func (a *audience) vanish(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		transport := &http.Transport{DisableKeepAlives: true}
		stay, leave := context.WithCancel(ctx)
		var group sync.WaitGroup
		for range 8 {
			audit := a.someAudit(ctx)
			r := harness.Request(t, stay, "http://"+a.tunnel.Addr()+harness.StreamPath(audit.id), "")
			r.Header.Set("Authorization", bearer(t, audit))
			resp, err := transport.RoundTrip(r)
			if err != nil {
				if ctx.Err() == nil {
					a.problem("%s: %v", visitVanish, err)
				}
				continue
			}
			group.Go(func() {
				_, _ = io.Copy(io.Discard, resp.Body) // until the viewer leaves
				_ = resp.Body.Close()
			})
		}
		a.tunnel.Pause()
		leave()
		group.Wait()
		sleep(ctx.Done(), 2*time.Second+rand.N(2*time.Second))
		a.tunnel.DropAll()
		a.tunnel.Resume()
		if ctx.Err() == nil {
			a.count(visitVanish)
		}
	}
}

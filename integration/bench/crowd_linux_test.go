package bench

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// Clients of one load process: a process may open 20,000 files on many machines, and so may an address have ports.
const clientsAProcess = 10000

// crowd is clients in processes of their own, all connected.
type crowd struct {
	loads   []*loadClient
	clients []int32 // the audit of each
	connect time.Duration
}

// loadClient is a load process, seen from here.
type loadClient struct {
	cmd     *exec.Cmd
	orders  *gob.Encoder
	replies *gob.Decoder
	end     func() error
}

func startLoad(t testing.TB) *loadClient {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadProcess+"=1", "GOGC=400")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	harness.NoError(t, err)
	out, err := cmd.StdoutPipe()
	harness.NoError(t, err)
	harness.NoError(t, cmd.Start())
	l := &loadClient{cmd: cmd, orders: gob.NewEncoder(in), replies: gob.NewDecoder(out)}
	l.end = sync.OnceValue(func() error {
		_ = in.Close() // ends it
		return cmd.Wait()
	})
	t.Cleanup(func() {
		if err := l.end(); err != nil {
			t.Errorf("load process: %v", err)
		}
	})
	return l
}

func (l *loadClient) ask(o order) (reply, error) {
	if err := l.orders.Encode(o); err != nil {
		return reply{}, fmt.Errorf("load process: %w", err)
	}
	var r reply
	if err := l.replies.Decode(&r); err != nil {
		return reply{}, fmt.Errorf("load process: %w", err)
	}
	if r.Fault != "" {
		return r, fmt.Errorf("load: %s", r.Fault)
	}
	return r, nil
}

// gather connects n clients, spread evenly over the first audits, and returns when each has read a first event.
func gather(t testing.TB, s server, n, audits int) *crowd {
	t.Helper()
	c := new(crowd)
	requests := make([][]byte, audits)
	for k := range requests {
		requests[k] = s.request(k)
	}
	for k := range n {
		c.clients = append(c.clients, int32(k%audits))
	}
	var orders []order
	for from := 0; from < n; from += clientsAProcess {
		orders = append(orders, order{Connect: &connectOrder{
			Port: s.port(), Source: [4]byte{127, 0, 0, byte(2 + len(orders))},
			Requests: requests, Clients: c.clients[from:min(from+clientsAProcess, n)],
		}})
		c.loads = append(c.loads, startLoad(t))
	}
	began, whole := int64(0), int64(0)
	for k, r := range c.ask(t, func(k int) order { return orders[k] }) {
		if k == 0 || r.Began < began {
			began = r.Began
		}
		whole = max(whole, r.Whole)
	}
	c.connect = time.Duration(whole - began)
	c.take(t) // first events are no deliveries
	return c
}

// ask gives all load processes an order, at the same time.
func (c *crowd) ask(t testing.TB, o func(k int) order) []reply {
	t.Helper()
	replies, errs := make([]reply, len(c.loads)), make([]error, len(c.loads))
	var wg sync.WaitGroup
	for k, l := range c.loads {
		wg.Go(func() { replies[k], errs[k] = l.ask(o(k)) })
	}
	wg.Wait()
	harness.NoError(t, errors.Join(errs...))
	return replies
}

// take returns what was read since the last time.
func (c *crowd) take(t testing.TB) []sample {
	t.Helper()
	var all []sample
	for _, r := range c.ask(t, func(int) order { return order{Take: true} }) {
		all = append(all, r.Samples...)
	}
	return all
}

const deliveryPatience = 30 * time.Second

// arrived waits until every client has been shown the newest state of its audit.
func (c *crowd) arrived(t testing.TB, a *application) {
	t.Helper()
	var want int64
	for _, audit := range c.clients {
		want += int64(a.newest(int(audit)))
	}
	harness.Again(t, 10*time.Millisecond, func() error { // the load processes announce nothing
		var sum int64
		for _, r := range c.ask(t, func(int) order { return order{} }) {
			sum += r.Sum
		}
		if sum != want {
			return fmt.Errorf("the newest states have not reached all %d clients: %d, want %d", len(c.clients), sum, want)
		}
		return nil
	})
}

// leave ends the clients and their processes.
func (c *crowd) leave(t testing.TB) {
	t.Helper()
	c.ask(t, func(int) order { return order{Leave: true} })
	for _, l := range c.loads {
		if err := l.end(); err != nil {
			t.Fatalf("load process: %v", err)
		}
	}
	c.loads = nil
}

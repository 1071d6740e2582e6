package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

// takenCount returns the number of hijacked connections.
func takenCount(s *Server) int { return s.pool.Len() }

// readTo reads until the text ends with suffix.
func readTo(t *testing.T, conn net.Conn, suffix string) string {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(got), suffix); {
		if _, err := conn.Read(b); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, b...)
	}
	return string(got)
}

// newSlots makes the slots of n streams that open one after the other, with a first state in each.
func newSlots(n int) []*slot {
	slots := make([]*slot, n)
	for k := range slots {
		slots[k] = newSlot(running(1))
	}
	return slots
}

// eachOwn gives every stream a slot of its own.
func eachOwn(slots []*slot) hubFunc {
	var taken atomic.Int64
	return func(ctx context.Context, _ []store.Key, _ store.Viewer, wake func()) (Subscription, error) {
		return slots[taken.Add(1)-1].subscribe(ctx, wake)
	}
}

// countedSlot calls cancelled when its subscription is.
type countedSlot struct {
	*slot
	cancelled func()
}

func (s countedSlot) Cancel() { s.slot.Cancel(); s.cancelled() }

const lastChunk = "\r\n0\r\n\r\n"

func TestTakenConnectionHasTheBytesOfNetHTTP(t *testing.T) {
	t.Parallel()
	list := severalPath + "?ids=42,7"
	seven, sevenEnds := auditOf("7", "alice", "running", 1), auditOf("7", "alice", "failed", 1)
	first, second, last := running(1), running(2), ended("completed")
	for name, tc := range map[string]struct {
		path  string
		begin []*store.State
		end   []*store.State // nil: the timeout
	}{
		"completed": {streamPath, []*store.State{first}, []*store.State{last}},
		"deleted":   {streamPath, []*store.State{first}, []*store.State{{ID: "42"}}},
		"timeout":   {streamPath, []*store.State{first}, nil},
		"a list":    {list, []*store.State{seven, first}, []*store.State{sevenEnds, last}},
	} {
		var answers []string
		for _, off := range []bool{false, true} {
			sub, states := one(slices.Clone(tc.begin)...) // which the server sorts
			s, _ := run(t, sub, func(c *Config) {
				c.NoHijack, c.CORSOrigins = off, []string{"https://app.example.com"}
				c.Heartbeat = 300 * time.Millisecond
				if tc.end == nil {
					c.MaxDuration = 3 * time.Second // until when the rest must have happened
				}
			})
			conn := ask(t, connect(t, s.Addr().String()), tc.path, "Origin: https://app.example.com")
			answer := readTo(t, conn, event(tc.begin[0])+"\r\n")
			if !off && takenCount(s) != 1 {
				t.Fatal("the stream was not taken from net/http")
			}
			states.put(second)
			answer += readTo(t, conn, event(second)+"\r\n")
			answer += readTo(t, conn, heartbeat+"\r\n")
			states.put(tc.end...)
			answer += readTo(t, conn, lastChunk)
			answer = strings.ReplaceAll(answer, "d\r\n"+heartbeat+"\r\n", "") // some may be between the others
			answer = regexp.MustCompile(`Date: [^\r]+ GMT\r\n`).ReplaceAllString(answer, "Date: X\r\n")
			answers = append(answers, regexp.MustCompile(`[0-9a-f]+\r\nretry: \d+\nevent: message\ndata: {"error"`).ReplaceAllString(answer, "N\r\nretry: N\n{"))
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: hijacked\n%q\nnet/http\n%q", name, answers[0], answers[1])
		}
		for _, want := range []string{"Access-Control-Allow-Origin: https://app.example.com\r\n", "Date: X\r\n"} {
			if !strings.Contains(answers[0], want) {
				t.Errorf("%s: %q is missing in %q", name, want, answers[0])
			}
		}
	}
}

func TestWhatIsNotPlainHTTP11StaysWithNetHTTP(t *testing.T) {
	t.Parallel()
	s, _ := run(t, eachOwn(newSlots(3)), nil)
	for _, head := range []string{"HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\n", "HTTP/1.1\r\nContent-Length: 1\r\n"} {
		conn := connect(t, s.Addr().String())
		if _, err := fmt.Fprintf(conn, "GET %s %sHost: x\r\nAuthorization: Bearer %s\r\n\r\n", streamPath, head, aliceToken(t)); err != nil {
			t.Fatal(err)
		}
		if answer := readTo(t, conn, event(running(1))); !strings.Contains(answer, " 200 OK\r\n") || takenCount(s) != 0 {
			t.Errorf("%q: answer %q, %d hijacked, want none", head, answer, takenCount(s))
		}
		_ = conn.Close()
	}
}

// After a stream net/http serves the connection's next request, whether it comes then or came before.
func TestTakenConnectionServesTheNextRequest(t *testing.T) {
	t.Parallel()
	const question = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	sub, states := one(running(1))
	s, stop := run(t, sub, nil)
	for _, early := range []string{"", question, question + question} {
		conn := dial(t, s)
		if _, err := io.WriteString(conn, early); err != nil {
			t.Fatal(err)
		}
		readTo(t, conn, event(running(1))+"\r\n")
		states.put(ended("completed"))
		readTo(t, conn, lastChunk)
		if early == "" {
			testkit.Eventually(t, "the stream rests", func() bool { return s.limit.count() == 0 })
			if got := takenCount(s); got != 1 {
				t.Errorf("%d connections are kept, want 1", got)
			}
		}
		again := bufio.NewReader(conn)
		for range max(1, strings.Count(early, "GET")) {
			if early == "" {
				if _, err := io.WriteString(conn, question); err != nil {
					t.Fatal(err)
				}
			}
			if resp, body := answered(t, again); body != `{"status":"ok"}` || resp.Close {
				t.Errorf("after %q: answer %q, close %v", early, body, resp.Close)
			}
		}
		// And the next stream, on the same connection.
		states.put(running(1))
		ask(t, conn, streamPath)
		resp, err := http.ReadResponse(again, nil)
		testkit.NoError(t, err)
		want := begun + event(running(1))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Errorf("the next stream: %q, %v", got, err)
		}
		states.put(ended("completed"))
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Errorf("the next stream's end: %v", err)
		}
		testkit.Eventually(t, "the stream has ended", func() bool { return s.limit.count() == 0 })
		states.put(running(1)) // for the next
	}
	start := time.Now()
	stop() // with connections that rest
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopped after %v", took)
	}
}

// Nothing is written meanwhile: heartbeats are an hour apart.
func TestDisconnectIsSeenWithoutAWrite(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // heartbeats see it
	}
	for _, how := range []struct {
		name, extra string
		hangUp      func(*net.TCPConn) error
	}{
		{"closed", "", (*net.TCPConn).Close},
		{"half closed", "", (*net.TCPConn).CloseWrite},
		{"reset", "", func(c *net.TCPConn) error { _ = c.SetLinger(0); return c.Close() }},
		{"closed after garbage", "\x00garbage", (*net.TCPConn).Close},
		{"reset after garbage", "\x00garbage", func(c *net.TCPConn) error { _ = c.SetLinger(0); return c.Close() }},
	} {
		sub, _ := one(running(1))
		s, _ := run(t, sub, func(c *Config) { c.Heartbeat = time.Hour })
		conn := dial(t, s)
		if _, err := io.WriteString(conn, how.extra); err != nil {
			t.Fatal(err)
		}
		readTo(t, conn, event(running(1)))
		testkit.NoError(t, how.hangUp(conn.(*net.TCPConn)))
		testkit.Eventually(t, how.name+": the stream has ended", func() bool { return s.limit.count() == 0 && takenCount(s) == 0 })
	}
}

// What a client sends during its stream neither ends it nor is read.
func TestInputDoesNotEndAStream(t *testing.T) {
	t.Parallel()
	sub, states := one(running(1))
	s, _ := run(t, sub, nil)
	conn := dial(t, s)
	readTo(t, conn, event(running(1))+"\r\n")
	for n := range 20 {
		if _, err := io.WriteString(conn, "garbage\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		states.put(running(n + 2))
		readTo(t, conn, event(running(n+2))+"\r\n")
	}
	states.put(ended("completed"))
	readTo(t, conn, lastChunk)
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 Bad Request\r\n") {
		t.Errorf("the garbage is answered %q, %v, want 400", answer, err)
	}
}

// When more sockets are full than there are writers, another client is still served.
func TestFullSocketsHoldUpNobody(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 32<<20) // more than the sockets' buffers hold
	stuckState := store.NewState(store.Row{ID: "42", Status: "running", UserID: text("alice"), Message: &huge})
	stuck := 4 * runtime.GOMAXPROCS(0)
	slots := newSlots(stuck + 1)
	s, stop := run(t, eachOwn(slots), nil)
	var last net.Conn
	for range stuck + 1 {
		last = dial(t, s)
		readTo(t, last, event(running(1))+"\r\n")
	}
	for _, slot := range slots[:stuck] {
		slot.put(stuckState)
	}
	start := time.Now()
	for n := 2; time.Since(start) < writeTimeout/2; n++ {
		slots[stuck].put(running(n))
		readTo(t, last, event(running(n))+"\r\n")
	}
	if got := s.limit.count(); got != stuck+1 {
		t.Errorf("%d streams are left, want %d: this test proves nothing", got, stuck+1)
	}
	testkit.Eventually(t, "those that do not read are cut off", func() bool { return s.limit.count() == 1 })
	stop()
}

// On both kinds of connection: after a panic the answer is left incomplete, so that no client takes it for a whole one.
func TestPanicInAStreamCutsItAlone(t *testing.T) {
	t.Parallel()
	for _, noHijack := range []bool{false, true} {
		log := new(testkit.Log)
		bads := 2 * runtime.GOMAXPROCS(0) // as many as would be all writers, twice
		slots := newSlots(bads + 1)
		s, _ := run(t, eachOwn(slots), func(c *Config) { c.NoHijack, c.Logger = noHijack, log.Logger() })
		for k := range bads {
			bad := dial(t, s)
			readTo(t, bad, event(running(1))+"\r\n")
			slots[k].put(nil) // a mistake
			if rest, err := io.ReadAll(bad); len(rest) > 0 || err != nil {
				t.Errorf("%q, %v; want that the connection is closed", rest, err)
			}
			testkit.Eventually(t, "its subscription is cancelled", func() bool { return slots[k].times("cancel") == 1 })
		}
		good := dial(t, s)
		readTo(t, good, event(running(1))+"\r\n")
		slots[bads].put(ended("completed"))
		readTo(t, good, lastChunk)
		if log.Count("level=ERROR") != bads || !log.Has("nil pointer", "stream.go") {
			t.Errorf("log %q, want each panic once and where it was", log)
		}
		testkit.Eventually(t, "no stream is left", func() bool {
			return s.limit.count() == 0 && strings.Contains(scrape(t, s), `auditstream_streams_open{feed="audits"} 0`)
		})
	}
}

func TestTakenConnectionsCountForTheirAddress(t *testing.T) {
	t.Parallel()
	slots := newSlots(2)
	s, _ := run(t, eachOwn(slots), func(c *Config) { c.MaxConnectionsPerAddress = 2 })
	hasRoom := func() bool { return isServed(t, s.Addr().String()) }
	first := dial(t, s)
	readTo(t, first, event(running(1))+"\r\n")
	second := dial(t, s)
	readTo(t, second, event(running(1))+"\r\n")
	if hasRoom() {
		t.Error("a third connection is served while two streams are open, want it refused")
	}
	_ = first.Close()
	testkit.Eventually(t, "room for another", hasRoom)
	slots[1].put(ended("completed"))
	readTo(t, second, lastChunk)
	_ = second.Close()
	testkit.Eventually(t, "nothing is counted", func() bool {
		s.address.mu.Lock()
		defer s.address.mu.Unlock()
		return len(s.address.open) == 0
	})
}

// It counts goroutines and descriptors, so it is not parallel.
func TestThousandsOfStreamsLeaveNothingBehind(t *testing.T) {
	const rounds, each = 20, 100
	const idleWorkers = 4 // which streamListener may keep, or not yet have after the first round
	var watching atomic.Int64
	s, stop := run(t, hubFunc(func(context.Context, []store.Key, store.Viewer, func()) (Subscription, error) {
		watching.Add(1)
		return countedSlot{newSlot(running(1)), func() { watching.Add(-1) }}, nil
	}), func(c *Config) { c.MaxStreamsPerUser, c.MaxConnectionsPerAddress = 0, 1000 })
	var goroutines, files int
	for round := range rounds {
		var conns []net.Conn
		for range each {
			conns = append(conns, dial(t, s))
		}
		for k, conn := range conns {
			readTo(t, conn, event(running(1)))
			if k%2 == 0 {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
			_ = conn.Close()
		}
		if round == 0 { // all that is kept is there, and perhaps something that is not
			goroutines, files = runtime.NumGoroutine(), openFiles(t)
		}
	}
	testkit.Eventually(t, "no stream is left", func() bool {
		return s.limit.count() == 0 && takenCount(s) == 0 && watching.Load() == 0
	})
	testkit.Eventually(t, "no goroutine, file or address is left", func() bool {
		s.address.mu.Lock()
		defer s.address.mu.Unlock()
		return runtime.NumGoroutine() <= goroutines+idleWorkers && openFiles(t) <= files && len(s.address.open) == 0
	})
	stop()
}

func openFiles(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	entries, err := os.ReadDir("/proc/self/fd")
	testkit.NoError(t, err)
	return len(entries)
}

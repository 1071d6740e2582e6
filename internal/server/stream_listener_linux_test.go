package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"auditstream/internal/testkit"
)

// firstRequests maps heads of requests to whether they are served without net/http.
var firstRequests = map[string]bool{
	"GET /api/v1/sse/a HTTP/1.1\r\nHost: x\r\nPragma: no-cache\n\r\n\r\n":                                                 false,
	"GET /api/v1/sse/a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nPragma: no-cache\r\n\r\n":                                     false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\n\r\n":                                                      true,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x:8080\r\nConnection: Keep-Alive\r\n\r\n":                       true,
	"GET /api/v1/sse/audits/progress?ids=1,2 HTTP/1.1\r\nhost: [::1]:80\r\nAccept: a\r\nAccept: b\r\nCookie: s=é\r\n\r\n": true,
	"GET /api/v1/sse/a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n":                                                                   true,
	"GET /api/v1/sse/ HTTP/1.1\nHost: x\n\r\n\r\n":                                                                        false,
	"GET /api/v1/audits/42/status HTTP/1.1\r\nHost: x\r\n\r\n":                                                            false,
	"HEAD /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\n\r\n":                                                     false,
	"GET http://x/api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\n\r\n":                                              false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\n":                                                          false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n":                     false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.0\r\nHost: x\r\n\r\n":                                                      false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":                                 false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n\r\n":     false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n":                                      false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n":                              false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":                                 false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n":                        false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\n\r\n":                                                                 false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n":                                           false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x y\r\n\r\n":                                                    false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n":                                        false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n":                                            false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n":                                           false,
	"GET /api/v1/sse/%zz HTTP/1.1\r\nHost: x\r\n\r\n":                                                                     false,
	"GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", maxDirectHead) + "\r\n\r\n":     false,
}

func parse(head string) *http.Request {
	return headReaders.Get().(*headReader).parse([]byte(head)[:min(len(head), maxDirectHead)])
}

func TestFirstRequestServedWithoutNetHTTP(t *testing.T) {
	t.Parallel()
	for head, want := range firstRequests {
		if r := parse(head); (r != nil) != want {
			t.Errorf("%q: served without net/http: %v, want %v", head, r != nil, want)
		}
	}
}

// oneListener accepts one connection.
type oneListener struct {
	net.Listener
	conns chan net.Conn
}

func (l oneListener) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, io.EOF
	}
	return conn, nil
}

func (l oneListener) Close() error   { return nil }
func (l oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// asHandled writes down a request as a handler gets it.
func asHandled(r *http.Request) string {
	return fmt.Sprintf("%s %s %v %q %v %v %d %v %v", r.Method, r.RequestURI, *r.URL, r.Host, r.Proto, r.Header, r.ContentLength, r.TransferEncoding, r.Close)
}

// Whatever is served without net/http is what net/http's server would have served.
func FuzzFirstRequestIsNetHTTPs(f *testing.F) {
	for head := range firstRequests {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		r := parse(string(head))
		if r == nil {
			return
		}
		theirs := make(chan string, 1)
		server := &http.Server{MaxHeaderBytes: maxHeader, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { theirs <- asHandled(r) })}
		client, conn := net.Pipe()
		l := oneListener{conns: make(chan net.Conn, 1)}
		l.conns <- conn
		close(l.conns)
		_ = server.Serve(l) // io.EOF
		defer server.Close()
		defer client.Close()
		testkit.NoError(t, client.SetDeadline(time.Now().Add(10*time.Second)))
		_, err := client.Write(head)
		testkit.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(client), r)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Close {
			t.Fatalf("%q: net/http answers %v, %v", head, resp, err)
		}
		if ours, theirs := asHandled(r), <-theirs; ours != theirs {
			t.Errorf("%q: ours\n%s\nnet/http's\n%s", head, ours, theirs)
		}
	})
}

// ofNetHTTP reports whether net/http serves a request.
func ofNetHTTP(r *http.Request) bool { return r.Context().Value(http.ServerContextKey) != nil }

// withHandler runs a server whose API is another handler.
func withHandler(t *testing.T, api http.HandlerFunc) (s *Server, stop func()) {
	t.Helper()
	s = newTestServer(t, hubFunc(nil), func(c *Config) { c.Addr = "127.0.0.1:0" })
	s.api = s.reportPanic(api)
	testkit.NoError(t, s.Listen(t.Context()))
	return s, untilStopped(t, s.Run)
}

const usualRequest = "GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: x\r\n\r\n"

// Answers without net/http are net/http's, and so is the next request.
func TestDirectAnswersAreNetHTTPs(t *testing.T) {
	t.Parallel()
	handlers := map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "3")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "abc")
			_ = http.NewResponseController(w).Flush()
		},
		"final": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"last": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: x\n\n")
		},
	}
	for name, handler := range handlers {
		var direct bool
		s, _ := withHandler(t, func(w http.ResponseWriter, r *http.Request) {
			direct = direct || !ofNetHTTP(r)
			handler(w, r)
		})
		peer := httptest.NewServer(handler)
		t.Cleanup(peer.Close)
		var answers []string
		for _, addr := range []string{s.Addr().String(), peer.Listener.Addr().String()} {
			conn := connect(t, addr)
			in := bufio.NewReader(conn)
			var got strings.Builder
			for range 2 {
				if _, err := io.WriteString(conn, usualRequest); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(in, nil)
				testkit.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				testkit.NoError(t, err)
				if resp.Header.Get("Date") == "" {
					t.Errorf("%s: no Date", name)
				}
				resp.Header.Del("Date")
				fmt.Fprint(&got, resp.Status, resp.Header, string(body), resp.Close, "\n")
				if resp.Close {
					if _, err := in.ReadByte(); err != io.EOF {
						t.Errorf("%s: %v, want that the connection is closed", name, err)
					}
					break
				}
			}
			answers = append(answers, got.String())
		}
		if answers[0] != answers[1] || !direct {
			t.Errorf("%s: ours\n%s\nnet/http's\n%s\nwithout net/http: %v", name, answers[0], answers[1], direct)
		}
	}
}

// A request of which only a part has come is net/http's, with the part.
func TestRequestThatComesInPiecesIsServed(t *testing.T) {
	t.Parallel()
	handedOver := make(chan []byte, 1)
	s, _ := withHandler(t, func(_ http.ResponseWriter, r *http.Request) {
		if !ofNetHTTP(r) {
			t.Error("a request in pieces is served without net/http")
		}
	})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	defer inner.Close()
	client := connect(t, inner.Addr().String())
	conn, err := inner.Accept()
	testkit.NoError(t, err)
	l := newStreamListener(t.Context(), inner, s.Handler, nil).(*streamListener)
	go func() {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		testkit.NoError(t, err)
		_, input := l.firstRequest(conn.(*net.TCPConn), raw)
		handedOver <- input
		s.pool.GiveToHTTP(conn, input)
	}()
	_, err = io.WriteString(client, usualRequest[:20])
	testkit.NoError(t, err)
	if got := <-handedOver; string(got) != usualRequest[:20] {
		t.Errorf("net/http gets %q", got)
	}
	_, err = io.WriteString(client, usualRequest[20:])
	testkit.NoError(t, err)
	if resp, _ := answered(t, client); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// A client that leaves while its request waits ends the wait, and its place is free.
func TestDisconnectEndsAWaitingRequest(t *testing.T) {
	t.Parallel()
	waits, ended := make(chan bool, 1), make(chan error, 1)
	s, _ := withHandler(t, func(_ http.ResponseWriter, r *http.Request) {
		waits <- ofNetHTTP(r)
		<-r.Context().Done()
		ended <- r.Context().Err()
	})
	conn := connect(t, s.Addr().String())
	if _, err := io.WriteString(conn, usualRequest); err != nil {
		t.Fatal(err)
	}
	if <-waits {
		t.Error("net/http serves the request")
	}
	testkit.NoError(t, conn.Close())
	<-ended
	testkit.Eventually(t, "the connection is forgotten", func() bool { return s.pool.Len() == 0 })
}

func TestPanicWithoutNetHTTPCutsItsConnection(t *testing.T) {
	t.Parallel()
	s, _ := withHandler(t, func(http.ResponseWriter, *http.Request) { panic("ours") })
	for range 2 {
		conn := connect(t, s.Addr().String())
		if _, err := io.WriteString(conn, usualRequest); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("answer %q, %v, want none", b, err)
		}
	}
}

// Connections that are silent, whose request waits, or that wait for their next request do not hold up the shutdown.
func TestShutdownOfConnectionsThatWait(t *testing.T) {
	t.Parallel()
	waits := make(chan bool, 1)
	s, stop := withHandler(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "answered") {
			return
		}
		waits <- true
		<-r.Context().Done()
	})
	connect(t, s.Addr().String())
	rests := connect(t, s.Addr().String())
	if _, err := io.WriteString(rests, strings.Replace(usualRequest, "42", "answered", 1)); err != nil {
		t.Fatal(err)
	}
	if resp, _ := answered(t, rests); resp.Close {
		t.Error("the connection is not kept")
	}
	testkit.Eventually(t, "the connection waits for its next request with us, as net/http would close it after headerTimeout", func() bool { return s.pool.Len() == 1 })
	waiting := connect(t, s.Addr().String())
	if _, err := io.WriteString(waiting, usualRequest); err != nil {
		t.Fatal(err)
	}
	<-waits
	began := time.Now()
	stop()
	if took := time.Since(began); took > headerTimeout-2*time.Second {
		t.Errorf("stopped after %v", took)
	}
	if resp, _ := answered(t, waiting); resp.StatusCode != http.StatusOK {
		t.Errorf("the request that waited: %s", resp.Status)
	}
}

// More come at a time than there are idle workers, and each is served.
func TestManyFirstRequestsAtATime(t *testing.T) {
	t.Parallel()
	const many = 10 * maxIdleWorkers
	all := make(chan bool)
	arrived := make(chan bool, many)
	s, _ := withHandler(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- !ofNetHTTP(r)
		<-all
	})
	var conns []net.Conn
	for range many {
		conn := connect(t, s.Addr().String())
		if _, err := io.WriteString(conn, usualRequest); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for range many {
		if !<-arrived {
			t.Fatal("net/http serves a request")
		}
	}
	close(all)
	for _, conn := range conns {
		if resp, _ := answered(t, conn); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
}

func BenchmarkFirstRequest(b *testing.B) {
	head := []byte("GET /api/v1/sse/audits/42/progress HTTP/1.1\r\nHost: example.com\r\nUser-Agent: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer " +
		strings.Repeat("x", 200) + "\r\n\r\n")
	h := headReaders.Get().(*headReader)
	b.ReportAllocs()
	for b.Loop() {
		if h.parse(head) == nil {
			b.Fatal("not a usual request")
		}
	}
}

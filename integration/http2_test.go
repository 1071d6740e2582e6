package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/internal/pgtest"
)

// suiteTLS is the certificate that the instances of tests over HTTP/2 show, and that the suite's clients trust.
var suiteTLS struct {
	env   []string
	roots *x509.CertPool
}

// prepareHTTP2 makes the certificate. It is called before all tests, and what it returns after them.
func prepareHTTP2() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "auditstream-tls-")
	if err != nil {
		return nil, err
	}
	cert, key, roots, err := makeCertificate(dir)
	if err != nil {
		return nil, err
	}
	suiteTLS.env, suiteTLS.roots = []string{"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, roots
	http.DefaultTransport = newTransport()
	return func() { _ = os.RemoveAll(dir) }, nil
}

// secured holds the names of the running tests whose instances serve TLS, and with it HTTP/2.
var secured sync.Map

// overBoth runs a test over HTTP/1.1 and over HTTP/2, in parallel: streams of the one are written to connections that are
// taken from net/http, streams of the other by a handler, and both must keep every promise.
func overBoth(t *testing.T, test func(t *testing.T)) {
	t.Parallel()
	t.Run("HTTP1", func(t *testing.T) {
		t.Parallel()
		test(t)
	})
	t.Run("HTTP2", func(t *testing.T) {
		t.Parallel()
		secured.Store(t.Name(), true)
		t.Cleanup(func() { secured.Delete(t.Name()) })
		test(t)
	})
}

// overHTTP2 says whether a test, or one that it is a part of, runs over HTTP/2.
func overHTTP2(t testing.TB) bool {
	for name := t.Name(); name != ""; {
		if _, ok := secured.Load(name); ok {
			return true
		}
		name = name[:max(0, strings.LastIndexByte(name, '/'))]
	}
	return false
}

// newTransport is a client's. It speaks HTTP/2 to instances that serve TLS, and HTTP/1.1 to the others.
func newTransport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: suiteTLS.roots}, ForceAttemptHTTP2: true}
}

// withTLS adds the suite's certificate to an instance's environment where its test runs over HTTP/2, unless the test asks for one
// of its own, and says with which scheme it is served.
func withTLS(t testing.TB, env []string) (all []string, scheme string) {
	own := slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "TLS_CERT_FILE=") })
	switch {
	case own:
		return env, "https://"
	case overHTTP2(t):
		return append(slices.Clone(env), suiteTLS.env...), "https://"
	default:
		return env, "http://"
	}
}

// wantVersion checks that the suite tests what it says.
func wantVersion(t testing.TB, resp *http.Response) {
	t.Helper()
	if want := map[string]string{"http": "HTTP/1.1", "https": "HTTP/2.0"}[resp.Request.URL.Scheme]; resp.Proto != want {
		t.Errorf("answered in %s, want %s", resp.Proto, want)
	}
}

// unread opens a stream that is never read, until the test ends.
func (i *instance) unread(t testing.TB, id string) {
	t.Helper()
	if !overHTTP2(t) {
		i.rawClient(t, id, "")
		return
	}
	i.unreadOn(t, newTransport(), id)
}

// unreadOn is unread on an HTTP/2 connection: what the stream's window, 4 MB with Go's client, has no room for waits in the
// server, while the connection's other streams go on.
func (i *instance) unreadOn(t testing.TB, transport *http.Transport, id string) *http.Response {
	t.Helper()
	resp, err := transport.RoundTrip(request(t, context.Background(), i.URL+"/api/v1/sse/audits/"+id+"/progress", alice(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = resp.Body.Close()
		transport.CloseIdleConnections()
	})
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Fatalf("%s, status %d, want HTTP/2, 200", resp.Proto, resp.StatusCode)
	}
	return resp
}

// A client that does not read one of its streams loses that one, and not those beside it on the connection.
func TestFaultStuckHTTP2StreamIsCutOffAlone(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	certFile, keyFile, pool := selfSigned(t)
	i := serve(t, db.Serve, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile)
	i.waitLog(t, "listening for notifications")
	ids := db.insertMany(t, 2)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	other := i.viewWith(t, transport, ids[1], alice(t), nil)
	other.reached(t, 0)
	stuck := i.unreadOn(t, transport, ids[0])

	app := pgtest.Connect(t, db.Admin)
	n := 0
	const gone = `auditstream_streams_ended_total{reason="client gone"}`
	again(t, 10*time.Millisecond, func() error {
		n++
		exec1(t, app, `update audits set message = repeat('x', 1000000 + $1) where id = $2`, n, ids[0])
		exec1(t, app, `update audits set total_pages = $1 where id = $2`, n, ids[1])
		other.reached(t, n) // meanwhile, too
		if ended := i.metric(t, gone); ended != 1 {
			return fmt.Errorf("%v streams have ended, want the one that is not read", ended)
		}
		return nil
	})
	if open := i.metric(t, streamsOpen); open != 1 {
		t.Errorf("%v streams are open, want the other one", open)
	}
	if _, err := io.Copy(io.Discard, stuck.Body); err == nil {
		t.Error("the stream that was cut off has ended as if it were whole")
	}
	exec1(t, app, `update audits set total_pages = $1 where id = $2`, n+1, ids[1])
	other.reached(t, n+1)
}

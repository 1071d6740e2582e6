package harness

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
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
	cert, key, roots, err := MakeCertificate(dir)
	if err != nil {
		return nil, err
	}
	suiteTLS.env, suiteTLS.roots = []string{"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, roots
	http.DefaultTransport = NewTransport()
	return func() { _ = os.RemoveAll(dir) }, nil
}

// secured holds the names of the running tests whose instances serve TLS, and with it HTTP/2.
var secured sync.Map

// OverHTTP1And2 runs a test over HTTP/1.1 and over HTTP/2, in parallel: streams of the one are written to connections that are
// taken from net/http, streams of the other by a handler, and both must keep every promise.
func OverHTTP1And2(t *testing.T, test func(t *testing.T)) {
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

// OverHTTP2 says whether a test, or one that it is a part of, runs over HTTP/2.
func OverHTTP2(t testing.TB) bool {
	for name := t.Name(); name != ""; {
		if _, ok := secured.Load(name); ok {
			return true
		}
		name = name[:max(0, strings.LastIndexByte(name, '/'))]
	}
	return false
}

// NewTransport is a client's. It speaks HTTP/2 to instances that serve TLS, and HTTP/1.1 to the others.
func NewTransport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: suiteTLS.roots}, ForceAttemptHTTP2: true}
}

// withTLS adds the suite's certificate to an instance's environment where its test runs over HTTP/2, unless the test asks for one
// of its own, and says with which scheme it is served.
func withTLS(t testing.TB, env []string) (all []string, scheme string) {
	own := slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "TLS_CERT_FILE=") })
	switch {
	case own:
		return env, "https://"
	case OverHTTP2(t):
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

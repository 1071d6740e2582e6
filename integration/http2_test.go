package integration

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// overHTTP2 is set when the suite runs over HTTP/2 (make test-http2): every instance is then served with TLS, unless its test
// asks for a certificate of its own, and every client that is made by newTransport speaks HTTP/2 to it.
var overHTTP2 = os.Getenv("AUDITSTREAM_TEST_HTTP") == "2"

var suiteTLS struct {
	env   []string
	roots *x509.CertPool
}

// prepareHTTP2 makes the certificate. It is called before all tests, and what it returns after them.
func prepareHTTP2() (remove func(), err error) {
	if !overHTTP2 {
		return func() {}, nil
	}
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

// newTransport is a client's, for the version of HTTP that the suite runs over.
func newTransport() *http.Transport {
	if !overHTTP2 {
		return &http.Transport{}
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: suiteTLS.roots}, ForceAttemptHTTP2: true}
}

// withTLS adds the suite's certificate to an instance's environment, and says with which scheme it is served.
func withTLS(env []string) (all []string, scheme string) {
	own := slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "TLS_CERT_FILE=") })
	if own || len(suiteTLS.env) == 0 {
		return env, map[bool]string{false: "http://", true: "https://"}[own]
	}
	return append(slices.Clone(env), suiteTLS.env...), "https://"
}

// wantVersion checks that the suite tests what it says.
func wantVersion(t testing.TB, resp *http.Response) {
	t.Helper()
	if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[overHTTP2]; resp.Proto != want {
		t.Errorf("answered in %s, want %s", resp.Proto, want)
	}
}

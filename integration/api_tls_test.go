package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// selfSigned makes a certificate for 127.0.0.1 and returns its files and a pool that trusts it.
func selfSigned(t testing.TB) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	certFile, keyFile, pool, err := makeCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, pool
}

func makeCertificate(dir string) (certFile, keyFile string, pool *x509.CertPool, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "auditstream test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", nil, err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, text := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", "", nil, err
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool, nil
}

// The silence is longer than the deadline of a write, 5 s: on HTTP/2 one that passes would reset the stream.
func TestPitfall08IdleHTTP2StreamOutlivesTheWriteDeadline(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	certFile, keyFile, pool := selfSigned(t)
	i := serve(t, db.Serve, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile, "SSE_HEARTBEAT_SECONDS=6")
	h1 := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}}
	h2 := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(h2.CloseIdleConnections)
	eventually(t, func() error {
		resp, err := (&http.Client{Transport: recorded{RoundTripper: h2}}).Get(i.URL + "/readyz")
		if err != nil {
			return err
		}
		if got, want := readAll(t, resp.Body), `{"status":"ready","database":"up","listener":"up"}`; got != want {
			return fmt.Errorf("/readyz: %s, want %s", got, want)
		}
		return nil
	})

	streams := []*stream{i.openOn(t, h1, streamPath("1"), alice(t))}
	for range 8 { // on one connection, where browsers allow six of HTTP/1.1
		streams = append(streams, i.openOn(t, h2, streamPath("1"), alice(t)))
	}
	for k, s := range streams {
		wantProto := "HTTP/2.0"
		if k == 0 {
			wantProto = "HTTP/1.1"
		}
		if s.Response.Proto != wantProto || s.Response.StatusCode != 200 {
			t.Errorf("stream %d: %s, status %d, want %s, 200", k, s.Response.Proto, s.Response.StatusCode, wantProto)
		}
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"} {
			if got := s.Response.Header.Get(name); got != want {
				t.Errorf("stream %d: %s: %s, want %s", k, name, got, want)
			}
		}
		s.next(t)
		s.wantSoFar(t, firstEventEvery(6))
	}
	for _, s := range streams {
		s.wantSoFar(t, firstEventEvery(6)+": heartbeat\n\n")
	}
	db.sql(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	for _, s := range streams {
		s.wantWhole(t, firstEventEvery(6)+": heartbeat\n\nevent: message\nid: 95922ea8e7dc0642\n"+
			"data: {\"audit_id\":1,\"status\":\"completed\",\"progress\":100,\"geo_score\":78.5}\n\n")
	}

	// Who speaks HTTP to it gets no stream.
	conn, err := net.Dial("tcp", i.URL[len("https://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.0 400" {
		t.Errorf("HTTP without TLS: %q, %v, want HTTP/1.0 400", answer, err)
	}
}

package harness

import (
	"crypto/x509"
	"testing"

	"auditstream/internal/testkit"
)

// SelfSigned makes a certificate for 127.0.0.1 and returns its files and a pool that trusts it.
func SelfSigned(t testing.TB) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	return testkit.Certificate(t)
}

// MakeCertificate writes a certificate for 127.0.0.1 and its key to a folder, and returns who trusts it.
func MakeCertificate(dir string) (certFile, keyFile string, pool *x509.CertPool, err error) {
	return testkit.MakeCertificate(dir)
}

// NewCertificate makes a folder with a certificate for 127.0.0.1 in it.
func NewCertificate(t testing.TB) (dir, cert, key string, roots *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	cert, key, roots, err := MakeCertificate(dir)
	NoError(t, err)
	return dir, cert, key, roots
}

package server

import (
	"context"
	"crypto/tls"
	"fmt"
)

// Reload replaces the secrets, and reads the certificate's files and the signing keys again. If a secret or the certificate is empty or
// invalid, it returns the reason and changes nothing. Open streams go on until their token's exp. Reload waits up to 10 s for the issuer of
// the keys; if the issuer does not answer, that is logged and no error, and the known keys stay. Safe for concurrent use with Run, not with
// itself.
func (s *Server) Reload(ctx context.Context, secret, previousSecret string) error {
	var certificate *tls.Certificate
	if s.cfg.CertFile != "" {
		var err error
		if certificate, err = loadCertificate(s.cfg.CertFile, s.cfg.KeyFile); err != nil {
			return err
		}
	}
	if err := s.verifier.reload(secret, previousSecret); err != nil {
		return err
	}
	if certificate != nil {
		s.certificate.Store(certificate)
	}
	s.verifier.refresh(ctx) // last, because after it nothing can fail
	return nil
}

func loadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE %q and TLS_KEY_FILE %q: no certificate with its key; give the names of two PEM files: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

package server

import (
	"context"
	"crypto/tls"
	"fmt"
)

// Reload takes over other secrets and reads the certificate's files and the signing keys anew; what is empty or invalid is
// refused with the reason, and all stays as it was. Streams that are open go on until their token's exp. It may wait for the
// issuer of the keys for up to 10 s; that it did not answer is in the log, and no error: the known keys stay.
// Safe for concurrent use with Run, not with itself.
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
	s.verifier.refresh(ctx) // last: from here on nothing is refused any more
	return nil
}

func loadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE %q and TLS_KEY_FILE %q: no certificate with its key; give the names of two PEM files: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

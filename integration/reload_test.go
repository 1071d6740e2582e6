package integration

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signedWith is a token of alice's.
func signedWith(t testing.TB, key string) string {
	t.Helper()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return remember(signed)
}

// reload sends SIGHUP with new settings in the file and waits until the log has one more record with the message.
func (i *instance) reload(t testing.TB, file, message string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	before := strings.Count(i.log.String(), message)
	i.signal(t, syscall.SIGHUP)
	eventually(t, func() error {
		if strings.Count(i.log.String(), message) == before {
			return fmt.Errorf("SIGHUP has not led to a record with %s", message)
		}
		return nil
	})
}

const (
	reloaded    = `"msg":"reloaded","changed":`
	notReloaded = `"msg":"not reloaded, all stays as it was"`
)

func TestReloadTakesOverSecretsAndLogLevel(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	first, second := strings.Repeat("first-key-", 4), strings.Repeat("second-key-", 4)
	file := filepath.Join(t.TempDir(), "auditstream.env")
	if err := os.WriteFile(file, []byte("# what the process has in its environment counts less\nJWT_SECRET='"+first+"'\nLOG_LEVEL=info\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := serve(t, db.Serve, "--env-file="+file)
	i.waitReady(t, "up")
	wantStatus := func(token string, want int) {
		t.Helper()
		for range 2 { // a second time it may be remembered
			if got := i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+token); got.Status != want {
				t.Errorf("status %d %s, want %d", got.Status, got.Body, want)
			}
		}
	}
	wantStatus(signedWith(t, first), 200)
	wantStatus(signedWith(t, second), 401)
	wantStatus(alice(t), 401) // JWT_SECRET of the environment
	if strings.Contains(i.log.String(), `"request refused"`) {
		t.Error("refusals are logged at the level info")
	}
	open := i.watch(t, "1", signedWith(t, first))
	open.next(t)

	i.reload(t, file, reloaded+`["JWT_SECRET","JWT_SECRET_PREVIOUS"]`, "JWT_SECRET="+second, "JWT_SECRET_PREVIOUS="+first, "LOG_LEVEL=info")
	wantStatus(signedWith(t, first), 200)
	wantStatus(signedWith(t, second), 200)

	i.reload(t, file, reloaded+`["JWT_SECRET_PREVIOUS","LOG_LEVEL"]`, "JWT_SECRET="+second, "LOG_LEVEL=debug", "SSE_RETRY_MS=77")
	wantStatus(signedWith(t, first), 401)
	wantStatus(signedWith(t, second), 200)
	if got := i.waitLog(t, "changed as well, which takes a restart")["variables"]; fmt.Sprint(got) != "[SSE_RETRY_MS]" {
		t.Errorf("takes a restart: %v, want SSE_RETRY_MS", got)
	}
	refused := 0
	// stillDebug waits for the lines of the two refusals of before: the log is a pipe, and later than the answers.
	stillDebug := func(when string) {
		t.Helper()
		refused += 2
		eventually(t, func() error {
			if got := strings.Count(i.log.String(), `"request refused"`); got != refused {
				return fmt.Errorf("%s the log has %d refusals, want %d: the level is debug", when, got, refused)
			}
			return nil
		})
	}
	stillDebug("after a reload")
	db.sql(t, "update audits set progress = 26")
	open.wantEvent(t, `{"audit_id":1,"status":"running","progress":26,"message":"Analyzing pages..."}`) // until its exp

	for _, lines := range [][]string{
		{"JWT_SECRET=a-short-key-nobody-sees", "LOG_LEVEL=info"}, {"LOG_LEVEL=loud"}, {"nobody-sees-this-line"}, {"JWT_SECRETS=" + first}, {"JWT_SECRET=" + first, "JWT_SECRET=" + second},
	} {
		i.reload(t, file, notReloaded, lines...)
		wantStatus(signedWith(t, second), 200)
		wantStatus(signedWith(t, first), 401)
		stillDebug(fmt.Sprintf("after a reload that was refused (%.15q)", lines[0]))
	}
	for _, private := range []string{"nobody-sees", first, second} {
		if strings.Contains(i.log.String(), private) {
			t.Errorf("the log has %q", private)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	before := strings.Count(i.log.String(), notReloaded)
	i.signal(t, syscall.SIGHUP)
	eventually(t, func() error {
		if strings.Count(i.log.String(), notReloaded) == before {
			return fmt.Errorf("a file that is gone is not refused")
		}
		return nil
	})
	wantStatus(signedWith(t, second), 200)
}

// What is valid of a reload that is refused is not taken over either.
func TestReloadTakesOverAllOrNothing(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	dir := t.TempDir()
	cert, keyFile, _, err := makeCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "auditstream.env")
	if err := os.WriteFile(file, []byte("LOG_LEVEL=info"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := serve(t, db.Serve, "--env-file="+file, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+keyFile)
	before := i.certificate(t)
	if _, _, _, err := makeCertificate(dir); err != nil {
		t.Fatal(err)
	}
	i.reload(t, file, notReloaded, "JWT_SECRET=short")
	if !slices.Equal(i.certificate(t), before) {
		t.Error("the new certificate is shown after a reload that was refused")
	}
	i.reload(t, file, reloaded, "LOG_LEVEL=info")
	if slices.Equal(i.certificate(t), before) {
		t.Error("the old certificate is shown after a reload")
	}
}

// certificate is the one shown to clients.
func (i *instance) certificate(t testing.TB) []byte {
	t.Helper()
	_, address, _ := strings.Cut(i.URL, "://")
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // which one it is, is the question
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("protocol %q, want h2", got)
	}
	return conn.ConnectionState().PeerCertificates[0].Raw
}

// Without a file SIGHUP fetches the keys, reads the certificate, and ends nothing.
func TestReloadFetchesKeysAndReadsTheCertificate(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	_, key := rsaKey(t, "one")
	iss := newIssuer(t, key)
	dir := t.TempDir()
	cert, keyFile, _, err := makeCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	i := serve(t, db.Serve, append(iss.env(), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+keyFile)...)
	before, asked := i.certificate(t), iss.asked()
	if _, _, _, err := makeCertificate(dir); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(i.certificate(t), before) {
		t.Error("another certificate is shown without SIGHUP")
	}
	i.signal(t, syscall.SIGHUP)
	i.waitLog(t, "reloaded")
	if slices.Equal(i.certificate(t), before) {
		t.Error("the old certificate is shown after SIGHUP")
	}
	if iss.asked() <= asked {
		t.Error("the keys were not fetched")
	}

	if err := os.WriteFile(cert, []byte("half a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	i.signal(t, syscall.SIGHUP)
	i.waitLog(t, "not reloaded, all stays as it was")
	if slices.Equal(i.certificate(t), before) {
		t.Error("the first certificate is back after half a one")
	}
}

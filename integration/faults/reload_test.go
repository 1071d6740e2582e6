package faults

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"auditstream/integration/harness"
)

// reload sends SIGHUP with new settings in the file and waits until the log has one more record with the message.
func reload(t testing.TB, i *harness.Instance, file, message string, lines ...string) {
	t.Helper()
	harness.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	hangUp(t, i, message)
}

// hangUp is reload with the file as it is.
func hangUp(t testing.TB, i *harness.Instance, message string) {
	t.Helper()
	before := strings.Count(i.Log.String(), message)
	i.Signal(t, syscall.SIGHUP)
	harness.Eventually(t, func() error {
		if strings.Count(i.Log.String(), message) == before {
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
	db := harness.NewFirstAuditDatabase(t)
	first, second := strings.Repeat("first-key-", 4), strings.Repeat("second-key-", 4)
	file := filepath.Join(t.TempDir(), "auditstream.env")
	harness.NoError(t, os.WriteFile(file, []byte("# what the process has in its environment counts less\nJWT_SECRET='"+first+"'\nLOG_LEVEL=info\n"), 0o600))
	i := harness.ServeReady(t, db.Serve, "--env-file="+file)
	wantStatus := func(token string, want int) {
		t.Helper()
		for range 2 { // a second time it may be remembered
			i.AskAs(t, token, harness.StatusPath("1")).WantStatus(t, want)
		}
	}
	wantStatus(harness.AliceTokenOf(t, first), 200)
	wantStatus(harness.AliceTokenOf(t, second), 401)
	wantStatus(harness.AliceToken(t), 401) // JWT_SECRET of the environment
	harness.WantNoneIn(t, i.Log.String(), `"request refused"`)
	open := i.Shown(t, "1", harness.AliceTokenOf(t, first))

	reload(t, i, file, reloaded+`["JWT_SECRET","JWT_SECRET_PREVIOUS"]`, "JWT_SECRET="+second, "JWT_SECRET_PREVIOUS="+first, "LOG_LEVEL=info")
	wantStatus(harness.AliceTokenOf(t, first), 200)
	wantStatus(harness.AliceTokenOf(t, second), 200)

	reload(t, i, file, reloaded+`["JWT_SECRET_PREVIOUS","LOG_LEVEL"]`, "JWT_SECRET="+second, "LOG_LEVEL=debug", "SSE_RETRY_MS=77")
	wantStatus(harness.AliceTokenOf(t, first), 401)
	wantStatus(harness.AliceTokenOf(t, second), 200)
	if got := i.WaitLog(t, "changed as well, which takes a restart")["variables"]; fmt.Sprint(got) != "[SSE_RETRY_MS]" {
		t.Errorf("takes a restart: %v, want SSE_RETRY_MS", got)
	}
	refused := 0
	// stillDebug waits for the lines of the two refusals of before: the log is a pipe, and later than the answers.
	stillDebug := func(when string) {
		t.Helper()
		refused += 2
		harness.Becomes(t, func() int { return strings.Count(i.Log.String(), `"request refused"`) }, refused, "refusals in the log", when)
	}
	stillDebug("after a reload")
	db.SQL(t, "update audits set progress = 26")
	open.WantEvent(t, `{"audit_id":1,"status":"running","progress":26,"message":"Analyzing pages..."}`) // until its exp

	for _, lines := range [][]string{
		{"JWT_SECRET=a-short-key-nobody-sees", "LOG_LEVEL=info"}, {"LOG_LEVEL=loud"}, {"nobody-sees-this-line"}, {"JWT_SECRETS=" + first}, {"JWT_SECRET=" + first, "JWT_SECRET=" + second},
	} {
		reload(t, i, file, notReloaded, lines...)
		wantStatus(harness.AliceTokenOf(t, second), 200)
		wantStatus(harness.AliceTokenOf(t, first), 401)
		stillDebug(fmt.Sprintf("after a reload that was refused (%.15q)", lines[0]))
	}
	harness.WantNoneIn(t, i.Log.String(), "nobody-sees", first, second)
	harness.NoError(t, os.Remove(file))
	hangUp(t, i, notReloaded)
	wantStatus(harness.AliceTokenOf(t, second), 200)
}

// What is valid of a reload that is refused is not taken over either.
func TestReloadTakesOverAllOrNothing(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	dir := t.TempDir()
	cert, keyFile, _, err := harness.MakeCertificate(dir)
	harness.NoError(t, err)
	file := filepath.Join(dir, "auditstream.env")
	harness.NoError(t, os.WriteFile(file, []byte("LOG_LEVEL=info"), 0o600))
	i := harness.Serve(t, db.Serve, "--env-file="+file, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+keyFile)
	before := certificate(t, i)
	if _, _, _, err := harness.MakeCertificate(dir); err != nil {
		t.Fatal(err)
	}
	reload(t, i, file, notReloaded, "JWT_SECRET=short")
	if !slices.Equal(certificate(t, i), before) {
		t.Error("the new certificate is shown after a reload that was refused")
	}
	reload(t, i, file, reloaded, "LOG_LEVEL=info")
	if slices.Equal(certificate(t, i), before) {
		t.Error("the old certificate is shown after a reload")
	}
}

// certificate is the one shown to clients.
func certificate(t testing.TB, i *harness.Instance) []byte {
	t.Helper()
	_, address, _ := strings.Cut(i.URL, "://")
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // which one it is, is the question
	harness.NoError(t, err)
	defer conn.Close()
	harness.Equal(t, conn.ConnectionState().NegotiatedProtocol, "h2", "protocol")
	return conn.ConnectionState().PeerCertificates[0].Raw
}

// Without a file SIGHUP fetches the keys, reads the certificate, and ends nothing.
func TestReloadFetchesKeysAndReadsTheCertificate(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	_, key := harness.RSAKey(t, "one")
	iss := harness.NewIssuer(t, key)
	dir := t.TempDir()
	cert, keyFile, _, err := harness.MakeCertificate(dir)
	harness.NoError(t, err)
	i := harness.Serve(t, db.Serve, append(iss.Env(), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+keyFile)...)
	before, asked := certificate(t, i), iss.Asked()
	if _, _, _, err := harness.MakeCertificate(dir); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(certificate(t, i), before) {
		t.Error("another certificate is shown without SIGHUP")
	}
	i.Signal(t, syscall.SIGHUP)
	i.WaitLog(t, "reloaded")
	if slices.Equal(certificate(t, i), before) {
		t.Error("the old certificate is shown after SIGHUP")
	}
	if iss.Asked() <= asked {
		t.Error("the keys were not fetched")
	}

	harness.NoError(t, os.WriteFile(cert, []byte("half a certificate"), 0o600))
	i.Signal(t, syscall.SIGHUP)
	i.WaitLog(t, "not reloaded, all stays as it was")
	if slices.Equal(certificate(t, i), before) {
		t.Error("the first certificate is back after half a one")
	}
}

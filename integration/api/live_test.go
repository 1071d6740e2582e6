package api

import (
	"net/url"
	"strings"
	"syscall"
	"testing"

	"auditstream/integration/harness"
)

// The health check says that serve lives, over TLS too and without its database, until it has ended.
func TestAPICommandDoctorLive(t *testing.T) {
	t.Parallel()
	certFile, keyFile, _ := harness.SelfSigned(t)
	for name, tls := range map[string][]string{"plain": nil, "TLS": {"TLS_CERT_FILE=" + certFile, "TLS_KEY_FILE=" + keyFile}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := harness.Serve(t, strings.TrimPrefix(nowhere, "DATABASE_URL="), tls...)
			address, err := url.Parse(i.URL)
			harness.NoError(t, err)
			env := append([]string{"HTTP_ADDR=" + address.Host}, tls...)
			if out := harness.RunCommand(t, env, "doctor", "--live"); !strings.Contains(out, "serve lives: ") {
				t.Errorf("doctor --live: %s", out)
			}
			i.Signal(t, syscall.SIGTERM)
			i.End(t)
			code, stdout, stderr := harness.TryCommand(t, env, "doctor", "--live")
			if code != 1 || stdout != "" || !strings.Contains(stderr, "no healthy serve at ") {
				t.Errorf("doctor --live of none: exit status %d\n%s%s", code, stdout, stderr)
			}
		})
	}
}

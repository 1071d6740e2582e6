package faults

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// unread opens a stream that is never read, until the test ends.
func unread(t testing.TB, i *harness.Instance, id string) {
	t.Helper()
	if !harness.OverHTTP2(t) {
		i.RawClient(t, id, "")
		return
	}
	unreadOn(t, i, harness.NewTransport(), id)
}

// unreadOn is unread on an HTTP/2 connection: what the stream's window, 4 MB with Go's client, has no room for waits in the
// server, while the connection's other streams go on.
func unreadOn(t testing.TB, i *harness.Instance, transport *http.Transport, id string) *http.Response {
	t.Helper()
	resp, err := transport.RoundTrip(harness.Request(t, context.Background(), i.URL+"/api/v1/sse/audits/"+id+"/progress", harness.AliceToken(t)))
	harness.NoError(t, err)
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
	db := harness.NewDatabase(t)
	certFile, keyFile, pool := harness.SelfSigned(t)
	i := harness.Serve(t, db.Serve, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile)
	i.WaitLog(t, "listening for notifications")
	ids := db.InsertMany(t, 2)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	other := i.ViewWith(t, transport, ids[1], harness.AliceToken(t), nil)
	other.Reached(t, 0)
	stuck := unreadOn(t, i, transport, ids[0])

	app := pgtest.Connect(t, db.Admin)
	n := 0
	const gone = `auditstream_streams_ended_total{reason="client gone"}`
	harness.Again(t, 10*time.Millisecond, func() error {
		n++
		harness.Exec(t, app, `update audits set message = repeat('x', 1000000 + $1) where id = $2`, n, ids[0])
		harness.Exec(t, app, `update audits set total_pages = $1 where id = $2`, n, ids[1])
		other.Reached(t, n) // meanwhile, too
		if ended := i.Metric(t, gone); ended != 1 {
			return fmt.Errorf("%v streams have ended, want the one that is not read", ended)
		}
		return nil
	})
	i.WantMetric(t, harness.StreamsOpen, 1)
	if _, err := io.Copy(io.Discard, stuck.Body); err == nil {
		t.Error("the stream that was cut off has ended as if it were whole")
	}
	harness.Exec(t, app, `update audits set total_pages = $1 where id = $2`, n+1, ids[1])
	other.Reached(t, n+1)
}

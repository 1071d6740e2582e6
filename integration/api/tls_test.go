package api

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"testing"

	"auditstream/integration/harness"
)

// The silence is longer than the deadline of a write, 5 s: on HTTP/2 one that passes would reset the stream.
func TestPitfall08IdleHTTP2StreamOutlivesTheWriteDeadline(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	certFile, keyFile, pool := harness.SelfSigned(t)
	i := harness.Serve(t, db.Serve, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile, "SSE_HEARTBEAT_SECONDS=6")
	h1 := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}}
	h2 := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(h2.CloseIdleConnections)
	harness.Eventually(t, func() error {
		resp, err := (&http.Client{Transport: harness.Recorded{RoundTripper: h2}}).Get(i.URL + "/readyz")
		if err != nil {
			return err
		}
		if got, want := harness.ReadAll(t, resp.Body), `{"status":"ready","database":"up","listener":"up"}`; got != want {
			return fmt.Errorf("/readyz: %s, want %s", got, want)
		}
		return nil
	})

	streams := []*harness.Stream{i.OpenOn(t, h1, harness.StreamPath("1"), harness.AliceToken(t))}
	for range 8 { // on one connection, where browsers allow six of HTTP/1.1
		streams = append(streams, i.OpenOn(t, h2, harness.StreamPath("1"), harness.AliceToken(t)))
	}
	for k, s := range streams {
		wantProto := "HTTP/2.0"
		if k == 0 {
			wantProto = "HTTP/1.1"
		}
		if s.Response.Proto != wantProto || s.Response.StatusCode != 200 {
			t.Errorf("stream %d: %s, status %d, want %s, 200", k, s.Response.Proto, s.Response.StatusCode, wantProto)
		}
		harness.WantHeaders(t, s.Response.Header, map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"})
		s.Next(t)
		s.WantSoFar(t, firstEventEvery(6))
	}
	for _, s := range streams {
		s.WantSoFar(t, firstEventEvery(6)+": heartbeat\n\n")
	}
	db.SQL(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	for _, s := range streams {
		s.WantWhole(t, firstEventEvery(6)+": heartbeat\n\nevent: message\nid: 95922ea8e7dc0642\n"+
			"data: {\"audit_id\":1,\"status\":\"completed\",\"progress\":100,\"geo_score\":78.5}\n\n")
	}

	// Who speaks HTTP to it gets no stream.
	conn := harness.Dial(t, i.URL)
	_, err := conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	harness.NoError(t, err)
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.0 400" {
		t.Errorf("HTTP without TLS: %q, %v, want HTTP/1.0 400", answer, err)
	}
}

package faults

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

func TestPitfall09SIGTERMWithOpenStreamsExitsInTime(t *testing.T) {
	harness.OverHTTP1And2(t, testPitfall09SIGTERMWithOpenStreamsExitsInTime)
}

func testPitfall09SIGTERMWithOpenStreamsExitsInTime(t *testing.T) {
	testGoodbye(t, syscall.SIGTERM, 200)
}

func TestFaultSIGINTSendsEverybodyAway(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultSIGINTSendsEverybodyAway)
}

func testFaultSIGINTSendsEverybodyAway(t *testing.T) {
	testGoodbye(t, os.Interrupt, 20)
}

var goodbye = regexp.MustCompile(`\n\nretry: ([0-9]+)\n\n$`)

func testGoodbye(t *testing.T, sig os.Signal, streams int) {
	db, i := harness.ServeNew(t, "SSE_RETRY_MS=5000")
	ids := db.InsertMany(t, 5)
	viewers := i.Crowd(t, streams, ids[:4], nil)
	harness.AllReached(t, viewers, 0)
	stuckClient(t, i, db, ids[4])

	keptAlive := &http.Client{Transport: harness.Recorded{RoundTripper: harness.NewTransport()}}
	defer keptAlive.CloseIdleConnections()
	resp, err := keptAlive.Do(harness.Request(t, t.Context(), i.URL+"/healthz", ""))
	harness.NoError(t, err)
	harness.ReadAll(t, resp.Body)

	start := time.Now()
	i.Signal(t, sig)
	delays := make(map[int]int)
	for _, v := range viewers {
		v.Ended(t)
		match := goodbye.FindStringSubmatch(v.End())
		if match == nil {
			t.Fatalf("the stream ended with %q, want a retry field alone", v.End())
		}
		delay, err := strconv.Atoi(match[1])
		harness.NoError(t, err)
		delays[delay]++
		if delay < 2500 || delay > 7500 {
			t.Errorf("retry: %d, want 2500 to 7500", delay)
		}
	}
	if len(delays) < streams/2 {
		t.Errorf("%d different delays for %d streams: they come back together", len(delays), streams)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the streams that read ended %v after the signal", took)
	}

	// The process still lives, because of the client that does not read.
	resp, err = keptAlive.Do(harness.Request(t, t.Context(), i.URL+"/api/v1/sse/audits/"+ids[0]+"/progress", harness.AliceToken(t)))
	if err == nil { // refused is as good: clients come back after what they were told
		if body := harness.ReadAll(t, resp.Body); resp.StatusCode != 200 || !strings.HasPrefix(body, "retry: ") {
			t.Errorf("a request meanwhile: %d %q, want 200 and a retry field", resp.StatusCode, body)
		}
	}
	harness.Equal(t, i.End(t), 0, "exit status")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the process took %v to end, want 10 s at most", took)
	}
}

// stuckClient opens a stream that is not read, and returns when the server cannot write to it any more.
func stuckClient(t testing.TB, i *harness.Instance, db harness.Database, id string) {
	t.Helper()
	unread(t, i, id)
	coalesced := i.Metric(t, "auditstream_states_coalesced_total")
	app := pgtest.Connect(t, db.Admin)
	n := 0
	harness.Again(t, 10*time.Millisecond, func() error {
		if n++; n%10 == 0 { // on a busy machine it may be cut off before
			unread(t, i, id)
		}
		harness.Exec(t, app, `update audits set message = repeat('x', 1000000 + $1) where id = $2`, n, id)
		if got := i.Metric(t, "auditstream_states_coalesced_total"); got < coalesced+2 {
			return fmt.Errorf("after %d MB the client that does not read is still written to", n)
		}
		return nil
	})
}

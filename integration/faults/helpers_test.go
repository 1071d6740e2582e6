package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
	"github.com/tmaxmax/go-sse"
)

// readRaw reads the answer of a RawClient to the end of the stream.
func readRaw(r io.Reader, each func(sse.Event, harness.Progress)) error {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for event, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: 4 << 20}) {
		if err != nil {
			return err
		}
		var p harness.Progress
		if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
			return fmt.Errorf("event %q: %w", event.Data, err)
		}
		each(event, p)
	}
	return nil
}

// startTransaction begins a transaction of the application that is rolled back at the end of the test.
func startTransaction(t testing.TB, dsn string) pgx.Tx {
	t.Helper()
	tx, err := pgtest.Connect(t, dsn).Begin(t.Context())
	harness.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	return tx
}

// jitter is a random time below d, for tests that try many interleavings.
func jitter(d time.Duration) <-chan time.Time { return time.After(rand.N(d)) }

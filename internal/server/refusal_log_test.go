package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
)

// During an outage all requests are refused and repeated: a line for each would be thousands a second.
func TestAnOutageDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		away := hubFunc(func(context.Context, []store.Key, store.Viewer, func()) (Subscription, error) {
			return nil, errors.New("the database is away")
		})
		s := newTestServer(t, away, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		refuse := func(n int) {
			for range n {
				streamedPlain(t, s, authorized(t, streamPath))
			}
		}
		refuse(1000)
		if got := strings.Count(log.String(), "request refused"); got < 1 || got > 3 {
			t.Errorf("%d lines of 1,000 refusals at once, want 1 to 3", got)
		}
		if !strings.Contains(log.String(), "the database is away") {
			t.Errorf("no line says why:\n%s", log.String())
		}
		log.Reset()
		time.Sleep(2 * time.Second)
		refuse(1)
		if got := strings.Count(log.String(), "request refused"); got != 1 {
			t.Errorf("%d lines two seconds later, want 1: it is told that it goes on", got)
		}
		if got := scrape(t, s); !strings.Contains(got, `auditstream_requests_refused_total{reason="`+refusedLabel(errUnavailable)+`"} 1001`) {
			t.Errorf("not all are counted:\n%s", got)
		}
	})
}

package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

// During an outage all requests are refused and repeated: a line for each would be thousands a second.
func TestAnOutageDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := new(testkit.Log)
		away := hubFunc(func(context.Context, []store.Key, store.Viewer, func()) (Subscription, error) {
			return nil, errors.New("the database is away")
		})
		s := newTestServer(t, away, func(c *Config) { c.Logger = log.Logger() })
		refuse := func(n int) {
			for range n {
				serve(s, authorized(t, streamPath))
			}
		}
		refuse(1000)
		if got := log.Count("request refused"); got < 1 || got > 3 {
			t.Errorf("%d lines of 1,000 refusals at once, want 1 to 3", got)
		}
		if !log.Has("the database is away") {
			t.Errorf("no line says why:\n%s", log)
		}
		log.Reset()
		time.Sleep(2 * time.Second)
		refuse(1)
		if got := log.Count("request refused"); got != 1 {
			t.Errorf("%d lines two seconds later, want 1: it is told that it goes on", got)
		}
		if got := scrape(t, s); !strings.Contains(got, `auditstream_requests_refused_total{reason="`+refusedLabel(errUnavailable)+`"} 1001`) {
			t.Errorf("not all are counted:\n%s", got)
		}
	})
}

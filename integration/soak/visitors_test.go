package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
	"github.com/tmaxmax/go-sse"
)

const (
	soakVisitors = 60
	visitCount   = "visits"
	visitVanish  = "vanish without a word"
)

// audience is the viewers that come and go. Each visit is a connection, or several, of its own.
type audience struct {
	*soak
	next atomic.Int64
}

// visitKinds is what visitors do. Each returns what is wrong with the answer that it got.
var visitKinds = map[string]func(a *audience, ctx context.Context, t *testing.T) error{
	"watch and leave":              (*audience).watchAndLeave,
	"reset the connection":         (*audience).resetConnection,
	"come back with Last-Event-ID": (*audience).comeBack,
	"token expires":                (*audience).outliveToken,
	"read slowly":                  (*audience).readSlowly,
	"do not read":                  (*audience).doNotRead,
	"bad token":                    (*audience).sendBadToken,
	"missing audit":                (*audience).askForMissing,
	"somebody else's audit":        (*audience).askForForeign,
	"poll the status":              (*audience).pollStatus,
	"scrape":                       (*audience).scrape,
	"half a request":               (*audience).sendHalfRequest,
}

// visitDeck deals the kinds: most visitors watch, and those that hold a connection for long are few.
var visitDeck = func() (deck []string) {
	for _, kind := range slices.Sorted(maps.Keys(visitKinds)) {
		times := 2
		switch kind {
		case "watch and leave":
			times = 8
		case "reset the connection", "poll the status":
			times = 4
		case "do not read", "read slowly":
			times = 1
		}
		deck = append(deck, slices.Repeat([]string{kind}, times)...)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(deck), func(i, k int) { deck[i], deck[k] = deck[k], deck[i] })
	return deck
}()

func visitNames() []string {
	return append(slices.Sorted(maps.Keys(visitKinds)), visitVanish)
}

// visit makes one visit after the other.
func (a *audience) visit(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		kind := visitDeck[int(a.next.Add(1))%len(visitDeck)]
		err := visitKinds[kind](a, ctx, t)
		if ctx.Err() != nil {
			return // cut short: what it saw says nothing
		}
		if err != nil {
			a.problem("%s: %v", kind, err)
		}
		a.count(kind)
		a.count(visitCount)
	}
}

// someAudit is one that is alive or was a moment ago.
func (a *audience) someAudit(ctx context.Context) liveAudit {
	return await(ctx, func() *liveAudit { return a.slots[rand.IntN(len(a.slots))].current.Load() })
}

func (a *audience) heavyAudit(ctx context.Context) liveAudit { return await(ctx, a.heavy.current.Load) }

func await(ctx context.Context, current func() *liveAudit) liveAudit {
	for {
		if audit := current(); audit != nil {
			return *audit
		}
		if !sleep(ctx.Done(), 10*time.Millisecond) {
			return liveAudit{"1", "nobody"}
		}
	}
}

func bearer(t *testing.T, audit liveAudit) string {
	t.Helper()
	return "Bearer " + harness.Token(t, jwt.MapClaims{"sub": audit.user})
}

// get makes a request on a connection of its own, which ends with the body.
func (a *audience) get(ctx context.Context, t *testing.T, path, authorization string, headers ...string) (*http.Response, error) {
	r := harness.Request(t, ctx, a.server.URL+path, "", headers...)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
}

// follow opens a stream and reads it until it ends or ctx is done. It returns the last event's id.
func (a *audience) follow(ctx context.Context, t *testing.T, audit liveAudit, authorization, lastID string) (string, error) {
	var headers []string
	if lastID != "" {
		headers = []string{"Last-Event-ID", lastID}
	}
	resp, err := a.get(ctx, t, harness.StreamPath(audit.id), authorization, headers...)
	if err != nil {
		if ctx.Err() != nil {
			return lastID, nil
		}
		return lastID, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case 200:
	case 404, 204: // deleted meanwhile; ended, and seen
		return lastID, nil
	default:
		return lastID, fmt.Errorf("status %d, want 200, 204 or 404", resp.StatusCode)
	}
	for event, err := range sse.Read(resp.Body, nil) {
		if err != nil {
			if ctx.Err() != nil {
				return lastID, nil
			}
			return lastID, fmt.Errorf("the stream broke: %w", err)
		}
		var p harness.Progress
		if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
			return lastID, fmt.Errorf("event %q: %w", event.Data, err)
		}
		if p.Message != nil && *p.Message == uncommitted {
			return lastID, fmt.Errorf("audit %s: a state that was rolled back was shown", audit.id)
		}
		lastID = event.LastEventID
	}
	return lastID, nil
}

func (a *audience) watchAndLeave(ctx context.Context, t *testing.T) error {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond+rand.N(3*time.Second))
	defer cancel()
	audit := a.someAudit(ctx)
	_, err := a.follow(ctx, t, audit, bearer(t, audit), "")
	return err
}

func (a *audience) comeBack(ctx context.Context, t *testing.T) error {
	audit, lastID := a.someAudit(ctx), ""
	for range 4 {
		visit, cancel := context.WithTimeout(ctx, 50*time.Millisecond+rand.N(time.Second))
		var err error
		lastID, err = a.follow(visit, t, audit, bearer(t, audit), lastID)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// outliveToken watches until the audit or the token ends.
func (a *audience) outliveToken(ctx context.Context, t *testing.T) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	audit := a.someAudit(ctx)
	short := "Bearer " + harness.Token(t, jwt.MapClaims{"sub": audit.user, "exp": time.Now().Add(2 * time.Second).Unix()})
	_, err := a.follow(ctx, t, audit, short, "")
	if err == nil && context.Cause(ctx) == context.DeadlineExceeded {
		return fmt.Errorf("the stream is open %v after its token's end", harness.Patience)
	}
	return err
}

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
	"github.com/tmaxmax/go-sse"
)

type clientStyle string

const (
	styleNative  clientStyle = "native"  // as EventSource: a cookie, Last-Event-ID, comes back until it is told to stop
	styleFetch   clientStyle = "fetch"   // a bearer token that it renews; closes by itself after the terminal event
	styleSlow    clientStyle = "slow"    // native, with small buffers that it empties slowly
	styleVanish  clientStyle = "vanish"  // native, but resets its connection, or is gone without a word, and comes back
	styleForeign clientStyle = "foreign" // native, of a user who owns the audit only for the time of an owner change
)

// chaosClient watches a slot: whatever audit is in it. Told to stop, its user opens the page again after a while.
type chaosClient struct {
	n        int
	style    clientStyle
	user     string
	slot     *slot
	feed     chaosFeed
	replicas []*replica
	sticky   bool          // stays with one instance; others change at each reconnect, as behind a balancer
	lifetime time.Duration // of its tokens
	proxies  [2]*pgtest.TCPProxy
	rand     *rand.Rand

	attempts  []attempt
	sightings []sighting

	// The state of its connection.
	instance  int
	proxy     int
	transport *http.Transport
	token     string
	expires   time.Time

	mu   sync.Mutex
	conn net.Conn // the newest
}

// attempt is one request. answered is when its first event or its status came; zero: neither did.
type attempt struct {
	audit                  int64
	instance               int
	lastEventID            string
	tried, answered, ended time.Time
	expires                time.Time
	outcome                string
}

// How an attempt ends besides an HTTP status and the texts of error events.
const (
	endedTerminal  = "terminal"
	endedClean     = "clean end"
	endedBroken    = "broken"
	endedNoServer  = "no answer"
	endedVanished  = "vanished"
	endedCancelled = "cancelled"

	endedExpired  = "Token expired"
	endedTimeout  = "Stream timeout"
	endedForNow   = "Internal server error"
	endedDraining = "Server is shutting down"
	endedDeleted  = "Audit not found"
	endedNoRow    = "No such row" // the same, of a feed
	endedDenied   = "Cross-user access denied"
)

// sighting is something that the server said about an audit: a state, or that it may not be shown.
type sighting struct {
	at      time.Time
	attempt int
	kind    sightingKind
	n       int // the version shown
	id      string
	text    string
}

type sightingKind int

const (
	shown sightingKind = iota
	gone
	denied
)

// newChaosClient makes the n-th client of a seed; run starts it.
func newChaosClient(t testing.TB, n int, style clientStyle, s *slot, replicas []*replica, seed uint64) *chaosClient {
	c := &chaosClient{n: n, style: style, user: s.owner(), slot: s, feed: chaosFeeds[n/2%2], replicas: replicas,
		rand: rand.New(rand.NewPCG(seed, uint64(1000+n))), lifetime: time.Hour}
	c.instance, c.sticky = c.rand.IntN(len(replicas)), c.rand.IntN(2) == 0
	if s.quiet() {
		c.sticky = true
	} else if c.rand.IntN(3) == 0 {
		c.lifetime = between(c.rand, 5*time.Second, 10*time.Second)
	}
	if style == styleForeign {
		c.user = map[string]string{"alice": "bob", "bob": "alice"}[c.user]
	}
	if style == styleVanish {
		for k := range c.proxies {
			c.proxies[k] = pgtest.Proxy(t, replicas[c.instance].addr)
		}
	}
	c.transport = &http.Transport{DialContext: c.dial, DisableKeepAlives: true}
	return c
}

// run watches until the server has told it to stop after closing was closed, about the slot's last audit; or ctx is
// done: false.
func (c *chaosClient) run(ctx context.Context, closing <-chan struct{}) bool {
	defer c.transport.CloseIdleConnections()
	for {
		audit := c.slot.audit.Load()
		closed, outcome := false, ""
		lastID, retry := "", time.Second
		for stop := false; !stop; {
			select {
			case <-closing:
				closed = true
			default:
			}
			var delay time.Duration
			outcome, stop, delay = c.attempt(ctx, audit, &lastID, &retry)
			if ctx.Err() != nil || (!stop && !pause(ctx, delay)) {
				return false
			}
			if !c.sticky {
				c.instance = (c.instance + 1) % len(c.replicas)
			}
		}
		if closed && outcome != "401" && audit == c.slot.audit.Load() {
			return true
		}
		if !pause(ctx, between(c.rand, 300*time.Millisecond, time.Second)) {
			return false
		}
	}
}

// attempt makes a request and follows what it opens. stop: the client would not come back by itself.
func (c *chaosClient) attempt(ctx context.Context, audit int64, lastID *string, retry *time.Duration) (outcome string, stop bool, delay time.Duration) {
	if time.Now().After(c.expires) {
		c.renew()
	}
	c.attempts = append(c.attempts, attempt{audit: audit, instance: c.instance, lastEventID: *lastID, tried: time.Now(), expires: c.expires})
	a := &c.attempts[len(c.attempts)-1]
	a.outcome = c.request(ctx, a, lastID, retry)
	a.ended = time.Now()
	switch a.outcome {
	case endedTerminal:
		return a.outcome, c.style == styleFetch, *retry
	case endedExpired:
		c.expires = time.Time{} // renewed before the next request
		return a.outcome, false, 0
	case "401":
		c.expires = time.Time{}
		return a.outcome, true, 0
	case "204", "400", "403", "404":
		return a.outcome, true, 0
	case endedVanished:
		return a.outcome, false, between(c.rand, 0, time.Second)
	}
	return a.outcome, false, *retry
}

// renew takes a new token. Its exp is in whole seconds.
func (c *chaosClient) renew() {
	c.expires = time.Now().Add(c.lifetime).Truncate(time.Second)
	claims := jwt.MapClaims{"sub": c.user, "exp": c.expires.Unix()}
	var err error
	if c.token, err = jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(harness.JWTSecret)); err != nil {
		panic(err) // a constant key signs
	}
	harness.Remember(c.token)
}

func (c *chaosClient) request(ctx context.Context, a *attempt, lastID *string, retry *time.Duration) (outcome string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	url := fmt.Sprintf("http://%s/api/v1/sse/%s/%s/progress", c.address(a.instance), c.feed, c.feed.key(a.audit))
	if c.n%2 == 1 { // a list of one keeps the promises of one
		url = fmt.Sprintf("http://%s/api/v1/sse/%s/progress?ids=%s", c.address(a.instance), c.feed, c.feed.key(a.audit))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	if c.style == styleFetch {
		r.Header.Set("Authorization", "Bearer "+c.token)
	} else {
		r.AddCookie(&http.Cookie{Name: "session", Value: c.token})
	}
	if *lastID != "" {
		r.Header.Set("Last-Event-ID", *lastID)
	}
	vanish := c.willVanish(cancel)
	defer func() {
		if vanish() {
			outcome = endedVanished
		}
	}()
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		if context.Cause(ctx) != nil {
			return endedCancelled
		}
		return endedNoServer
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		a.answered = time.Now()
		c.refused(a.answered, resp.StatusCode, *lastID)
		return strconv.Itoa(resp.StatusCode)
	}
	return c.read(ctx, a, resp.Body, lastID, retry)
}

// refused notes what a status says about the audit.
func (c *chaosClient) refused(at time.Time, status int, lastID string) {
	kinds := map[int]sightingKind{204: shown, 403: denied, 404: gone}
	if kind, ok := kinds[status]; ok {
		c.sightings = append(c.sightings, sighting{at: at, attempt: len(c.attempts) - 1, kind: kind, id: lastID, text: strconv.Itoa(status)})
	}
}

// read takes events to the end of the stream and says how it ended.
func (c *chaosClient) read(ctx context.Context, a *attempt, body io.Reader, lastID *string, retry *time.Duration) string {
	end := endedClean
	if c.style == styleSlow {
		body = slowly(ctx, body, c.rand)
	}
	for event, err := range sse.Read(io.TeeReader(body, &harness.RetryField{Retry: retry}), &sse.ReadConfig{MaxEventSize: 1 << 20}) {
		if err != nil {
			if ctx.Err() != nil {
				return endedCancelled
			}
			return endedBroken
		}
		at := time.Now()
		if a.answered.IsZero() {
			a.answered = at
		}
		s := sighting{at: at, attempt: len(c.attempts) - 1, id: event.LastEventID, text: event.Data}
		var p harness.Progress
		if json.Unmarshal([]byte(event.Data), &p) == nil && p.Status == "" && p.Error != nil {
			end = *p.Error
			if end == endedNoRow {
				end = endedDeleted
			}
			switch end {
			case endedDeleted:
				s.kind = gone
			case endedDenied:
				s.kind = denied
			default:
				continue
			}
			c.sightings = append(c.sightings, s)
			continue
		}
		if p.Message != nil {
			s.n = versionOf(*p.Message)
		}
		c.sightings = append(c.sightings, s)
		*lastID = event.LastEventID
		if p.Status == "completed" || p.Status == "failed" {
			end = endedTerminal
			if c.style == styleFetch {
				return end
			}
		}
	}
	return end
}

// versionOf reads the number at the beginning of a message; 0: there is none.
func versionOf(message string) int {
	digits, _, _ := strings.Cut(strings.TrimPrefix(message, "v"), " ")
	n, _ := strconv.Atoi(digits) // 0 stands for nothing
	return n
}

package chaos

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

const (
	chaosSlots = 10
	// The short form: always the same, and long enough for each kind of fault to happen.
	shortChaos     = 50 * time.Second
	shortChaosSeed = 3122
)

// TestChaos breaks everything that can break, at random, and checks the one promise: whatever fails, every client ends
// with the committed terminal state, none ever sees a state that was not committed or goes back, and the application's
// writes never notice.
//
// CHAOS=10m makes it last, CHAOS_SEED=n repeats a schedule, CHAOS_REPORT=file keeps the report. Both sources at the same
// time, which mostly wait, and beside no other test, because it measures time.
func TestChaos(t *testing.T) {
	t.Run("db", func(t *testing.T) {
		t.Parallel()
		plan := chaosPlan(t, shortChaos, faultLanes)
		chaosRun(t, plan, newChaos(t, plan))
	})
	t.Run("redis", testChaosRedis)
}

func chaosRun(t *testing.T, plan schedule, c *chaos) {
	t.Helper()
	t.Log(plan)
	began := time.Now()
	c.run(t)
	c.judge(t, began)
	if t.Failed() {
		for _, w := range c.control.slow {
			t.Logf("another client of PostgreSQL was slow from %s to %s", clock(w.from), clock(w.to))
		}
		for _, r := range c.processes() {
			t.Logf("instance %d says:\n%s", r.n, r.troubles())
		}
		t.Logf("to replay: make chaos CHAOS=%v CHAOS_SEED=%d", plan.duration, plan.seed)
	}
}

func chaosPlan(t *testing.T, duration time.Duration, lanes []faultLane) schedule {
	t.Helper()
	seed := uint64(shortChaosSeed)
	if text := os.Getenv("CHAOS"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("CHAOS: %v", err)
		}
		seed = rand.Uint64N(1_000_000)
	}
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CHAOS_SEED: %v", err)
		}
	}
	return newSchedule(seed, duration, chaosSlots, lanes)
}

// chaos is one run.
type chaos struct {
	plan     schedule
	journal  *journal
	app      *application
	breaker  *breaker
	replicas []*replica
	relay    *replica // nil: the instances listen to PostgreSQL themselves
	clients  []*chaosClient
	control  control
	serve    string // the instances' role's connection string
}

func newChaos(t *testing.T, plan schedule) *chaos {
	t.Helper()
	server := pgtest.NewServer(t)
	db := harness.Adopt(t, server.DSN("postgres"))
	listen, listenURL := pgtest.ProxyDSN(t, db.Serve)
	pool, poolURL := pgtest.ProxyDSN(t, db.Serve)
	c := &chaos{plan: plan, journal: newJournal()}
	c.replicas = []*replica{
		newReplica(t, 0, time.Hour, "DATABASE_URL="+db.Serve),
		newReplica(t, 1, 15*time.Second, "DATABASE_URL="+poolURL, "DATABASE_LISTEN_URL="+listenURL),
	}
	c.breaker = &breaker{server: server, admin: db.Admin, listen: listen, pool: pool, proxied: 1,
		replicas: c.replicas, journal: c.journal, path: harness.Binary(t)}
	c.populate(t, db)
	return c
}

// populate adds the application and the clients, and starts the instances.
func (c *chaos) populate(t *testing.T, db harness.Database) {
	t.Helper()
	c.serve = db.Serve
	writers, err := pgxpool.New(t.Context(), db.Admin+"&pool_max_conns=12")
	harness.NoError(t, err)
	t.Cleanup(writers.Close)
	if _, err := writers.Exec(t.Context(), copies.column()); err != nil {
		t.Fatal(err)
	}
	harness.NoError(t, installAgain(t.Context(), harness.Binary(t), db.Admin, copies.install()...))
	c.app = &application{pool: writers, ledger: newLedger(), journal: c.journal}
	for n := range chaosSlots {
		s := &slot{n: n}
		c.app.slots = append(c.app.slots, s)
		c.app.write(t.Context(), plannedWrite{kind: writeUpdate, slots: []int{n}, seed: uint64(n)}) // the first audit
		styles := []clientStyle{styleNative, styleNative, styleFetch, styleSlow, styleVanish, styleForeign}
		if s.quiet() {
			styles = []clientStyle{styleNative, styleNative, styleFetch, styleFetch, styleSlow}
		}
		for _, style := range styles {
			c.clients = append(c.clients, newChaosClient(t, len(c.clients), style, s, c.replicas, c.plan.seed))
		}
	}
	for _, r := range c.replicas {
		harness.NoError(t, r.start(t.Context()))
	}
}

// run does all of it: clients first, then writes and faults until the time is up, then the end of every audit, which
// every client must reach.
func (c *chaos) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	closing := make(chan struct{})
	var controlling sync.WaitGroup
	defer controlling.Wait()
	defer cancel()
	controlling.Go(func() { c.control.run(ctx, c.serve) })
	var clients sync.WaitGroup
	for _, client := range c.clients {
		clients.Go(func() { client.run(ctx, closing) })
	}
	var breaking errgroup.Group
	for _, lane := range c.plan.lanes {
		breaking.Go(func() error { return c.breaker.run(ctx, lane, c.plan.duration) })
	}
	c.app.run(ctx, c.plan.writes)
	if err := breaking.Wait(); err != nil {
		t.Error(err)
	}
	c.app.finish(ctx)
	close(closing)

	// Who has not come to an end by then never will: the latest bound, a wait to come back, and another to be told 204.
	limit := time.AfterFunc(recovery+relisten+2*c.replicas[1].maxDuration, cancel)
	defer limit.Stop()
	clients.Wait()
	for _, r := range c.processes() {
		if err := r.stop(t.Context(), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
}

// processes is the instances, and the relay if there is one.
func (c *chaos) processes() []*replica {
	if c.relay == nil {
		return c.replicas
	}
	return append(slices.Clip(c.replicas), c.relay)
}

// judge checks what was recorded, and reports.
func (c *chaos) judge(t *testing.T, began time.Time) {
	t.Helper()
	r := &report{schedule: c.plan, faults: c.journal.counts, writes: c.app.ledger.writes, excused: c.app.excused,
		clients: make(map[clientStyle]int), staleness: make(map[string][]time.Duration)}
	j := &judge{ledger: c.app.ledger, faults: c.journal.all(), control: &c.control, replicas: c.replicas, report: r, ids: make(map[string]string)}
	injected := j.faults
	if c.relay != nil { // while it hears nothing, nobody does
		windows, unexplained := c.relay.deafness(injected)
		injected = append(slices.Clip(injected), windows...)
		j.faults = injected
		for _, text := range unexplained {
			t.Error(text)
		}
		c.relay.raced(t)
	}
	for _, replica := range c.replicas {
		windows, unexplained := replica.deafness(injected)
		j.faults = append(slices.Clip(j.faults), windows...)
		j.heard = append(j.heard, replica.listening())
		for _, text := range unexplained {
			t.Error(text)
		}
		replica.raced(t)
	}
	const enough = 5 // clients told of in full
	failed := 0
	for _, client := range c.clients {
		r.clients[client.style]++
		r.events += len(client.sightings)
		r.attempts += len(client.attempts)
		wrong := j.client(client)
		if len(wrong) == 0 {
			continue
		}
		failed++
		t.Errorf("client %d (%s): %d times wrong, first: %s", client.n, client.style, len(wrong), wrong[0])
		for _, text := range wrong[1:min(len(wrong), 10)] {
			t.Log("    " + text)
		}
		if failed <= enough {
			t.Log(client.compact())
		}
	}
	c.writes(t, r, injected)
	if t.Failed() {
		for _, w := range j.faults {
			t.Logf("window %s-%s %s (%d) instance %d", clock(w.from), clock(w.to), w.cause, w.effect, w.instance)
		}
	}
	for _, kind := range c.plan.kinds {
		if r.faults[kind] == 0 && c.plan.duration >= 2*shortChaos { // on a slow machine little fits into the short form
			t.Errorf("%s: did not happen", kind)
		}
	}
	r.took = time.Since(began)
	t.Log("\n" + r.Markdown())
	if file := os.Getenv("CHAOS_REPORT"); file != "" && c.relay == nil {
		if err := os.WriteFile(file, []byte(r.Markdown()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// writes checks that the application noticed nothing: no error, and no wait that the faults of the service explain.
func (c *chaos) writes(t *testing.T, r *report, faults []window) {
	t.Helper()
	for _, failure := range c.app.failures {
		t.Errorf("the application was disturbed: %s", failure)
	}
	for _, u := range c.app.updates {
		during := slices.IndexFunc(faults, func(w window) bool { return w.overlaps(u.at, u.at.Add(u.took)) }) >= 0
		switch {
		case c.journal.outage(u.at, u.at.Add(u.took)): // PostgreSQL's own
		case during:
			r.faulty = append(r.faulty, u.took)
		default:
			r.calm = append(r.calm, u.took)
		}
	}
	slices.Sort(r.calm)
	slices.Sort(r.faulty)
	if calm, faulty := quantile(r.calm, 0.5), quantile(r.faulty, 0.5); faulty > 3*calm+slack/100 && len(r.calm) > 20 {
		t.Errorf("an update takes %v during faults, %v without", faulty, calm)
	}
	if longest := quantile(r.faulty, 1); longest > time.Second+slack {
		t.Errorf("an update took %v", longest)
	}
}

func everyFault(lanes []faultLane) (all []faultKind) {
	for _, lane := range lanes {
		for _, choice := range lane.choices {
			all = append(all, choice.kind)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

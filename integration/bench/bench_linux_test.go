package bench

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// TestBench measures everything at the scale of BENCH, and writes bench.md, bench.json and bench.svg to BENCH_REPORT.
// It fails when something does not work, and never for a figure: goals that are missed are printed as missed.
func TestBench(t *testing.T) {
	s, err := chosenScale()
	harness.NoError(t, err)
	began := time.Now()
	b := &bench{scale: s, variants: variants(t, s), apps: map[appKey]*application{}}
	if s.peer { // said before minutes of measuring, not after
		startNchan(t).stop(t)
	}
	b.pg = databaseServer(t)
	var backend int
	harness.NoError(t, pgtest.Connect(t, b.pg.DSN("postgres")).QueryRow(t.Context(), "select pg_backend_pid()").Scan(&backend))
	b.postgres = parent(t, backend)
	m := describe(t, b)
	t.Logf("%s scale on %v", s.name, m)
	b.measure(t)
	r := b.report(m, time.Since(began))
	r.complete(t)
	t.Logf("took %v\n%s", time.Since(began).Round(time.Second), r.markdown())
	dir := os.Getenv("BENCH_REPORT")
	if dir == "" {
		dir = t.TempDir()
	}
	r.write(t, dir)
}

// measure takes the variants in turn, the other way round every second time: what changes on the machine meanwhile
// then meets all of them.
func (b *bench) measure(t testing.TB) {
	t.Helper()
	s := b.scale
	for round := range s.rounds {
		t.Logf("round %d of %d", round+1, s.rounds)
		for _, v := range inTurn(append(slices.Clip(b.variants), uuids), round) {
			b.streams(t, v, s.streams, s.audits)
		}
		for _, v := range inTurn(b.variants, round) {
			b.fanOut(t, v, s.streams, s.audits)
		}
		for _, v := range inTurn(b.variants, round) {
			b.firstEvents(t, v)
		}
		for _, n := range s.writers {
			b.writersInTurn(t, round, n)
		}
		for _, v := range inTurn(b.variants, round) {
			if !v.peer {
				b.bulk(t, v, round)
				b.sessions(t, v, round)
			}
		}
		b.reads(t, b.variants[0])
		b.dashboards(t, b.variants[0])
		b.mine(t, b.variants[0], round)
	}
	for _, n := range s.growth {
		for _, v := range b.variants {
			if v.name != ours && !v.peer {
				continue // minutes, to say again that it takes more
			}
			b.streams(t, v, n, s.audits)
		}
	}
	most := s.writers[len(s.writers)-1]
	for _, rows := range s.rows {
		b.streams(t, b.variants[0], s.streams, rows)
		b.writers(t, b.variants[0], most, rows, triggerStates[:3])
	}
}

// writersInTurn measures our own forms: the peer has no triggers. The plainer ones only where there are goals.
func (b *bench) writersInTurn(t testing.TB, round, n int) {
	t.Helper()
	for _, v := range inTurn(b.variants, round) {
		switch {
		case v.peer:
		case v.name == ours || v.name == before:
			b.writers(t, v, n, b.scale.audits, inTurn(triggerStates, round))
		case n == b.scale.writers[len(b.scale.writers)-1]:
			b.writers(t, v, n, b.scale.audits, inTurn(triggerStates[1:], round))
		}
	}
}

// inTurn is the list, reversed in every second round.
func inTurn[T any](list []T, round int) []T {
	turned := make([]T, len(list))
	for k, one := range list {
		if round%2 == 1 {
			k = len(list) - 1 - k
		}
		turned[k] = one
	}
	return turned
}

func TestParseVariants(t *testing.T) {
	t.Parallel()
	got, err := parseVariants("naive: SSE_HIJACK=off --ring=always ; other: A=b")
	harness.NoError(t, err)
	if len(got) != 2 || got[0].name != "naive" || got[0].serve[0] != "SSE_HIJACK=off" || got[0].install[0] != "--ring=always" || got[1].name != "other" {
		t.Errorf("got %+v", got)
	}
	for _, wrong := range []string{"naive", "naive:", "naive: word", ": A=b", "nchan: A=b"} {
		if got, err := parseVariants(wrong); err == nil {
			t.Errorf("%q: got %+v, want an error", wrong, got)
		}
	}
}

func TestDelaysCountStatesThatANewerOneReplaced(t *testing.T) {
	t.Parallel()
	a := &application{written: [][]int64{{0, 1e6, 3e6, 4e6}}}
	got := a.delays([]sample{{From: -1, To: 0, At: 1}, {From: 0, To: 2, At: 5e6}, {From: 2, To: 3, At: 6e6}})
	if len(got) != 3 || got[0] != 4 || got[1] != 2 || got[2] != 2 {
		t.Errorf("got %v, want 4, 2 and 2 ms", got)
	}
}

func TestClientReadsStatesHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	answer := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\nretry: 5\nid: 1\ndata: {\"total_pages\":12}\n\n\r\n: heartbeat\n\ndata: {\"total_pages\":345,\"error\":\"\"}\n\n"
	for size := 1; size <= len(answer); size++ {
		c := &client{last: -1}
		var got []int32
		for from := 0; from < len(answer); from += size {
			got = append(got, c.take([]byte(answer[from:min(from+size, len(answer))]))...)
		}
		if len(got) != 2 || got[0] != 12 || got[1] != 345 {
			t.Errorf("in pieces of %d: got %v, want 12 and 345", size, got)
		}
	}
}

func TestLoadEndsWithTheMeasuringProcess(t *testing.T) {
	t.Parallel()
	l := startLoad(t)
	if _, err := l.ask(order{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.end() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("the load process has not ended")
	}
}

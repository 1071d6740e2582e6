package pgnotify

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"auditstream/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestParseID(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]int64{
		"1": 1, "42": 42, "9223372036854775807": 9223372036854775807,
	} {
		if got, ok := ParseID(payload); !ok || got != want {
			t.Errorf("ParseID(%q) = %d, %v, want %d", payload, got, ok, want)
		}
	}
	for _, payload := range []string{
		"", "0", "-1", "+1", "01", " 1", "1 ", "1\n", "1_000", "0x10", "1e3", "*", "!x", "٣", "1\x00",
		"9223372036854775808", "18446744073709551616", "10000000000000000000000000", "NaN",
	} {
		if got, ok := ParseID(payload); ok {
			t.Errorf("ParseID(%q) = %d, want it refused", payload, got)
		}
	}
}

// counting is a Sink that counts.
type counting struct {
	ids     []int64
	resyncs int
}

func (c *counting) Notify(id int64) { c.ids = append(c.ids, id) }
func (c *counting) Resync()         { c.resyncs++ }

// noPool is a way to a database that is not there.
type noPool struct{}

func (noPool) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, errors.New("no pool")
}

// Any database role may send any text on our channel: it is the id that PostgreSQL prints, a call to read everything, a
// canary, or nothing. Each costs one of these at most, wakes no canary but its own, and leaves nothing behind in the hub for
// an id that nobody watches.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{"1", "42", "9223372036854775807", "9223372036854775808", "", "0", "-1", "01", "*", "!canary", "1\n", "٣", "**", "!", "\x00", strings.Repeat("9", 7999), "1,2,3"} {
		f.Add(seed)
	}
	conn, err := pgx.ParseConfig("host=127.0.0.1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		id, ok := ParseID(payload)
		if ok && (id < 1 || strconv.FormatInt(id, 10) != payload) {
			t.Errorf("ParseID(%q) = %d, want only what PostgreSQL prints", payload, id)
		}
		if n, err := strconv.ParseInt(payload, 10, 64); !ok && err == nil && n > 0 && strconv.FormatInt(n, 10) == payload {
			t.Errorf("ParseID(%q) is refused, want %d", payload, n)
		}

		hub, err := NewHub(HubConfig{Loader: loaderFunc(func(context.Context, []int64) ([]*store.State, error) { return nil, nil })})
		if err != nil {
			t.Fatal(err)
		}
		const watched = 42
		hub.add(&subscription{id: watched, opened: make(chan struct{}), slot: make(chan *store.State, 1)})
		hub.take()
		sink := new(counting)
		l, err := NewListener(ListenerConfig{Conn: conn, Pool: noPool{}, Sink: sink})
		if err != nil {
			t.Fatal(err)
		}
		s := newSession(l)
		defer s.stars.Stop()
		mine := &Canary{Payload: CanaryPrefix + "mine", Heard: make(chan struct{}, 1)}
		s.sent.Store(mine)
		for range 3 {
			s.hear(t.Context(), &pgconn.Notification{Channel: Channel, Payload: payload}, nil)
		}
		ids, resyncs := 0, 0
		switch {
		case ok:
			ids = 3
		case payload == PayloadResync:
			resyncs = 1 // the others wait, and are one
		}
		if len(sink.ids) != ids || sink.resyncs != resyncs {
			t.Errorf("%q: %d ids and %d resyncs of 3 notifications", payload, len(sink.ids), sink.resyncs)
		}
		if heard := len(mine.Heard) == 1; heard != (payload == mine.Payload) {
			t.Errorf("%q counts as our canary: %v", payload, heard)
		}
		for _, id := range sink.ids {
			hub.Notify(id)
		}
		for range sink.resyncs {
			hub.Resync()
		}
		if dirty := hub.take(); len(dirty) > 1 || len(hub.watched) != 1 || len(dirty) == 1 && id != watched && payload != PayloadResync {
			t.Errorf("%q: %d to read, %d watched", payload, len(dirty), len(hub.watched))
		}
	})
}

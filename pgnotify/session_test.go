package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func connConfig(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	cfg, err := pgx.ParseConfig("postgres://127.0.0.1/x")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// watched returns a session on which LISTEN is in force, with canaries sent by exec.
func watched(t *testing.T, exec execFunc) *session {
	t.Helper()
	l, err := NewListener(ListenerConfig{Conn: connConfig(t), Pool: exec, Sink: make(sink, 100)})
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(l)
	s.listening()
	return s
}

func (s *session) deliver(payload any) {
	s.hear(context.Background(), &pgconn.Notification{Channel: Channel, Payload: fmt.Sprint(payload)}, nil)
}

func TestCanaryThatComesBackProvesTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *session
		sent := 0
		s = watched(t, func(_ context.Context, _ string, args ...any) (pgconn.CommandTag, error) {
			sent++
			s.deliver(args[1])
			return pgconn.CommandTag{}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Second)
		defer cancel()
		if err := s.watch(ctx); err != nil || s.proven.IsZero() || !s.l.Up() {
			t.Errorf("watch: %v, proven %v, up %v", err, s.proven, s.l.Up())
		}
		if sent != 15 {
			t.Errorf("%d canaries in a minute, want one each 4 s", sent)
		}
	})
}

// A canary was taken for lost because its sending timed out, came back after all, and then vouched for the next one, on a
// connection that had died in between; and so on with each that followed.
func TestEarlierCanaryDoesNotVouchForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent []any
		s := watched(t, func(ctx context.Context, _ string, args ...any) (pgconn.CommandTag, error) {
			sent = append(sent, args[1])
			if len(sent) == 1 {
				<-ctx.Done()
				return pgconn.CommandTag{}, ctx.Err()
			}
			return pgconn.CommandTag{}, nil
		})
		if err := s.canary(t.Context()); err != nil {
			t.Fatalf("canary that cannot be sent: %v, want nil", err)
		}
		s.deliver(sent[0])
		if err := s.canary(t.Context()); !errors.Is(err, ErrSilent) {
			t.Errorf("error %v, want that the second canary did not come back", err)
		}
	})
}

func TestCanaryThatCannotBeSentSaysNothingAboutTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, func(context.Context, string, ...any) (pgconn.CommandTag, error) {
			return pgconn.CommandTag{}, errDatabase
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := s.watch(ctx); err != nil {
			t.Errorf("error %v, want that the session goes on", err)
		}
	})
}

// The listening connection and the pool were both cut off without a word: nothing could be sent to prove that
// notifications arrive, none arrived, and the listener said for ever that it was up.
func TestNothingIsUpThatWasNotProvenLately(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *session
		var works atomic.Bool
		s = watched(t, func(_ context.Context, _ string, args ...any) (pgconn.CommandTag, error) {
			if !works.Load() {
				return pgconn.CommandTag{}, errDatabase
			}
			s.deliver(args[1])
			return pgconn.CommandTag{}, nil
		})
		works.Store(true)
		go func() { _ = s.watch(t.Context()) }()
		for _, step := range []struct {
			works, up bool
			after     time.Duration
		}{{true, true, time.Second}, {false, true, 10 * time.Second}, {false, false, 6 * time.Second}, {true, true, 4 * time.Second}} {
			works.Store(step.works)
			time.Sleep(step.after)
			synctest.Wait()
			if got := s.l.Up(); got != step.up {
				t.Errorf("canaries can be sent: %v; up %v after %v, want %v", step.works, got, step.after, step.up)
			}
		}
	})
}

func TestSilenceEndsTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, func(context.Context, string, ...any) (pgconn.CommandTag, error) { return pgconn.CommandTag{}, nil })
		start := time.Now()
		err := s.watch(t.Context())
		if !errors.Is(err, ErrSilent) || time.Since(start) != 2*time.Second {
			t.Errorf("error %v after %v, want silence after 2 s", err, time.Since(start))
		}
		if got := s.failure(err); got != FailSilent {
			t.Errorf("failure %q, want %q", got, FailSilent)
		}
	})
}

// A flood of notifications, which any database role can send, held up the canary; the connection that heard all of them was
// given up as silent, and after the second time only the safety net was left for a minute.
func TestFloodIsNotSilence(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lasts time.Duration
		want  error
	}{
		"that ends":                   {7 * time.Second, nil},
		"that never lets a canary by": {time.Hour, ErrSilent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				sent := make(chan any, 1)
				s := watched(t, func(_ context.Context, _ string, args ...any) (pgconn.CommandTag, error) {
					sent <- args[1]
					return pgconn.CommandTag{}, nil
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					for end := time.Now().Add(tt.lasts); time.Now().Before(end) && ctx.Err() == nil; {
						s.deliver("forged")
						time.Sleep(time.Second / 2)
					}
					s.deliver(<-sent)
				}()
				start := time.Now()
				err := s.canary(t.Context())
				cancel()
				<-done
				if !errors.Is(err, tt.want) || time.Since(start) > 11*time.Second {
					t.Errorf("error %v after %v, want %v", err, time.Since(start), tt.want)
				}
			})
		})
	}
}

func TestConnectingThatHangsEndsTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := NewListener(ListenerConfig{Conn: connConfig(t), Pool: execFunc(nil), Sink: make(sink)})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s := newSession(l)
		if err := s.watch(t.Context()); err == nil || time.Since(start) > time.Minute {
			t.Errorf("error %v after %v, want one within a minute", err, time.Since(start))
		}
		if got := s.failure(errDatabase); got != FailConnect {
			t.Errorf("failure %q, want %q", got, FailConnect)
		}
	})
}

func TestRefusesListen(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{"25006": true, "0A000": true, "57P01": false, "42501": false} {
		err := fmt.Errorf("listen: %w", &pgconn.PgError{Code: code})
		if got := refusesListen(err); got != want {
			t.Errorf("SQLSTATE %s: %v, want %v", code, got, want)
		}
	}
	if refusesListen(errDatabase) {
		t.Error("any error refuses LISTEN")
	}
}

func TestBackoffGrowsAtRandomTo5Seconds(t *testing.T) {
	t.Parallel()
	var b Backoff
	for _, top := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000} {
		top *= time.Millisecond
		if got := b.Next(); got < top/2 || got > top {
			t.Errorf("delay %v, want %v to %v", got, top/2, top)
		}
	}
}

func TestOutageIsLoggedOnceEachWay(t *testing.T) {
	t.Parallel()
	var log logs
	var o outage
	for range 3 {
		o.lost(log.logger(), errDatabase)
	}
	for range 3 {
		o.unusable(log.logger(), errDatabase, time.Minute)
		o.lost(log.logger(), errDatabase)
	}
	if got, want := log.count("level=WARN"), 1; got != want {
		t.Errorf("%d warnings, want %d:\n%s", got, want, &log)
	}
	if got, want := log.count("level=ERROR"), 1; got != want {
		t.Errorf("%d errors, want %d:\n%s", got, want, &log)
	}
}

func TestListenConfig(t *testing.T) {
	t.Parallel()
	from := connConfig(t)
	from.ConnectTimeout = time.Minute
	got := listenConfig(from, "auditstream listener")
	if got.ConnectTimeout != connectTimeout || got.RuntimeParams["application_name"] != "auditstream listener" {
		t.Errorf("connect timeout %v, application_name %q", got.ConnectTimeout, got.RuntimeParams["application_name"])
	}
	if from.ConnectTimeout != time.Minute || from.RuntimeParams["application_name"] != "" {
		t.Error("the caller's configuration was changed")
	}
	from.ConnectTimeout, from.RuntimeParams["application_name"] = time.Second, "mine"
	got = listenConfig(from, "auditstream listener")
	if got.ConnectTimeout != time.Second || got.RuntimeParams["application_name"] != "mine" {
		t.Errorf("connect timeout %v, application_name %q, want those that were set", got.ConnectTimeout, got.RuntimeParams["application_name"])
	}
}

func TestListenerConfigIsValidated(t *testing.T) {
	t.Parallel()
	good := ListenerConfig{Conn: connConfig(t), Pool: execFunc(nil), Sink: make(sink)}
	for name, spoil := range map[string]func(*ListenerConfig){
		"Conn":      func(c *ListenerConfig) { c.Conn = nil },
		"Pool":      func(c *ListenerConfig) { c.Pool = nil },
		"Sink":      func(c *ListenerConfig) { c.Sink = nil },
		"durations": func(c *ListenerConfig) { c.PollingRetry = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := NewListener(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one that names it", name, err)
		}
	}
}

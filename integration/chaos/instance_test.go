package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// replica is one of the instances behind the API: a process that is ended and started again on the same port.
type replica struct {
	n           int
	env         []string
	maxDuration time.Duration
	path        string // of the binary
	command     string // serve, or relay
	redis       bool   // hints come from Redis
	addr        string

	mu    sync.Mutex
	lives []*life
}

// life is one process of a replica. serving and ended are when it began to serve and when it was told to end.
type life struct {
	*harness.Instance
	serving, ended time.Time
	killed         bool
}

type logRecord struct {
	Time time.Time `json:"time"`
	Msg  string    `json:"msg"`
}

func newReplica(t testing.TB, n int, maxDuration time.Duration, env ...string) *replica {
	t.Helper()
	port, err := harness.FreePort()
	harness.NoError(t, err)
	r := &replica{n: n, maxDuration: maxDuration, path: harness.Binary(t), command: "serve", addr: fmt.Sprintf("127.0.0.1:%d", port)}
	r.env = harness.Environment(append([]string{
		"JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=" + r.addr, "ADMIN_ADDR=off", "LOG_FORMAT=json", "LOG_LEVEL=debug",
		"SSE_MAX_STREAMS_PER_USER=0", "SSE_HEARTBEAT_SECONDS=1", "SSE_RETRY_MS=1000", "SSE_AUTH_COOKIE=session",
		fmt.Sprintf("SSE_FALLBACK_DB_INTERVAL_SECONDS=%d", int(safetyNet.Seconds())),
		fmt.Sprintf("SSE_MAX_DURATION=%d", int(maxDuration.Seconds())),
	}, env...))
	t.Cleanup(func() { // whatever happened, nothing is left
		if l := r.current(); l != nil {
			_ = l.Cmd.Process.Kill()
			<-l.Done
		}
	})
	return r
}

func (r *replica) current() *life {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lives) == 0 {
		return nil
	}
	return r.lives[len(r.lives)-1]
}

// start runs the binary and waits until it serves.
func (r *replica) start(ctx context.Context) error {
	l := &life{Instance: &harness.Instance{URL: "http://" + r.addr, Log: harness.NewLogBuffer(), Done: make(chan struct{})}}
	l.Cmd = exec.Command(r.path, r.command)
	l.Cmd.Env, l.Cmd.Stderr = r.env, l.Log
	if err := l.Cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(l.Done)
		_ = l.Cmd.Wait() // the exit status is looked at in stop
	}()
	r.mu.Lock()
	r.lives = append(r.lives, l)
	r.mu.Unlock()
	for {
		changed := l.Log.Changed()
		for _, record := range l.records() {
			if record.Msg == "serving" || record.Msg == "relaying" {
				l.serving = record.Time
				return nil
			}
		}
		select {
		case <-changed:
		case <-l.Done:
			return fmt.Errorf("instance %d ended instead of serving: %s", r.n, l.Log.String())
		case <-ctx.Done():
			return fmt.Errorf("instance %d does not serve: %w: %s", r.n, context.Cause(ctx), l.Log.String())
		}
	}
}

// stop ends the process with a signal and checks how it ended.
func (r *replica) stop(ctx context.Context, sig os.Signal) error {
	l := r.current()
	l.ended, l.killed = time.Now(), sig == syscall.SIGKILL
	if err := l.Cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	// Streams of clients that have vanished are cut after 8 s.
	limit := time.NewTimer(10*time.Second + slack)
	defer limit.Stop()
	select {
	case <-l.Done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		return fmt.Errorf("instance %d has not exited %v after %v", r.n, time.Since(l.ended), sig)
	}
	if code := l.Cmd.ProcessState.ExitCode(); !l.killed && code != 0 {
		return fmt.Errorf("instance %d: exit status %d after %v: %s", r.n, code, sig, l.Log.String())
	}
	return nil
}

// raced fails the test where the race detector has spoken.
func (r *replica) raced(t testing.TB) {
	t.Helper()
	for _, l := range r.lives {
		if log := l.Log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			t.Errorf("instance %d:\n%s", r.n, log)
		}
		harness.NoLeak(t, fmt.Sprintf("the log of instance %d", r.n), l.Log.String(), harness.OwnSecrets(r.env, nil))
	}
}

func (l *life) records() []logRecord {
	var records []logRecord
	for line := range strings.Lines(l.Log.String()) {
		var record logRecord
		if json.Unmarshal([]byte(line), &record) == nil {
			records = append(records, record)
		}
	}
	return records
}

// troubles is what the log says of all lives, without the ends of streams.
func (r *replica) troubles() string {
	var lines []string
	for _, l := range r.lives {
		for line := range strings.Lines(l.Log.String()) {
			if !strings.Contains(line, `"stream ended"`) {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, "")
}

// listening is the times of LISTEN over all lives.
func (r *replica) listening() (all listening) {
	for _, l := range r.lives {
		all = append(all, readListening(l.records(), r.redis)...)
	}
	return all
}

// deafness explains the times without LISTEN by the windows of faults, or says that nothing explains them.
func (r *replica) deafness(faults []window) (windows []window, unexplained []string) {
	for _, l := range r.lives {
		for _, gap := range readListening(l.records(), r.redis).gaps(l.serving, l.ended) {
			w := window{cause: "server start", effect: deaf, instance: r.n, from: gap[0], to: gap[1]}
			last, explained := l.serving, gap[0].Equal(l.serving)
			for _, f := range faults {
				if !f.hits(r.n) || f.effect == mute || f.from.After(gap[1]) {
					continue
				}
				last = latest(last, f.to)
				if f.overlaps(gap[0].Add(-detection-slack), gap[0]) {
					w.cause, explained = f.cause, true
				}
			}
			windows = append(windows, w)
			if !explained {
				unexplained = append(unexplained, fmt.Sprintf("instance %d lost LISTEN at %s without a fault", r.n, clock(gap[0])))
			}
			if late := gap[1].Sub(last); late > relisten+slack {
				unexplained = append(unexplained, fmt.Sprintf("instance %d was without LISTEN from %s to %s, %v after the last fault",
					r.n, clock(gap[0]), clock(gap[1]), late))
			}
		}
	}
	return windows, unexplained
}

func clock(at time.Time) string { return at.Format("15:04:05.000") }

package main

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"

	"auditstream/internal/server"

	"github.com/alecthomas/kong"
)

// configuration is what a command line, its file and the environment come to.
type configuration struct {
	serve  *serveCmd
	values map[string]any // by variable
}

// reparse reads the command line, its file and the environment once more.
type reparse func() (*configuration, error)

func configured(ctx *kong.Context, c *cli) *configuration {
	values := map[string]any{}
	for _, flag := range ctx.Flags() {
		for _, name := range flag.Envs {
			values[name] = flag.Target.Interface()
		}
	}
	return &configuration{serve: &c.Serve, values: values}
}

// reloadable are the variables that SIGHUP takes over.
var reloadable = []string{"JWT_SECRET", "JWT_SECRET_PREVIOUS", "LOG_LEVEL"}

// reloader makes a running server take over what has changed.
type reloader struct {
	parse reparse
	// signals has capacity 1, so that those that come during a reload are one.
	signals chan os.Signal
	now     *configuration
	level   *slog.LevelVar
	logger  *slog.Logger
	server  interface {
		Reload(ctx context.Context, secret, previousSecret string) error
	}
}

var _ = reloader{server: (*server.Server)(nil)}

// catch has SIGHUP reload instead of ending the process, from now on.
func (r *reloader) catch() {
	r.signals = make(chan os.Signal, 1)
	signal.Notify(r.signals, syscall.SIGHUP)
}

// run reloads at each signal until ctx is done. Later ones are ignored.
func (r *reloader) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.signals:
			r.reload(ctx)
		}
	}
}

// reload takes over all that may be, or nothing when anything is invalid. It logs names and never values.
func (r *reloader) reload(ctx context.Context) {
	next, err := r.parse()
	if err == nil {
		err = r.server.Reload(ctx, next.serve.JWTSecret, next.serve.JWTSecretPrevious)
	}
	if err != nil {
		r.logger.Error("not reloaded, all stays as it was", "error", err)
		return
	}
	r.level.Set(slog.Level(next.serve.LogLevel))
	var changed, ignored []string
	for _, name := range slices.Sorted(maps.Keys(next.values)) {
		switch {
		case reflect.DeepEqual(r.now.values[name], next.values[name]):
		case slices.Contains(reloadable, name):
			changed = append(changed, name)
			r.now.values[name] = next.values[name]
		default:
			ignored = append(ignored, name)
		}
	}
	r.logger.Info("reloaded", "changed", changed)
	if ignored != nil {
		r.logger.Warn("changed as well, which takes a restart", "variables", ignored)
	}
}

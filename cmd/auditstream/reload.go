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

// configuration holds the settings from the command line, the environment file and the environment.
type configuration struct {
	serve  *serveCmd
	values map[string]any // by variable
}

// reparse reads the command line, the environment file and the environment again.
type reparse func() (*configuration, error)

func newConfiguration(ctx *kong.Context, c *cli) *configuration {
	values := map[string]any{}
	for _, flag := range ctx.Flags() {
		for _, name := range flag.Envs {
			values[name] = flag.Target.Interface()
		}
	}
	return &configuration{serve: &c.Serve, values: values}
}

// reloadable are the variables that a reload changes; the others need a restart.
var reloadable = []string{"JWT_SECRET", "JWT_SECRET_PREVIOUS", "LOG_LEVEL"}

// reloader applies changed settings to a running server at SIGHUP.
type reloader struct {
	parse reparse
	// signals has capacity 1, so that all signals during a reload cause one more.
	signals chan os.Signal
	current *configuration
	level   *slog.LevelVar
	logger  *slog.Logger
	server  *server.Server
}

// catchSIGHUP makes SIGHUP cause a reload in run; from now on it does not end the process.
func (r *reloader) catchSIGHUP() {
	r.signals = make(chan os.Signal, 1)
	signal.Notify(r.signals, syscall.SIGHUP)
}

// run reloads at each signal until ctx is done; later signals are ignored.
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

// reload applies all reloadable settings, or none if one is invalid. It logs the names of changed variables, never their values.
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
		case reflect.DeepEqual(r.current.values[name], next.values[name]):
		case slices.Contains(reloadable, name):
			changed = append(changed, name)
			r.current.values[name] = next.values[name]
		default:
			ignored = append(ignored, name)
		}
	}
	r.logger.Info("reloaded", "changed", changed)
	if ignored != nil {
		r.logger.Warn("changed as well, which takes a restart", "variables", ignored)
	}
}

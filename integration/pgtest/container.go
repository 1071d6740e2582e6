package pgtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	"go.uber.org/goleak"
)

const (
	defaultImage    = "postgres:17-alpine"
	engineTimeout   = 3 * time.Second
	registryTimeout = 10 * time.Second // until the registry answers at all
	pullTimeout     = 3 * time.Minute
)

// absentError tells that this machine has no container to offer, which is no failure.
type absentError struct {
	err          error
	worthTelling bool // there is an engine: its owner expects it to be used
}

func (e *absentError) Error() string { return e.err.Error() }
func (e *absentError) Unwrap() error { return e.err }

func startContainer(ctx context.Context) (*server, error) {
	log.SetDefault(log.NewNoopLogger()) // what goes wrong comes as an error
	image := cmp.Or(os.Getenv("TEST_POSTGRES_IMAGE"), defaultImage)
	if err := haveImage(ctx, image); err != nil {
		return nil, err
	}
	args := []string{}
	for _, name := range slices.Sorted(maps.Keys(settings())) {
		args = append(args, "-c", name+"="+settings()[name])
	}
	// A password of its own, so that tests find it where it must not be; the module's is also the user's name.
	ctr, err := postgres.Run(ctx, image, testcontainers.WithCmdArgs(args...), postgres.WithPassword(rand.Text()), postgres.BasicWaitStrategies())
	stop := func(context.Context) error {
		// No grace for data that nobody needs. It has time limits of its own.
		return testcontainers.TerminateContainer(ctr, testcontainers.StopTimeout(time.Second))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("testcontainers: %w", err), stop(ctx))
	}
	dsn, err := ctr.ConnectionString(ctx, "sslmode=disable")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("testcontainers: %w", err), stop(ctx))
	}
	return &server{dsn: dsn, origin: "testcontainers image " + image, stop: stop}, nil
}

// haveImage asks for the engine and the image itself, because testcontainers retries a pull for minutes.
func haveImage(ctx context.Context, image string) error {
	engineCtx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(engineCtx)
	if err != nil {
		return &absentError{err: fmt.Errorf("no Docker engine answers: %w", err)}
	}
	defer func() { _ = docker.Close() }()
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return nil
	}
	if err := pull(ctx, docker, image); err != nil {
		return &absentError{
			err:          fmt.Errorf("a Docker engine answers, but image %s (TEST_POSTGRES_IMAGE) is neither there nor to be pulled: %w", image, err),
			worthTelling: true,
		}
	}
	return nil
}

// pull works for public images; a private one has to be there already.
func pull(ctx context.Context, docker *testcontainers.DockerClient, image string) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	noAnswer := time.AfterFunc(registryTimeout, cancel)
	defer noAnswer.Stop()
	response, err := docker.ImagePull(ctx, image, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = response.Close() }()
	noAnswer.Stop()
	return response.Wait(ctx)
}

// leakOptions excuse the connection to testcontainers' reaper, which stays open to the end of the process on purpose.
func leakOptions() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/testcontainers/testcontainers-go.(*Reaper).connect.func1"),
	}
}

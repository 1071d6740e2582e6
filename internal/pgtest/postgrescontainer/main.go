// Command postgrescontainer runs a PostgreSQL server in a container for pgtest while its standard input is open. It is a program of its own
// because the packages for Docker are as large as all others together: tests without an engine do not compile them, and no test links
// them.
//
// It prints one line of JSON, an [Answer], and exits with status 0 when the container is gone.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
)

const (
	defaultImage    = "postgres:17-alpine"
	engineTimeout   = 3 * time.Second
	registryTimeout = 10 * time.Second // until the registry answers at all
	pullTimeout     = 3 * time.Minute
)

// An Answer says where the server is, or why there is none.
type Answer struct {
	DSN    string // of the superuser
	Image  string
	Absent string // why this machine cannot run a container, which is not a failure
	Engine bool   // with Absent: there is an engine, so its owner expects that it is used
}

// The arguments are settings of the server, such as fsync=off.
func main() {
	// Ctrl-C reaches the tests, too, which then close our standard input.
	signal.Ignore(os.Interrupt)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, settings []string) error {
	log.SetDefault(log.NewNoopLogger()) // failures are returned as errors, too
	image := cmp.Or(os.Getenv("TEST_POSTGRES_IMAGE"), defaultImage)
	if absent := absence(ctx, image); absent != nil {
		return json.NewEncoder(os.Stdout).Encode(absent)
	}
	var args []string
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	// An unusual password, so that tests find it where it must not be: the module's default is also the user's name. The data is in memory,
	// because to make and drop a database for each test is mostly to make and remove files.
	const memory = "/auditstream"
	ctr, err := postgres.Run(ctx, image, testcontainers.WithCmdArgs(args...), postgres.WithPassword(rand.Text()), postgres.BasicWaitStrategies(),
		testcontainers.WithTmpfs(map[string]string{memory: "rw"}), testcontainers.WithEnv(map[string]string{"PGDATA": memory + "/data"}))
	// A short stop time-out, because nobody needs the data. TerminateContainer has time-outs of its own.
	remove := func() error { return testcontainers.TerminateContainer(ctr, testcontainers.StopTimeout(time.Second)) }
	if err != nil {
		return errors.Join(fmt.Errorf("testcontainers: %w", err), remove())
	}
	dsn, err := ctr.ConnectionString(ctx, "sslmode=disable")
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(Answer{DSN: dsn, Image: image})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("testcontainers: %w", err), remove())
	}
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // wait for its end, which also comes when the tests end
		close(closed)
	}()
	select {
	case <-closed:
	case <-ctx.Done():
	}
	return remove()
}

// absence checks that the engine and the image are there, because testcontainers would retry a pull for minutes. It returns nil if they are.
func absence(ctx context.Context, image string) *Answer {
	engineCtx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(engineCtx)
	if err != nil {
		return &Answer{Absent: fmt.Sprintf("no Docker engine answers: %v", err)}
	}
	defer func() { _ = docker.Close() }()
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return nil
	}
	if err := pull(ctx, docker, image); err != nil {
		return &Answer{
			Absent: fmt.Sprintf("a Docker engine answers, but image %s (TEST_POSTGRES_IMAGE) is not there and cannot be pulled: %v", image, err),
			Engine: true,
		}
	}
	return nil
}

// pull pulls a public image. A private one must be there already.
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

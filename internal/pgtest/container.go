package pgtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// absentError says that this machine cannot run a container, which is not a failure.
type absentError struct {
	text    string
	mustLog bool // there is an engine, so its owner expects that it is used
}

func (e *absentError) Error() string { return e.text }

// startContainer starts a container with the program postgrescontainer. Compiling that takes most of a minute, so it is not even tried when
// nothing points to a Docker engine.
func startContainer(ctx context.Context) (*server, error) {
	if !mayHaveEngine() {
		return nil, &absentError{text: "no Docker engine answers: there is no DOCKER_HOST, no docker context and no socket"}
	}
	args := []string{"run", "auditstream/internal/pgtest/postgrescontainer"}
	for name, value := range settings() {
		args = append(args, name+"="+value)
	}
	cmd := exec.Command("go", args...) // without ctx, because all tests use the server
	var complaint strings.Builder
	cmd.Stderr = &complaint
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("postgrescontainer: %w", err)
	}
	stop := func(ctx context.Context) error {
		kill := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		defer kill()
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("postgrescontainer: %w: %s", err, strings.TrimSpace(complaint.String()))
		}
		return nil
	}
	hurry := context.AfterFunc(ctx, func() { _ = stdin.Close() })
	defer hurry()
	var answer struct {
		DSN, Image, Absent string
		Engine             bool
	}
	err = json.NewDecoder(stdout).Decode(&answer)
	switch {
	case errors.Is(err, io.EOF):
		err = errors.New("postgrescontainer started no server")
	case err != nil:
		err = fmt.Errorf("postgrescontainer: %w", err)
	case answer.Absent != "":
		err = &absentError{answer.Absent, answer.Engine}
	default:
		return &server{dsn: answer.DSN, origin: "testcontainers image " + answer.Image, stop: stop}, nil
	}
	return nil, errors.Join(err, stop(ctx))
}

// mayHaveEngine looks where testcontainers-go would: https://golang.testcontainers.org/features/configuration
func mayHaveEngine() bool {
	home, _ := os.UserHomeDir() // without a home directory there is nothing to find in it
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "TESTCONTAINERS_HOST_OVERRIDE"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	if properties, err := os.ReadFile(filepath.Join(home, ".testcontainers.properties")); err == nil && strings.Contains(string(properties), "host") {
		return true
	}
	if config, err := os.ReadFile(filepath.Join(home, ".docker", "config.json")); err == nil && strings.Contains(string(config), `"currentContext"`) {
		return true
	}
	for _, socket := range []string{
		"/var/run/docker.sock", filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "docker.sock"), filepath.Join(home, ".docker", "run", "docker.sock"),
		filepath.Join(home, ".docker", "desktop", "docker.sock"), fmt.Sprintf("/run/user/%d/docker.sock", os.Getuid()),
	} {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err == nil {
			_ = conn.Close()
			return true
		}
	}
	return false
}

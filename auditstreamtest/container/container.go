// Package container runs auditstream's image next to a database's container, for tests with testcontainers-go. It is a module of its own, so
// that other programs do not get Docker's packages.
//
//	database, err := postgres.Run(ctx, "postgres:17-alpine", postgres.BasicWaitStrategies())
//	...
//	as, err := container.Run(ctx, "auditstream", container.WithDatabase(database), container.WithTable("public.audits"))
//	testcontainers.CleanupContainer(t, as)
//	...
//	request.Header.Set("Authorization", "Bearer "+as.Token("user-1")) // of as.URL + "/api/v1/sse/audits/42/progress"
//
// Tests in Go that need no image use auditstreamtest, which serves in the test's process.
package container

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	port = "8080/tcp"
	// startTimeout is long enough for a busy machine. A wrong configuration does not take so long: it ends the container, and so the wait.
	startTimeout = time.Minute
)

// Container is a running server.
type Container struct {
	testcontainers.Container
	// URL is the server's base URL for the test, without a slash at the end.
	URL string

	secret string
}

// Option is an option of [Run].
type Option func(ctx context.Context, s *settings) error

type settings struct {
	env        map[string]string
	networks   []string
	customizer []testcontainers.ContainerCustomizer
}

// WithDatabase makes the server use the database in a container, as that container's user.
func WithDatabase(database *postgres.PostgresContainer) Option {
	return func(ctx context.Context, s *settings) error {
		text, err := database.ConnectionString(ctx)
		if err != nil {
			return fmt.Errorf("the database's address: %w", err)
		}
		u, err := url.Parse(text)
		if err != nil {
			return errors.New("the database's address is no URL (not shown, it holds a password)")
		}
		networks, err := database.Networks(ctx)
		if err != nil {
			return fmt.Errorf("the database's networks: %w", err)
		}
		ip, err := database.ContainerIP(ctx)
		if err != nil {
			return fmt.Errorf("the database's address: %w", err)
		}
		u.Host = net.JoinHostPort(ip, "5432")
		s.env["DATABASE_URL"] = u.String()
		for _, name := range networks {
			if name != "bridge" { // every container is in this one
				s.networks = append(s.networks, name)
			}
		}
		return nil
	}
}

// WithTable makes the server adopt a table before it serves, as auditstream install --table does.
func WithTable(name string) Option { return WithEnv("AUDITSTREAM_INSTALL", name) }

// WithEnv sets an environment variable of auditstream serve; docs/configuration.md lists them.
func WithEnv(name, value string) Option {
	return func(_ context.Context, s *settings) error {
		s.env[name] = value
		return nil
	}
}

// With passes options to testcontainers.
func With(customizers ...testcontainers.ContainerCustomizer) Option {
	return func(_ context.Context, s *settings) error {
		s.customizer = append(s.customizer, customizers...)
		return nil
	}
}

// Run starts a container of image, and returns when the server receives notifications. If it fails after the container was made, it returns
// the container with the error, so that its log can be read. The caller terminates the container.
func Run(ctx context.Context, image string, options ...Option) (*Container, error) {
	s := &settings{env: map[string]string{"JWT_SECRET": rand.Text() + rand.Text(), "HTTP_ADDR": ":8080", "ADMIN_ADDR": "off"}}
	for _, option := range options {
		if err := option(ctx, s); err != nil {
			return nil, fmt.Errorf("auditstream: %w", err)
		}
	}
	if s.env["DATABASE_URL"] == "" {
		return nil, errors.New("auditstream: there is no database: give WithDatabase, or WithEnv of DATABASE_URL")
	}
	all := append([]testcontainers.ContainerCustomizer{
		testcontainers.WithEnv(s.env), testcontainers.WithExposedPorts(port), inNetworks(s.networks),
		testcontainers.WithWaitStrategyAndDeadline(startTimeout, wait.ForHTTP("/readyz").WithPort(port).WithResponseMatcher(listens)),
	}, s.customizer...)
	running, err := testcontainers.Run(ctx, image, all...)
	if running == nil {
		return nil, fmt.Errorf("auditstream: %w", err)
	}
	c := &Container{Container: running, secret: s.env["JWT_SECRET"]}
	if err != nil {
		return c, fmt.Errorf("auditstream: %w", err)
	}
	c.URL, err = running.PortEndpoint(ctx, port, "http")
	return c, err
}

func inNetworks(names []string) testcontainers.CustomizeRequestOption {
	return func(r *testcontainers.GenericContainerRequest) error {
		r.Networks = append(r.Networks, names...)
		return nil
	}
}

// listens reports whether /readyz says that notifications arrive.
func listens(body io.Reader) bool {
	text, err := io.ReadAll(io.LimitReader(body, 4096))
	return err == nil && strings.Contains(string(text), `"listener":"up"`)
}

// Token returns a token of a user, valid for an hour, and for this server only.
func (c *Container) Token(user string) string {
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(c.secret))
	if err != nil {
		panic(err) // cannot happen: the claims are a text and a number, the key is bytes
	}
	return token
}

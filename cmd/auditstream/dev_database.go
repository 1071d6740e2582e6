package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"auditstream/internal/localpg"
	"auditstream/internal/server"
	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// The roles of a production set-up: the application's knows nothing of auditstream, and serve's may only read the view.
const (
	devDatabase  = "auditstream"
	devAppRole   = "app"
	devServeRole = "auditstream_serve"
)

// devURLs are connection strings of dev's database, by role.
type devURLs struct {
	owner string // superuser: for the developer
	app   string // for the workers
	serve string
}

// prepareDevDatabase makes what is missing: the database, the roles (with new passwords each time), the table, and what
// install adds.
func prepareDevDatabase(ctx context.Context, pg *localpg.Server, logger *slog.Logger) (devURLs, error) {
	urls := devURLs{owner: pg.DSN(devDatabase)}
	if err := makeDevDatabase(ctx, pg); err != nil {
		return devURLs{}, err
	}
	owner, err := connect(ctx, urls.owner)
	if err != nil {
		return devURLs{}, err
	}
	defer owner.Close(context.WithoutCancel(ctx))
	for role, target := range map[string]*string{devAppRole: &urls.app, devServeRole: &urls.serve} {
		if *target, err = makeRole(ctx, owner, role, urls.owner); err != nil {
			return devURLs{}, err
		}
	}
	_, err = sql.Install(ctx, owner, sql.Options{Create: true, Role: devServeRole, Logger: logger})
	if err != nil {
		return devURLs{}, err
	}
	_, err = owner.Exec(ctx, "grant select, insert, update, delete on "+sql.DefaultTable+" to "+devAppRole)
	if err != nil {
		return devURLs{}, fmt.Errorf("grant %s its rights: %w", devAppRole, err)
	}
	return urls, installExports(ctx, owner, logger)
}

func makeDevDatabase(ctx context.Context, pg *localpg.Server) error {
	root, err := connect(ctx, pg.DSN("postgres"))
	if err != nil {
		return err
	}
	defer root.Close(context.WithoutCancel(ctx))
	var exists bool
	err = root.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", devDatabase).Scan(&exists)
	if err == nil && !exists {
		_, err = root.Exec(ctx, "create database "+devDatabase)
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", devDatabase, err)
	}
	return nil
}

// makeRole returns the URL by which the role reaches the database of ownerURL.
func makeRole(ctx context.Context, conn *pgx.Conn, name, ownerURL string) (string, error) {
	var exists bool
	err := conn.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", name).Scan(&exists)
	if err != nil {
		return "", fmt.Errorf("look up role %s: %w", name, err)
	}
	verb := "create"
	if exists {
		verb = "alter"
	}
	password := rand.Text() // letters and digits, which need no quoting in SQL
	_, err = conn.Exec(ctx, fmt.Sprintf("%s role %s login password '%s'", verb, pgx.Identifier{name}.Sanitize(), password))
	if err != nil {
		return "", fmt.Errorf("%s role %s: %w", verb, name, err)
	}
	u, err := url.Parse(ownerURL)
	if err != nil {
		return "", fmt.Errorf("address of the private database: %w", err)
	}
	u.User = url.UserPassword(name, password)
	return u.String(), nil
}

// devSecret returns the key in the file path, and creates it if there is none, so that the tokens of open tabs survive a restart.
func devSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the tokens' key: %w", err)
	}
	if secret := strings.TrimSpace(string(text)); len(secret) >= server.MinSecret {
		return secret, nil
	}
	secret := rand.Text() + rand.Text()
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the tokens' key: %w", err)
	}
	return secret, nil
}

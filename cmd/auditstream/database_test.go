package main

import (
	"strings"
	"testing"

	"auditstream/internal/pgtest"
)

// The documented pool_max_conns reached the server as a parameter that it does not know, on every connection that is not
// the pool's: LISTEN never worked, and neither did install.
func TestPoolSettingsAreThePoolsAlone(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	dsn += separator + "pool_max_conns=2&pool_min_conns=0"
	command(t, "install", "--create", "--database-url="+dsn).want(t, exitDone)
	got := command(t, "doctor", "--database-url="+dsn, "--jwt-secret="+testSecret)
	mustNotContain(t, got.out+got.stderr, "unrecognized")
	mustContain(t, got.out, "LISTEN")
}

// A period of 0 made the pool panic, and 2147483647 connections made it start as many goroutines.
func TestPoolSettingsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{
		"pool_health_check_period=0s", "pool_health_check_period=-1s", "pool_min_conns=-1", "pool_min_conns=2147483647", "pool_min_idle_conns=-1",
		"pool_max_conns=2&pool_min_idle_conns=3", "pool_max_conns=0",
	} {
		got := command(t, "serve", "--database-url=postgres://u:geheimnis@127.0.0.1:1/x?"+setting, "--jwt-secret="+testSecret).want(t, exitUsage)
		mustContain(t, got.stderr, "DATABASE_URL", "pool_max_conns from 1")
		mustNotContain(t, got.stderr, "geheimnis")
	}
}

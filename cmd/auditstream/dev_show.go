package main

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"auditstream/internal/docsite"
	"auditstream/internal/server"
	"auditstream/internal/server/web"
)

// devShow makes what the developer sees: the lines in the terminal, and the page.
type devShow struct {
	secret     string
	simulation *simulation
	psql       string
	lab        *devLab // nil: the page has no buttons
}

func (d devShow) lines(version, dir string, addr, admin net.Addr) string {
	base := "http://" + reachable(addr)
	return fmt.Sprintf(`
PostgreSQL %s and auditstream are running.

  Open the page:

    %s/
    %s/?feed=%s    (another table, with words of its own)

  Watch audit %d in a terminal:

    curl -N -H "Authorization: Bearer %s" %s/api/v1/sse/audits/%d/progress

  Change its row from another terminal:

    %s

  Read the documents: %s/docs/

  Audit %d belongs to somebody else: asked for, it answers 403.
  Metrics are at http://%s/metrics. The data is kept in %s.
  Ctrl-C stops everything.
`, version, base, base, exportsFeed,
		d.simulation.byHand, d.token(devPrintedTokenTTL), base, d.simulation.byHand,
		d.psql, base,
		d.simulation.foreign, admin, dir)
}

func (d devShow) page() http.Handler {
	options := web.Options{Dev: func() web.Dev {
		return web.Dev{
			Audits: d.simulation.recent(),
			Token:  d.token(devPageTokenTTL),
			User:   devUser,
			ByHand: d.simulation.byHand,
			SQL:    d.psql,
			Feeds:  []string{exportsFeed},
		}
	}, Docs: docsite.Handler("/docs/")}
	if d.lab != nil {
		options.Pulse, options.Actions = d.lab.pulse, d.lab.actions()
	}
	return web.Page(options)
}

func (d devShow) token(ttl time.Duration) string {
	token, err := signToken(d.secret, tokenClaims(devUser, "", server.AuthConfig{}, ttl))
	if err != nil {
		panic(err) // cannot happen: the claims are texts and numbers, the key is bytes
	}
	return token
}

// reachable returns the address for a browser on this machine: an unspecified IP becomes the loopback address.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return fmt.Sprintf("%s:%d", devHost, tcp.Port)
}

// psqlLine returns a shell command that changes an audit each time it is run.
func psqlLine(binDir, url string, id int64) string {
	return fmt.Sprintf(`%s "%s" -c "update audits set progress = 50, message = 'by hand at ' || now()::time(0) where id = %d"`,
		psqlCommand(binDir), url, id)
}

// psqlCommand returns how a shell starts psql.
func psqlCommand(binDir string) string {
	if _, err := exec.LookPath("psql"); err == nil {
		return "psql"
	}
	path, err := exec.LookPath(filepath.Join(binDir, "psql"))
	if err != nil {
		return "psql" // psql is not installed; the shell will say so
	}
	if strings.ContainsFunc(path, func(r rune) bool { return strings.ContainsRune(" \t'\"\\$&;()<>|*?[]!`", r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

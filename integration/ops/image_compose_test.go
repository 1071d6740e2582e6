//go:build image

package ops

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// composed brings compose.yaml up with an image, follows an audit's update, and looks what can be reached and by whom.
func composed(t *testing.T, image string) {
	env := filepath.Join(t.TempDir(), "env")
	example, err := os.ReadFile(harness.Path("deploy/compose/env.example"))
	harness.NoError(t, err)
	filled := regexp.MustCompile(`(?m)=$`).ReplaceAll(example, []byte("="+harness.JWTSecret))
	harness.NoError(t, os.WriteFile(env, filled, 0o600))
	compose := []string{"docker", "compose"}
	if exec.CommandContext(t.Context(), "docker", "compose", "version").Run() != nil {
		compose = []string{"docker-compose"} // Debian's
	}
	project := fmt.Sprintf("auditstream-test-%d", os.Getpid())
	compose = append(compose, "-p", project, "-f", harness.Path("compose.yaml"), "--env-file", env)
	run := func(args ...string) (string, error) {
		args = append(slices.Clone(compose), args...)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "AUDITSTREAM_IMAGE="+image, "PUBLISH=127.0.0.1:0")
		if postgres := os.Getenv("TEST_POSTGRES_IMAGE"); postgres != "" {
			cmd.Env = append(cmd.Env, "POSTGRES_IMAGE="+postgres)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := run("logs", "--no-color")
			t.Log(logs)
		}
		if out, err := run("down", "-v"); err != nil {
			t.Errorf("compose down: %v\n%s", err, out)
		}
	})
	if out, err := run("up", "-d", "--no-build"); err != nil {
		t.Fatalf("compose up: %v\n%s", err, out)
	}
	container := func(service string) string {
		t.Helper()
		id := docker(t, nil, "ps", "-aq", "--filter", "label=com.docker.compose.project="+project, "--filter", "label=com.docker.compose.service="+service)
		if id == "" || strings.Contains(id, "\n") {
			t.Fatalf("containers of %s: %q, want one", service, id)
		}
		return id
	}
	serve, database := container("auditstream"), container("postgres")
	harness.Equal(t, docker(t, nil, "port", database), "", "the database is published")
	harness.Equal(t, docker(t, nil, "inspect", "-f", "{{.State.ExitCode}}", container("install")), "0", "install: exit status")
	address := docker(t, nil, "port", serve, "8080/tcp")
	harness.Becomes(t, func() string { return docker(t, nil, "inspect", "-f", "{{.State.Health.Status}}", serve) }, "healthy", "the health check")
	(&harness.Instance{URL: "http://" + address}).WaitReady(t, "up")
	psql := func(statement string) string {
		t.Helper()
		return docker(t, nil, "exec", "-u", "postgres", database, "psql", "-U", "postgres", "-d", "app", "-qAtc", statement)
	}
	harness.Equal(t, psql("select rolsuper from pg_roles where rolname = 'auditstream_serve'"), "f", "whether serve's role is a superuser")
	id := psql("insert into audits (url, user_id) values ('https://example.com', 'alice') returning id")
	i := &harness.Instance{URL: "http://" + address}
	s := i.Shown(t, id, harness.AliceToken(t))
	psql("update audits set progress = 26 where id = " + id)
	s.WantProgress(t, 26)
	psql("update audits set status = 'completed' where id = " + id)
	s.NextProgress(t)
	s.Ended(t)

	// A restart would not bring the database back, so its absence is no reason for one.
	docker(t, nil, "stop", database)
	docker(t, nil, "exec", serve, "/auditstream", "doctor", "--live")
}

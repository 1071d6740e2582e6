//go:build image

package ops

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// hardened are the flags under which docs/deploy.md says that the image runs. The host's network is for the
// test's database and issuer on loopback addresses.
func hardened(t testing.TB) []string {
	t.Helper()
	_, command, found := strings.Cut(harness.Document(t, "docs/deploy.md"), "    docker run ")
	flags, _, _ := strings.Cut(command, " --env-file ")
	if !found || !strings.HasPrefix(flags, "--read-only ") || strings.Contains(flags, "\n") {
		t.Fatalf("docs/deploy.md does not say how to run the image with less rights: %.200s", command)
	}
	return append(strings.Fields(flags), "--network", "host")
}

// contained runs serve from the image.
func contained(t testing.TB, image string, flags []string, env ...string) (i *harness.Instance, container string) {
	t.Helper()
	container = strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	args := slices.Concat([]string{"run", "--rm", "--name", container}, hardened(t), flags)
	for _, e := range append([]string{"HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json"}, env...) {
		args = append(args, "--env", e)
	}
	i = &harness.Instance{Log: harness.NewLogBuffer()}
	i.Cmd = exec.Command("docker", append(args, image)...) // which hands signals on
	i.Cmd.Stderr = i.Log
	i.Done = harness.StartProcess(t, i.Cmd)
	t.Cleanup(func() {
		i.Stop(t)
		_ = exec.Command("docker", "rm", "-f", container).Run() // it is gone, unless something hangs
	})
	serving := i.WaitLog(t, "serving")
	i.URL, i.Admin = "http://"+serving["addr"].(string), "http://"+serving["admin_addr"].(string)
	return i, container
}

// The image of the Dockerfile, built and run.
func TestImage(t *testing.T) {
	iss := newHTTPSIssuer(t)
	const image = "auditstream-test"
	docker(t, nil, "build", "--quiet", "-t", image, "--build-arg", "BUILDER="+builder(t, iss), "--build-arg", "RELEASE=v0.0.0-image", harness.Path("."))

	t.Run("holds nothing else", func(t *testing.T) {
		container := docker(t, nil, "create", image)
		defer docker(t, nil, "rm", container)
		list, err := exec.CommandContext(t.Context(), "sh", "-c", "docker export "+container+" | tar -tv").Output()
		harness.NoError(t, err)
		var files []string
		for line := range strings.Lines(string(list)) {
			fields := strings.Fields(line)
			name := fields[5]
			// What an engine puts into every container.
			if strings.HasSuffix(name, "/") || slices.Contains([]string{".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}, name) {
				continue
			}
			if strings.ContainsAny(fields[0], "sS") {
				t.Errorf("setuid or setgid: %s", line)
			}
			files = append(files, name)
		}
		harness.WantList(t, "files", files, []string{"auditstream", "etc/ssl/certs/ca-certificates.crt"})
		harness.Equal(t, docker(t, nil, "inspect", "-f", "{{.Config.User}}", image), "65532:65532", "user")
		harness.WantIn(t, docker(t, nil, append([]string{"run", "--rm"}, append(hardened(t), image, "version")...)...), "v0.0.0-image")
		if out, err := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--entrypoint", "sh", image, "-c", "true").CombinedOutput(); err == nil {
			t.Errorf("there is a shell: %s", out)
		}
	})

	t.Run("serves with no rights", func(t *testing.T) {
		db := harness.NewFirstAuditDatabase(t)
		db.LockUp(t)
		key, public := harness.ECKey(t, "k1")
		iss.mu.Lock()
		iss.keys = []map[string]string{public}
		iss.mu.Unlock()
		i, container := contained(t, image, nil, "DATABASE_URL="+db.Serve, "JWT_SECRET="+harness.JWTSecret,
			"JWT_JWKS_URL="+iss.URL+"/keys", "JWT_ISSUER=https://issuer.example", "JWT_AUDIENCE=auditstream")
		servesWhole(t, i, db, harness.IssuedToken(t, jwt.SigningMethodES256, key, "k1", nil))

		pid := docker(t, nil, "inspect", "-f", "{{.State.Pid}}", container)
		status, err := os.ReadFile("/proc/" + pid + "/status")
		harness.NoError(t, err)
		for _, want := range []string{`Uid:\t65532\t65532\t65532\t65532`, `Gid:\t65532\t65532\t65532\t65532`, `CapEff:\t0{16}`, `CapPrm:\t0{16}`, `CapBnd:\t0{16}`, `NoNewPrivs:\t1`, `Seccomp:\t2`} {
			if !regexp.MustCompile(`(?m)^` + want + `$`).Match(status) {
				t.Errorf("the process's status has no line %s:\n%s", want, status)
			}
		}
	})

	// systemd itself does not run in tests, but its filter can be had: what the unit allows is all that this one may call.
	t.Run("serves with the system calls of the unit", func(t *testing.T) {
		db := harness.NewFirstAuditDatabase(t)
		profile := filepath.Join(t.TempDir(), "seccomp.json")
		harness.NoError(t, os.WriteFile(profile, seccomp(t), 0o600))
		i, _ := contained(t, image, []string{"--security-opt", "seccomp=" + profile}, "DATABASE_URL="+db.Serve, "JWT_SECRET="+harness.JWTSecret)
		servesWhole(t, i, db, harness.AliceToken(t))
	})

	t.Run("is one container of a test in Node.js", func(t *testing.T) { besideContainers(t, image) })
	for _, folder := range []string{"auditstreamtest/container", "examples/testcontainers-go"} {
		t.Run("is one container of a test in Go, "+folder, func(t *testing.T) { besideContainersInGo(t, image, folder) })
	}

	t.Run("comes up with its database", func(t *testing.T) { composed(t, image) })
}

// servesWhole follows the audit of harness.NewFirstAuditDatabase to its end.
func servesWhole(t *testing.T, i *harness.Instance, db harness.Database, token string) {
	t.Helper()
	if status, body := i.Get(t, "/healthz"); status != http.StatusOK || body != `{"status":"ok"}` {
		t.Errorf("/healthz: %d %s", status, body)
	}
	i.WaitReady(t, "up")
	s := i.Watch(t, "1", token)
	s.WantProgress(t, 25)
	db.SQL(t, "update audits set progress = 26")
	s.WantProgress(t, 26)
	i.AskAs(t, token, harness.StatusPath("1")).WantStatus(t, http.StatusOK)
	i.WantMetric(t, "auditstream_streams_open", 1)
	db.SQL(t, "update audits set status = 'completed'")
	harness.Equal(t, s.NextProgress(t).Status, "completed", "status")
	s.Ended(t)
}

// seccomp is the unit's SystemCallFilter as a profile for an engine: everything else fails with EPERM.
func seccomp(t *testing.T) []byte {
	t.Helper()
	unit, err := os.ReadFile(harness.Path(unitFile))
	harness.NoError(t, err)
	sets := map[string]string{}
	var name string
	for line := range strings.Lines(systemdAnalyze(t, "syscall-filter", "--no-pager")) {
		if strings.HasPrefix(line, "@") {
			name = strings.TrimSpace(line)
		} else {
			sets[name] += strings.SplitN(line, "#", 2)[0]
		}
	}
	var apply func(allowed map[string]bool, set string, may bool)
	apply = func(allowed map[string]bool, set string, may bool) {
		if members, ok := sets[set]; ok {
			for member := range strings.FieldsSeq(members) {
				apply(allowed, member, may)
			}
			return
		}
		if strings.HasPrefix(set, "@") {
			t.Fatalf("systemd knows no %s", set)
		}
		if allowed[set] = may; !may {
			delete(allowed, set)
		}
	}
	allowed := map[string]bool{}
	filters := regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(string(unit), -1)
	if len(filters) == 0 {
		t.Fatal("the unit has no SystemCallFilter")
	}
	for _, filter := range filters {
		for set := range strings.FieldsSeq(filter[2]) {
			apply(allowed, set, filter[1] == "")
		}
	}
	names := []string{}
	for call := range allowed {
		names = append(names, call)
	}
	profile, err := json.Marshal(map[string]any{
		"defaultAction": "SCMP_ACT_ERRNO",
		"syscalls":      []map[string]any{{"names": names, "action": "SCMP_ACT_ALLOW"}},
	})
	if err != nil {
		t.Fatal(fmt.Errorf("seccomp profile: %w", err))
	}
	return profile
}

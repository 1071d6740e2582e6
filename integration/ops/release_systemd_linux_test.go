//go:build release

package ops

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// packageUnderSystemd is the package's whole life on a Debian that runs systemd.
func packageUnderSystemd(t *testing.T, deb string) {
	if os.Getuid() != 0 {
		t.Log("NOT TESTED: the package under a running systemd. Only root can start one: run this as root, as CI does")
		return
	}
	db := harness.NewFirstAuditDatabase(t)
	m := startMachine(t, debian(t))
	port, err := harness.FreePort()
	harness.NoError(t, err)
	i := &harness.Instance{URL: fmt.Sprintf("http://127.0.0.1:%d", port)}
	t.Cleanup(func() {
		if t.Failed() {
			journal, _ := m.try(t, "systemctl status --no-pager auditstream; journalctl --no-pager -n 80 -o cat")
			t.Log(journal)
		}
	})
	ready := func() {
		t.Helper()
		i.WaitStatus(t, "", "/readyz", 200)
	}
	property := func(name string) string {
		t.Helper()
		return m.run(t, "systemctl show --value --property="+name+" auditstream")
	}
	wantProperty := func(name, want string) {
		t.Helper()
		harness.Becomes(t, func() string { return property(name) }, want, name)
	}
	wantStatus := func(key string, want int) {
		t.Helper()
		i.AskAs(t, harness.AliceTokenOf(t, key), harness.StatusPath("1")).WantStatus(t, want)
	}
	first, second := strings.Repeat("first-key-", 4), strings.Repeat("second-key-", 4)
	settings := func(lines ...string) {
		t.Helper()
		lines = append(lines, "DATABASE_URL="+db.Serve, fmt.Sprintf("HTTP_ADDR=127.0.0.1:%d", port), "ADMIN_ADDR=off")
		m.put(t, "/etc/default/auditstream", strings.Join(lines, "\n"), "640")
	}

	m.put(t, "/before", "", "600")
	copyInto(t, m, deb, "/tmp/auditstream.deb")
	m.run(t, "dpkg -i /tmp/auditstream.deb")
	wantProperty("ActiveState", "inactive")
	wantProperty("UnitFileState", "disabled")

	settings("JWT_SECRET=" + first)
	m.run(t, "systemctl enable --now auditstream")
	ready()
	if out, err := m.try(t, "runuser -u nobody -- cat /etc/default/auditstream"); err == nil {
		t.Errorf("anybody reads the settings: %s", out)
	}
	// As the unit says, for a reload of secrets.
	m.put(t, "/etc/systemd/system/auditstream.service.d/override.conf", "[Service]\nSupplementaryGroups=auditstream-settings\nEnvironment=AUDITSTREAM_ENV_FILE=/etc/default/auditstream", "644")
	m.run(t, `groupadd --system auditstream-settings
chgrp auditstream-settings /etc/default/auditstream && chmod 640 /etc/default/auditstream
systemctl daemon-reload && systemctl restart auditstream`)
	ready()
	wantStatus(first, 200)
	harness.Equal(t, m.run(t, "stat -c '%U %G %a' /etc/default/auditstream"), "root auditstream-settings 640", "the settings belong to")
	if user := m.run(t, "stat -c %u /proc/$(systemctl show --value -p MainPID auditstream)"); len(user) != 5 { // 61184 to 65519
		t.Errorf("the service runs as %s, want a user of its own", user)
	}
	harness.Equal(t, m.run(t, "systemctl show --value -p LimitNOFILESoft auditstream"), "65536", "descriptors")

	open := i.Shown(t, "1", harness.AliceTokenOf(t, first))
	pid := property("MainPID")
	reload := func(changed string, lines ...string) {
		t.Helper()
		settings(lines...)
		m.run(t, "systemctl reload auditstream")
		harness.WaitIn(t, func() string { return m.run(t, "journalctl --no-pager -o cat -u auditstream") }, `msg=reloaded changed="[`+changed+`]"`)
	}
	reload("JWT_SECRET JWT_SECRET_PREVIOUS", "JWT_SECRET="+second, "JWT_SECRET_PREVIOUS="+first)
	wantStatus(first, 200)
	wantStatus(second, 200)
	reload("JWT_SECRET_PREVIOUS LOG_LEVEL", "JWT_SECRET="+second, "LOG_LEVEL=debug")
	wantStatus(first, 401)
	wantStatus(second, 200)
	harness.WantIn(t, m.run(t, "journalctl --no-pager -o cat -u auditstream"), `msg="request refused"`)
	harness.Equal(t, property("MainPID"), pid, "the process after a reload")
	db.SQL(t, "update audits set progress = 26")
	open.WantEvent(t, `{"audit_id":1,"status":"running","progress":26,"message":"Analyzing pages..."}`)

	// A stop ends streams properly, within its time, and counts as a success.
	m.run(t, "systemctl stop auditstream")
	open.Ended(t)
	wantProperty("ActiveState", "inactive")
	wantProperty("Result", "success")

	m.run(t, "systemctl start auditstream")
	ready()
	pid = property("MainPID")
	m.run(t, "kill -KILL "+pid)
	wantProperty("NRestarts", "1")
	ready()

	// An upgrade starts one that runs anew, and leaves one that is stopped alone.
	pid = property("MainPID")
	m.run(t, `cd /tmp && dpkg-deb -R auditstream.deb next && sed -i 's/^Version:.*/Version: 0.0.2/' next/DEBIAN/control && dpkg-deb -Zgzip -z1 -b next next.deb`)
	m.run(t, "dpkg --force-confold -i /tmp/next.deb")
	ready()
	if got := property("MainPID"); got == pid {
		t.Error("the old program goes on after an upgrade")
	}
	wantProperty("UnitFileState", "enabled")
	m.run(t, "systemctl stop auditstream && dpkg --force-confold -i /tmp/next.deb")
	wantProperty("ActiveState", "inactive")
	m.run(t, "systemctl start auditstream")
	ready()

	m.run(t, "dpkg --remove auditstream")
	wantProperty("LoadState", "not-found")
	wantProperty("ActiveState", "inactive")
	m.run(t, "dpkg --purge auditstream && rm -r /etc/systemd/system/auditstream.service.d && groupdel auditstream-settings") // the operator's own
	left := m.run(t, "find / -xdev -newer /before ! -type d ! -path '/var/log/*' ! -path '/var/lib/dpkg/*' ! -path '/var/cache/*' ! -path '/tmp/*' ! -path '/etc/group*' ! -path '/etc/gshadow*'; find / -xdev -path /tmp -prune -o -name '*auditstream*' -print")
	harness.Equal(t, left, "", "left after purge")
}

// copyInto copies a file into the machine.
func copyInto(t *testing.T, m *machine, from, to string) {
	t.Helper()
	abs, err := filepath.Abs(from)
	harness.NoError(t, err)
	shell(t, ".", nil, "nsenter --target "+m.first+" --mount sh -c 'cat >"+to+"' <'"+abs+"'")
}

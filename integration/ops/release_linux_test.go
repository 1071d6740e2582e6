//go:build release

package ops

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

const (
	testRelease = "v0.0.1"
	testEpoch   = "1700000000" // 2023-11-14 22:13:20 UTC
)

// release copies this tree to a folder of its own and makes a release of it there.
func release(t *testing.T, folder, architectures string, env ...string) (dist string) {
	t.Helper()
	tree := filepath.Join(t.TempDir(), folder)
	harness.NoError(t, os.Mkdir(tree, 0o755))
	shell(t, harness.Path("."), nil, `git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -c | tar -x -C '`+tree+`'`)
	shell(t, tree, append(env, "RELEASE_TOOLS="+harness.Path("bin/release-tools"), "SOURCE_DATE_EPOCH="+testEpoch, "ARCHITECTURES="+architectures), "deploy/release "+testRelease)
	return filepath.Join(tree, "dist")
}

func shell(t *testing.T, dir string, env []string, line string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", line)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", line, err, out, errs.String())
	}
	return string(out)
}

// A release, made and taken apart; and made again, from another folder and with nothing compiled before.
func TestRelease(t *testing.T) {
	dist := release(t, "tree", "amd64 arm64")
	bare := strings.TrimPrefix(testRelease, "v")
	packages := map[string]string{}
	var want []string
	for _, arch := range []string{"amd64", "arm64"} {
		packages[arch] = "auditstream_" + bare + "_" + arch + ".deb"
		name := "auditstream-" + testRelease + "-linux-" + arch
		want = append(want, name+".cdx.json", name+".tar.gz", packages[arch])
	}
	slices.Sort(want)
	t.Run("sums", func(t *testing.T) {
		var listed []string
		for line := range strings.Lines(shell(t, dist, nil, "sha256sum --check --strict --quiet SHA256SUMS && cat SHA256SUMS")) {
			listed = append(listed, strings.Fields(line)[1])
		}
		slices.Sort(listed)
		harness.WantList(t, "SHA256SUMS", listed, want)
		files := strings.Fields(shell(t, dist, nil, "LC_ALL=C ls"))
		harness.WantList(t, "files", files, append([]string{"SHA256SUMS"}, want...))
	})
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) { releasedProgram(t, dist, arch, machine) })
	}
	t.Run("package", func(t *testing.T) { installedPackage(t, filepath.Join(dist, packages["amd64"])) })
	t.Run("under systemd", func(t *testing.T) { packageUnderSystemd(t, filepath.Join(dist, packages["amd64"])) })
	t.Run("the same bytes again", func(t *testing.T) {
		again := release(t, "another-tree", "amd64", "GOCACHE="+t.TempDir(), "TZ=Asia/Tokyo", "LANG=C.UTF-8", "GOAMD64=v3")
		for _, file := range want {
			if strings.Contains(file, "arm64") {
				continue
			}
			first, err := os.ReadFile(filepath.Join(dist, file))
			harness.NoError(t, err)
			second, err := os.ReadFile(filepath.Join(again, file))
			harness.NoError(t, err)
			if !bytes.Equal(first, second) {
				t.Errorf("%s differs", file)
			}
		}
	})
}

// releasedProgram looks into the archive and into its SBOM.
func releasedProgram(t *testing.T, dist, arch string, machine elf.Machine) {
	name := "auditstream-" + testRelease + "-linux-" + arch
	list := shell(t, dist, nil, "TZ=UTC tar --numeric-owner -tvzf "+name+".tar.gz")
	for line := range strings.Lines(list) {
		if !regexp.MustCompile(`^(d|-)rw(xr-xr-x|-r--r--) 0/0 +\d+ 2023-11-14 22:13 ` + name + `/`).MatchString(line) {
			t.Errorf("mode, owner or time: %s", line)
		}
	}
	dir := t.TempDir()
	shell(t, dist, nil, "tar -xzf "+name+".tar.gz --strip-components=1 -C '"+dir+"'")
	path := filepath.Join(dir, "auditstream")
	program, err := elf.Open(path)
	harness.NoError(t, err)
	defer program.Close()
	harness.Equal(t, program.Machine, machine, "made for")
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	if arch == "amd64" {
		if got := shell(t, dir, nil, "./auditstream version"); !strings.HasPrefix(got, "auditstream "+testRelease+" (go") {
			t.Errorf("version: %s", got)
		}
	}
	harness.Equal(t, shell(t, dir, nil, "mandoc -Tlint -W warning auditstream.1"), "", "the manual page")
	info, err := buildinfo.ReadFile(path)
	harness.NoError(t, err)
	linked := []string{"std@" + info.GoVersion}
	for _, module := range info.Deps {
		linked = append(linked, module.Path+"@"+module.Version)
	}
	slices.Sort(linked)
	var bom struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct {
			Name, Version string
			Evidence      struct{ Licenses []any }
		}
	}
	text, err := os.ReadFile(filepath.Join(dist, name+".cdx.json"))
	harness.NoError(t, err)
	harness.NoError(t, json.Unmarshal(text, &bom))
	var listed []string
	for _, c := range bom.Components {
		listed = append(listed, c.Name+"@"+c.Version)
		if len(c.Evidence.Licenses) == 0 && c.Name != "std" {
			t.Errorf("the SBOM has no licence for %s", c.Name)
		}
	}
	slices.Sort(listed)
	harness.WantList(t, "SBOM", listed, linked)
	if got := bom.Metadata.Component; bom.BOMFormat != "CycloneDX" || got.Name != "auditstream" || got.Version != testRelease {
		t.Errorf("the SBOM is %s of %+v", bom.BOMFormat, got)
	}
}

// installedPackage installs the package into a folder with dpkg, changes its settings, installs it again, removes and
// purges it. Its scripts run, told by DPKG_ROOT to leave this machine alone.
func installedPackage(t *testing.T, deb string) {
	root := t.TempDir()
	shell(t, root, nil, "mkdir -p var/lib/dpkg/info var/lib/dpkg/updates && touch var/lib/dpkg/status")
	dpkg := func(args string) {
		t.Helper()
		as := ""
		if os.Getuid() != 0 {
			as = "fakeroot " // for the files' owners
		}
		shell(t, root, nil, as+"dpkg --root='"+root+"' --log=/dev/null --force-script-chrootless --force-confold "+args)
	}
	files := func() (all map[string]string) {
		all = map[string]string{}
		for line := range strings.Lines(shell(t, root, nil, `find . -path ./var/lib/dpkg -prune -o ! -type d -printf '%m %P\n'`)) {
			mode, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			all[name] = mode
		}
		return all
	}
	const unit, settings, link = "lib/systemd/system/auditstream.service", "etc/default/auditstream", "etc/systemd/system/multi-user.target.wants/auditstream.service"
	installed := map[string]string{
		"usr/bin/auditstream": "755", unit: "644", settings: "640", "usr/share/man/man1/auditstream.1.gz": "644",
		"usr/share/lintian/overrides/auditstream": "644",
	}
	for _, doc := range []string{"copyright", "changelog.gz", "README.md", "SECURITY.md", "CONTRIBUTING.md", "THIRD_PARTY.md"} {
		installed["usr/share/doc/auditstream/"+doc] = "644"
	}
	pages, err := os.ReadDir(harness.Path("docs"))
	harness.NoError(t, err)
	for _, page := range pages {
		if strings.HasSuffix(page.Name(), ".go") {
			continue
		}
		installed["usr/share/doc/auditstream/docs/"+page.Name()] = "644"
	}
	dpkg("-i '" + deb + "'")
	if got := files(); !maps.Equal(got, installed) { // and therefore not enabled either
		t.Errorf("installed\n%v, want\n%v", got, installed)
	}

	text, err := os.ReadFile(filepath.Join(root, unit))
	harness.NoError(t, err)
	harness.WantIn(t, string(text), "ExecStart=/usr/bin/auditstream serve\n", "EnvironmentFile=/etc/default/auditstream\n")
	if strings.Contains(string(text), "/usr/local") || strings.Contains(string(text), "/etc/auditstream.env") {
		t.Errorf("the unit looks where the package puts nothing:\n%s", text)
	}
	here := filepath.Join(t.TempDir(), "auditstream.service")
	program := "ExecStart=" + filepath.Join(root, "usr/bin/auditstream")
	harness.NoError(t, os.WriteFile(here, []byte(strings.Replace(string(text), "ExecStart=/usr/bin/auditstream", program, 1)), 0o600))
	harness.WantNoneIn(t, systemdAnalyze(t, "verify", "--man=no", here), "auditstream.service:")

	shell(t, root, nil, "systemctl --quiet --root='"+root+"' enable auditstream.service && echo JWT_SECRET=x >>"+settings)
	dpkg("-i '" + deb + "'")
	harness.Equal(t, shell(t, root, nil, "tail -1 "+settings), "JWT_SECRET=x\n", "the settings, which are kept")
	if _, linked := files()[link]; !linked {
		t.Error("the service is not enabled any more after an upgrade")
	}
	dpkg("--remove auditstream")
	if got := slices.Collect(maps.Keys(files())); !slices.Equal(got, []string{settings}) {
		t.Errorf("left after remove: %v, want the settings alone", got)
	}
	dpkg("--purge auditstream")
	if got := files(); len(got) != 0 {
		t.Errorf("left after purge: %v", got)
	}
}

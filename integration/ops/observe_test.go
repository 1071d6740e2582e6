package ops

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

const (
	alertsFile    = "deploy/alerts.yml"
	dashboardFile = "deploy/grafana-dashboard.json"

	monitoringPage = "docs/monitoring.md"
)

func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s (in Debian's package prometheus, which .ci/setup test installs): %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestObserveAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, harness.Path("deploy"), "check", "rules", "alerts.yml")
	promtool(t, harness.Path("deploy"), "test", "rules", "alerts_test.yml")

	// Each alert says what to do, there and in its page, and its test sees it fire.
	rules, tests, page := harness.Document(t, alertsFile), harness.Document(t, "deploy/alerts_test.yml"), harness.Document(t, monitoringPage)
	alerts := strings.Split(rules, "\n      - alert: ")[1:]
	if len(alerts) == 0 {
		t.Fatalf("no alerts in %s", alertsFile)
	}
	for _, alert := range alerts {
		name, body, _ := strings.Cut(alert, "\n")
		harness.WantIn(t, "\n"+body, "\n        for: ", "labels: {severity: ", "\n          summary: ", "\n          description: ", "\n          runbook_url: "+monitoringPage+"#when-an-alert-fires\n")
		harness.WantIn(t, page, "\n| `"+name+"` |")
		harness.WantIn(t, tests, `alertname="`+name+`", severity=`)
	}
	harness.Equal(t, strings.Count(page, "\n| `Auditstream"), len(alerts), "alerts in", monitoringPage, "and", alertsFile)
	harness.WantIn(t, page, "\n## When an alert fires\n")
}

// dashboard is what is looked at of Grafana's format.
type dashboard struct {
	UID           string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Datasource               struct{ Type, UID string }
	Targets                  []struct {
		Expr       string
		Datasource struct{ Type, UID string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	harness.NoError(t, json.Unmarshal([]byte(harness.Document(t, dashboardFile)), &d))
	return d
}

func TestObserveDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	if d.UID == "" || d.SchemaVersion < 39 {
		t.Errorf("uid %q, schemaVersion %d", d.UID, d.SchemaVersion)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name+" "+v.Type)
	}
	harness.WantList(t, "variables", variables, []string{"datasource datasource", "job query", "instance query"})

	ids, cells := map[int]string{}, map[[2]int]string{}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for _, p := range d.Panels {
		if other := ids[p.ID]; p.ID < 1 || other != "" {
			t.Errorf("panel %q has the id %d of %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[cell]; other != "" || cell[0] >= 24 {
					t.Fatalf("panel %q lies on %q at %v, or outside", p.Title, other, cell)
				}
				cells[cell] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q lacks its description, unit, data source or targets", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || !followsVariables(target.Expr) {
				t.Errorf("panel %q: %s does not follow the variables", p.Title, target.Expr)
			}
			rules += "      - {record: x:" + strconv.Itoa(strings.Count(rules, "record")) + ", expr: " + strconv.Quote(withoutVariables(target.Expr)) + "}\n"
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	harness.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	promtool(t, ".", "check", "rules", file)
}

// followsVariables reports whether each metric of the query is asked for with both variables.
func followsVariables(expr string) bool {
	metrics := regexp.MustCompile(`\b(?:auditstream|go|process)_\w+`).FindAllString(expr, -1)
	return len(metrics) > 0 && strings.Count(expr, `{job=~"$job", instance=~"$instance"}`) == len(metrics)
}

func withoutVariables(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$job", "x", "$instance", "x").Replace(expr)
}

// What the dashboard, the rules and the documents name is there, with the labels they ask for, and all that is there is on
// the dashboard.
func TestObserveMetricsAreThoseOfTheBinary(t *testing.T) {
	t.Parallel()
	i := harness.ServeReady(t, harness.NewDatabase(t).Serve)
	resp, err := http.Get(i.Admin + "/metrics")
	harness.NoError(t, err)
	exposition := harness.ReadAll(t, resp.Body)

	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`).FindAllStringSubmatch(exposition, -1) {
		there[m[1]] = true
		if m[2] == "histogram" || m[2] == "summary" {
			there[m[1]+"_bucket"], there[m[1]+"_count"], there[m[1]+"_sum"] = true, true, true
		}
	}
	name := regexp.MustCompile(`\b(?:auditstream|go|process)_[a-z][a-z0-9_]+\b`)
	shown := map[string]bool{}
	for _, file := range append([]string{alertsFile, "deploy/alerts_test.yml", dashboardFile, "README.md", "SECURITY.md"}, pages(t)...) {
		for _, named := range name.FindAllString(harness.Document(t, file), -1) {
			if named == "auditstream_serve" || named == "auditstream_owner" { // roles
				continue
			}
			if !there[named] {
				t.Errorf("%s names %s, which the binary does not have", file, named)
			}
			if file == dashboardFile {
				shown[strings.TrimSuffix(strings.TrimSuffix(named, "_bucket"), "_count")] = true
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (auditstream_\w+) `).FindAllStringSubmatch(exposition, -1) {
		if !shown[m[1]] {
			t.Errorf("%s is not on the dashboard", m[1])
		}
	}

	// A rule about a reason that does not exist would never fire.
	queries := harness.Document(t, alertsFile)
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			queries += "\n" + target.Expr
		}
	}
	selectors := regexp.MustCompile(`\b(auditstream_\w+)\{[^}]*?\b(reason|result|kind)=~?"([^"]*)"`).FindAllStringSubmatch(queries, -1)
	if len(selectors) == 0 {
		t.Error("no selector by label found")
	}
	for _, s := range selectors {
		for _, value := range alternatives(s[3]) {
			if sample := regexp.MustCompile(`(?m)^` + s[1] + `\{(?:[^}]*,)?` + s[2] + `="` + value + `"[,}]`); !sample.MatchString(exposition) {
				t.Errorf("%s{%s=%q}: the binary has no such series (it has %v)", s[1], s[2], value, slices.Sorted(maps.Keys(labels(exposition, s[1]))))
			}
		}
	}
}

// alternatives takes a matcher of the forms a, a|b and a (b|c) apart.
func alternatives(matcher string) []string {
	prefix, inner, found := strings.Cut(matcher, "(")
	if !found {
		return strings.Split(matcher, "|")
	}
	var all []string
	for one := range strings.SplitSeq(strings.TrimSuffix(inner, ")"), "|") {
		all = append(all, prefix+one)
	}
	return all
}

func labels(exposition, name string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{.*\})`).FindAllStringSubmatch(exposition, -1) {
		all[m[1]] = true
	}
	return all
}

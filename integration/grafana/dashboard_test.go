// Package grafana reads deploy/grafana-dashboard.json with Grafana's own types. It is a module of its own, so that these are
// no dependencies of the program. What its queries ask for is looked at in TestObserveDashboard, by Prometheus' promtool.
package grafana

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// read has the file read strictly: no field that Grafana does not know, none of another type, none missing.
func read(t *testing.T) dashboard.Dashboard {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	known := cog.NewRuntime()
	known.RegisterPanelcfgVariant(stat.VariantConfig())
	known.RegisterPanelcfgVariant(timeseries.VariantConfig())
	known.RegisterDataqueryVariant(prometheus.VariantConfig())
	var strict, d dashboard.Dashboard
	if err := strict.UnmarshalJSONStrict(text); err != nil && err.Error() != "" { // it says that all is well with an empty list of errors
		t.Fatalf("Grafana's types do not read it:\n%v", err)
	}
	if err := json.Unmarshal(text, &d); err != nil { // because strict has lost its panels by that
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Errorf("Grafana's types do not allow it:\n%v", err)
	}
	return d
}

func TestPanels(t *testing.T) {
	d := read(t)
	if len(d.Panels) == 0 {
		t.Fatal("no panels")
	}
	for _, p := range d.Panels {
		if row := p.RowPanel; row != nil {
			if row.Title == nil || *row.Title == "" || len(row.Panels) != 0 {
				t.Errorf("row %d has no title, or panels that are not read strictly here", row.Id)
			}
			continue
		}
		// Of any other kind the types would let any options pass.
		switch p.Panel.Options.(type) {
		case *stat.Options, *timeseries.Options:
		default:
			t.Errorf("panel %q is a %s, whose options nobody checks: %T", *p.Panel.Title, p.Panel.Type, p.Panel.Options)
		}
		refs := map[string]bool{}
		for _, target := range p.Panel.Targets {
			query, ok := target.(*prometheus.Dataquery)
			if !ok {
				t.Errorf("panel %q asks with a %T, want Prometheus", *p.Panel.Title, target)
				continue
			}
			if query.RefId == nil || refs[*query.RefId] || query.LegendFormat == nil || *query.LegendFormat == "" {
				t.Fatalf("panel %q: two queries have one refId, or one has none or no name for its line: %s", *p.Panel.Title, query.Expr)
			}
			refs[*query.RefId] = true
			if _, text, found := strings.Cut(query.Expr, "rate("); found && !strings.Contains(text, "[$__rate_interval]") {
				t.Errorf("panel %q: %s has a rate over a fixed time, which is empty where scrapes are rarer", *p.Panel.Title, query.Expr)
			}
		}
	}
}

// Whoever imports it is asked for nothing: the data source is a variable, at first Grafana's default one. All jobs and all
// instances are those of auditstream: with an allValue of .* the process' panels would show every process that Prometheus knows.
func TestVariables(t *testing.T) {
	d := read(t)
	if source := d.Templating.List[0]; source.Type != dashboard.VariableTypeDatasource || source.Name != "datasource" || source.Query == nil || *source.Query.String != "prometheus" {
		t.Fatalf("the first variable is not a choice of Prometheus: %+v", source)
	}
	for _, v := range d.Templating.List[1:] {
		if v.Type != dashboard.VariableTypeQuery || v.AllValue != nil || v.IncludeAll == nil || !*v.IncludeAll || v.Datasource == nil || *v.Datasource.Uid != "${datasource}" {
			t.Errorf("variable %s does not offer all that its query finds and no more, or asks another data source", v.Name)
		}
	}
}

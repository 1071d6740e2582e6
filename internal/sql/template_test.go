package sql

import (
	"slices"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		want []string
	}{
		{`audits`, []string{"audits"}},
		{`Public.Audits`, []string{"public", "audits"}},
		{`"My Schema"."Audit Log"`, []string{"My Schema", "Audit Log"}},
		{` app . "a""b" `, []string{"app", `a"b`}},
		{`"a.b"`, []string{"a.b"}},
		{`prüfung$1`, []string{"prüfung$1"}},
		{`a.b.c`, []string{"a", "b", "c"}},
		{``, nil}, {`.`, nil}, {`a.`, nil}, {`.a`, nil}, {`1a`, nil}, {`My Schema.Audit Log`, nil}, {`"a`, nil}, {`""`, nil},
		{`a;b`, nil}, {`a-b`, nil},
	}
	for _, test := range tests {
		got := parseName(test.name)
		if !slices.Equal(got, test.want) {
			t.Errorf("parseName(%q) = %q, want %q", test.name, got, test.want)
		}
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	template := strings.Join([]string{
		`-- for psql :name`, `\if :{?name}`, `\else`, `    \set name x`, `\endif`, `begin isolation level read committed;`,
		`\if :yes`, `select :name::text, :'name', :unknown, a.:name;`, `\if :no`, `never`, `\endif`, `\endif`,
		`\if :no`, `\if :yes`, `never`, `\endif`, `\endif`, `:empty`, `commit;`, ``,
	}, "\n")
	got := render(template, map[string]string{"name": `o':yes`, "yes": "true", "no": "false", "empty": ""})
	want := "begin isolation level read committed;\nselect o':yes::text, 'o'':yes', :unknown, a.o':yes;\n\ncommit;\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// The templates use psql's variables, and Go has to know every one of them.
func TestTemplatesDefineTheirVariables(t *testing.T) {
	t.Parallel()
	for name, template := range map[string]string{"audits.sql": auditsSQL, "install.sql": installSQL, "uninstall.sql": uninstallSQL} {
		for line := range strings.Lines(template) {
			if strings.HasPrefix(strings.TrimSpace(line), `\`) || strings.HasPrefix(strings.TrimSpace(line), "--") {
				continue
			}
			for _, match := range variable.FindAllString(line, -1) {
				used := strings.Trim(match, ":'")
				if used != "" && !strings.Contains(template, `\set `+used+` `) {
					t.Errorf("%s uses %s and sets no default for it", name, match)
				}
			}
		}
	}
}

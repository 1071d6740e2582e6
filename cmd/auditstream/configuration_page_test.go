package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"testing"

	"auditstream/internal/testkit"

	"github.com/alecthomas/kong"
)

const (
	configurationPage = "../../docs/configuration.md"

	configurationBegin = `# Configuration

Each setting of ` + "`auditstream serve`" + ` is an environment variable and a flag of the same name: ` + "`SSE_RETRY_MS` is `--sse-retry-ms`" + `. An empty
variable is the same as none. An invalid value is refused at the start, with its name, the value and what is expected. This page is
made from the flags (` + "`make docs-configuration`" + `).
`

	configurationEnd = `
## Go's own

| variable | default | meaning |
| --- | --- | --- |
| ` + "`GOMEMLIMIT`" + ` | none | Memory from which on garbage is collected sooner, such as ` + "`400MiB`" +
		`. Unit and image set 512 MiB. Set nine tenths of a container's limit. |

OpenTelemetry's variables switch traces on: [monitoring](monitoring.md#traces).
`
)

// aboutGroup has the text that follows a group's table.
var aboutGroup = map[string]string{
	"Database": "What connection strings may have, and what is refused: [connection strings](connection-strings.md). With a pooler or several servers:\n" +
		"[poolers and failover](poolers-and-failover.md). With Redis: [Redis](redis.md). What a reload takes over: [deploy](deploy.md#reload).",
	"HTTP":   "What to set in a proxy, and without one: [proxies](proxies.md).",
	"Tokens": "What to set for your issuer, and why a token is refused: [tokens and issuers](tokens-and-issuers.md).",
	"Log":    "What is logged: [monitoring](monitoring.md#logs).",
}

// The page names every setting with its default and meaning, as the flags have them.
func TestConfigurationPageIsThatOfTheFlags(t *testing.T) {
	t.Parallel()
	parser, err := newParser(t.Context(), new(cli), streams{}, nil)
	testkit.NoError(t, err)
	want := writtenConfiguration(parser.Model)
	if os.Getenv("AUDITSTREAM_UPDATE_DOCS") != "" {
		testkit.NoError(t, os.WriteFile(configurationPage, []byte(want), 0o600))
	}
	got, err := os.ReadFile(configurationPage)
	testkit.NoError(t, err)
	if string(got) != want {
		t.Errorf("docs/configuration.md is not what the flags say; make docs-configuration writes it anew")
	}
}

// writtenConfiguration is the page: serve's settings by groups, then those that only other commands have.
func writtenConfiguration(app *kong.Application) string {
	page := configurationBegin
	serves := map[string]string{} // rows, by the variable
	for _, command := range app.Leaves(true) {
		if command.Name == "serve" {
			groups, rows := settingRows(command)
			for _, group := range groups {
				page += "\n## " + group + "\n\n| variable | default | meaning |\n| --- | --- | --- |\n" + strings.Join(rows[group], "")
				if about := aboutGroup[group]; about != "" {
					page += "\n" + about + "\n"
				}
			}
			for _, flag := range command.Flags {
				serves[strings.Join(flag.Envs, "")] = settingRow(flag)
			}
		}
	}
	page += "\n## Of other commands\n\nThe other commands take those of the settings above that they need, and these:\n\n" +
		"| command | variable | default | meaning |\n| --- | --- | --- | --- |\n"
	for _, command := range app.Leaves(true) {
		for _, flag := range command.Flags {
			if row := settingRow(flag); len(flag.Envs) > 0 && !flag.Hidden && serves[flag.Envs[0]] != row {
				page += "| `" + command.Name + "` " + row
			}
		}
	}
	return page + configurationEnd
}

// settingRows returns the groups in their order; what has none is about the database.
func settingRows(command *kong.Node) (groups []string, rows map[string][]string) {
	rows = map[string][]string{}
	for _, flag := range command.Flags {
		if len(flag.Envs) == 0 || flag.Hidden {
			continue
		}
		group := "Database"
		if flag.Group != nil {
			group = flag.Group.Key
		}
		if rows[group] == nil {
			groups = append(groups, group)
		}
		rows[group] = append(rows[group], settingRow(flag))
	}
	return groups, rows
}

func settingRow(flag *kong.Flag) string {
	name := "`" + strings.Join(flag.Envs, "`, `") + "`"
	if len(flag.Envs) > 0 && strings.ToLower(strings.ReplaceAll(flag.Envs[0], "_", "-")) != flag.Name {
		name += " (`--" + flag.Name + "`)"
	}
	for _, alias := range flag.Aliases {
		name += " (`--" + alias + "`)"
	}
	help, byItself, _ := strings.Cut(flag.Help, " Default: ")
	if strings.Contains(help, " Required.") {
		byItself = "required"
	}
	if most := flag.Tag.Get("max"); most != "" {
		help += " 1 to " + most + "."
	}
	return fmt.Sprintf("| %s | %s | %s |\n", name, cmp.Or(flag.Default, strings.TrimSuffix(byItself, "."), "none"), strings.ReplaceAll(help, "|", `\|`))
}

package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// manCmd writes the manual page, for packages, from the same model of the commands as --help.
type manCmd struct {
	Date string `placeholder:"YYYY-MM-DD" help:"The page's date; today, unless builds are to be the same tomorrow."`
}

func (c *manCmd) Run(parser *kong.Kong, std streams) error {
	date := time.Now().UTC()
	if c.Date != "" {
		var err error
		if date, err = time.Parse(time.DateOnly, c.Date); err != nil {
			return usageError{fmt.Errorf("--date=%s is no day; give one like 2026-11-25", c.Date)}
		}
	}
	_, err := io.WriteString(std.out, manual(parser.Model, date))
	return err
}

// manual returns the page in the format of man(7).
func manual(app *kong.Application, date time.Time) string {
	p := &page{}
	p.line(`.TH AUDITSTREAM 1 "%s" "auditstream %s" "User Commands"`, date.Format(time.DateOnly), roff(version()))
	p.section("NAME")
	p.line(`auditstream \- live progress from PostgreSQL`)
	p.section("SYNOPSIS")
	for k, c := range app.Leaves(true) {
		if k > 0 {
			p.line(".br")
		}
		p.line(".B %s", roff("auditstream "+c.Name))
		p.line("%s", roff(strings.TrimSpace("[OPTION]... "+arguments(c))))
	}
	p.section("DESCRIPTION")
	p.text(app.Help)
	p.section("COMMANDS")
	for _, c := range app.Leaves(true) {
		p.line(".SS %s", roff(c.Name))
		p.text(c.Help)
		if c.Detail != "" {
			p.line(".PP")
			p.text(c.Detail)
		}
		for _, flag := range c.Flags {
			if !flag.Hidden {
				p.flag(flag)
			}
		}
	}
	p.section("ENVIRONMENT")
	p.text("An option with a variable in brackets can be set by it, too. An empty variable is the same as none.")
	p.section("FILES")
	for _, file := range [][2]string{
		{"/etc/default/auditstream", "The variables of the service, in Debian's package."},
		{"/usr/share/doc/auditstream/README.md", "What it is and how to begin; the documents are beside it, in docs/."},
		{"/lib/systemd/system/auditstream.service", "The service. It is neither enabled nor started by being installed."},
	} {
		p.line(".TP")
		p.line(".I %s", roff(file[0]))
		p.text(file[1])
	}
	p.section("EXIT STATUS")
	p.text("0 done, 1 failed, 2 wrong usage; watch has two more, which it explains.")
	return p.String()
}

func arguments(c *kong.Node) string {
	var names []string
	for _, arg := range c.Positional {
		names = append(names, arg.Summary())
	}
	return strings.Join(names, " ")
}

// page builds the manual page.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(name string) { p.line(".SH %s", name) }

var blankLines = regexp.MustCompile(`\n\s*\n`)

// text writes paragraphs, and keeps the lines of indented ones.
func (p *page) text(text string) {
	for k, paragraph := range blankLines.Split(strings.Trim(text, "\n"), -1) {
		indented := strings.HasPrefix(paragraph, "  ")
		if k > 0 {
			p.line(".PP")
		}
		if indented {
			p.line(".nf")
		}
		p.line("%s", roff(paragraph))
		if indented {
			p.line(".fi")
		}
	}
}

func (p *page) flag(flag *kong.Flag) {
	p.line(".TP")
	name := `\fB` + roff("--"+flag.Name) + `\fR`
	if !flag.IsBool() {
		name += roff("=") + `\fI` + roff(strings.Trim(flag.FormatPlaceHolder(), `"`)) + `\fR`
	}
	if len(flag.Envs) > 0 {
		name += " [" + roff(strings.Join(flag.Envs, ", ")) + "]"
	}
	p.line("%s", name)
	p.line("%s", roff(flag.Help))
}

// roff escapes what man would take for a request or a special character.
func roff(text string) string {
	lines := strings.Split(text, "\n")
	for k, line := range lines {
		line = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace(strings.TrimRight(line, " \t"))
		if strings.HasPrefix(line, ".") {
			line = `\&` + line
		}
		lines[k] = line
	}
	return strings.Join(lines, "\n")
}

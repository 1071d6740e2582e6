package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// envFileFlags names a file of settings. Unlike a process's environment the file can change, so serve reads it again at SIGHUP.
type envFileFlags struct {
	EnvFile string `env:"AUDITSTREAM_ENV_FILE" placeholder:"FILE" help:"A file of NAME=value lines, which count before the environment's variables and after flags. serve reads it again at SIGHUP."`
}

// BeforeResolve is called by kong. It reads the file, if one is named.
func (*envFileFlags) BeforeResolve(ctx *kong.Context) error {
	name := os.Getenv("AUDITSTREAM_ENV_FILE")
	for _, flag := range ctx.Flags() {
		if value, ok := ctx.FlagValue(flag).(string); ok && flag.Name == "env-file" && value != "" {
			name = value
		}
	}
	if name == "" {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		cause := err
		if detail, ok := errors.AsType[*fs.PathError](err); ok {
			cause = detail.Err // without the file's name, which this error quotes itself
		}
		return fmt.Errorf("--env-file (AUDITSTREAM_ENV_FILE) %q cannot be read; give a file of NAME=value lines: %w", name, cause)
	}
	values, err := parseEnvFile(string(text), settings(ctx.Model.Node))
	if err != nil {
		return fmt.Errorf("--env-file (AUDITSTREAM_ENV_FILE) %q: %w", name, err)
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if value := values[name]; value != "" { // an empty value counts as none
				return value, nil
			}
		}
		return nil, nil
	}))
	return nil
}

// settings returns the variables of serve. Each command accepts all of them, so that serve's file also works for the other commands.
func settings(app *kong.Node) map[string]bool {
	known := map[string]bool{}
	for _, command := range app.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			for _, name := range flag.Envs {
				known[name] = name != "AUDITSTREAM_ENV_FILE"
			}
		}
	}
	return known
}

var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// parseEnvFile parses the format of systemd (EnvironmentFile=) and Docker (--env-file): one NAME=value a line, and # comments. Like systemd it
// removes a pair of quotes around a value. Errors never show a value, because it may be a secret.
func parseEnvFile(text string, known map[string]bool) (map[string]string, error) {
	values := map[string]string{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		switch _, twice := values[name]; {
		case !found || !variableName.MatchString(name): // not shown: the end of a key in base64 looks like NAME=, too
			return nil, fmt.Errorf("line %d (not shown, it may hold a secret) is no NAME=value; write NAME=value, or # before a comment", number)
		case twice:
			return nil, fmt.Errorf("line %d: %s stands there twice; give it once", number, name)
		case !known[name]:
			return nil, fmt.Errorf("line %d: %s is no variable of auditstream serve; auditstream serve --help lists them, and others belong into the environment", number, name)
		}
		values[name] = unquoted(strings.TrimSpace(value))
	}
	return values, nil
}

func unquoted(value string) string {
	for _, quote := range []string{`"`, `'`} {
		if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return value[1 : len(value)-1]
		}
	}
	return value
}

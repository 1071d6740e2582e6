// Command rename gives the module another path: in each go.mod, in each import, and in the imports that documents show. "make module" runs
// it.
//
//	go run ./internal/rename host/owner/auditstream
//
// The rule that keeps it right: it changes paths of modules and imports, and no other text, because elsewhere "auditstream" is the name of
// the program, a schema and a channel.
package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var modulePath = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~-]+)+$`)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rename:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 || !modulePath.MatchString(args[0]) {
		return fmt.Errorf("invalid module path %q: want HOST/OWNER/NAME, like example.com/acme/auditstream", strings.Join(args, " "))
	}
	text, err := os.ReadFile("go.mod")
	if err != nil {
		return fmt.Errorf("%w (run it where go.mod is)", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	r := renaming{old: strings.TrimPrefix(first, "module "), path: args[0]}
	return filepath.WalkDir(".", r.visit)
}

type renaming struct{ old, path string }

func (r renaming) visit(path string, entry fs.DirEntry, err error) error {
	switch {
	case err != nil:
		return err
	case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules"):
		return filepath.SkipDir
	case entry.IsDir():
		return nil
	}
	var change func(text []byte) ([]byte, error)
	switch {
	case strings.HasSuffix(path, ".go"):
		change = r.source
	case entry.Name() == "go.mod":
		change = r.mod
	case strings.HasSuffix(path, ".md"):
		change = r.document
	default:
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed, err := change(text)
	if err != nil || bytes.Equal(text, changed) {
		return err
	}
	return os.WriteFile(path, changed, 0o644)
}

// source changes the imports of a Go file, and nothing else in it.
func (r renaming) source(text []byte) ([]byte, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "", text, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	for i := len(file.Imports) - 1; i >= 0; i-- { // from the end, so that a change does not move the imports still to change
		literal := file.Imports[i].Path
		path, err := strconv.Unquote(literal.Value)
		if err != nil {
			return nil, err
		}
		if path != r.old && !strings.HasPrefix(path, r.old+"/") {
			continue
		}
		begin := set.Position(literal.Pos()).Offset
		rest := append([]byte(strconv.Quote(r.path+strings.TrimPrefix(path, r.old))), text[begin+len(literal.Value):]...)
		text = append(text[:begin:begin], rest...)
	}
	return text, nil
}

// mod changes the module line of a go.mod, and the lines in which other modules of the repository require or replace the module.
func (r renaming) mod(text []byte) ([]byte, error) {
	word := regexp.MustCompile(`(?m)^(module |replace |require |\t)` + regexp.QuoteMeta(r.old) + `([ /\n])`)
	return word.ReplaceAll(text, []byte("${1}"+r.path+"${2}")), nil
}

// document changes the lines of Go examples that import.
func (r renaming) document(text []byte) ([]byte, error) {
	line := regexp.MustCompile(`(?m)^(\s*(?:import )?")` + regexp.QuoteMeta(r.old) + `((?:/[a-z/]+)?")$`)
	return line.ReplaceAll(text, []byte("${1}"+r.path+"${2}")), nil
}

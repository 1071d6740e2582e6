// Package api lists the exported declarations of a package as text. The root package's api_test, its only caller, compares the listing with
// that of the last release.
//
// The rule that keeps it right: it reads the source of declarations and resolves no types. So the listing changes if and only if somebody
// edits an exported declaration, whatever the compiler's version is.
package api

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"strings"
)

// Listing maps the names that the package in dir exports (Name, Type.Method, Type.Field) to their declarations.
func Listing(dir string) (map[string]string, error) {
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	l := listing{set: token.NewFileSet(), names: make(map[string]string)}
	for _, name := range pkg.GoFiles {
		file, err := parser.ParseFile(l.set, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.FileExports(file)
		for _, decl := range file.Decls {
			l.add(decl)
		}
	}
	return l.names, nil
}

type listing struct {
	set   *token.FileSet
	names map[string]string
}

func (l listing) add(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil {
			receiver := strings.TrimPrefix(l.text(d.Recv.List[0].Type), "*")
			if !ast.IsExported(receiver) {
				return
			}
			name = receiver + "." + name
		}
		d.Body = nil
		l.names[name] = l.text(d)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range s.Names {
					l.names[name.Name] = strings.TrimSpace(fmt.Sprintf("%s %s %s", d.Tok, name.Name, l.text(s.Type)))
				}
			case *ast.TypeSpec:
				l.addType(s)
			}
		}
	}
}

func (l listing) addType(s *ast.TypeSpec) {
	fields, isStruct := s.Type.(*ast.StructType)
	if !isStruct {
		l.names[s.Name.Name] = "type " + l.text(s)
		return
	}
	l.names[s.Name.Name] = "type " + s.Name.Name + " struct"
	for _, field := range fields.Fields.List {
		for _, name := range field.Names {
			l.names[s.Name.Name+"."+name.Name] = l.text(field.Type)
		}
	}
}

func (l listing) text(node any) string {
	if node == nil {
		return ""
	}
	var b bytes.Buffer
	if err := printer.Fprint(&b, l.set, node); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

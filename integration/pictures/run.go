package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// run does in a clone what a newcomer does, and adds the pictures of it.
func run(ctx context.Context, pictures map[string][]byte) (err error) {
	dir, err := os.MkdirTemp("", "pictures-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	clone := filepath.Join(dir, "auditstream")
	if out, err := exec.CommandContext(ctx, "git", "clone", "-q", ".", clone).CombinedOutput(); err != nil {
		return fmt.Errorf("git clone: %w: %s (make pictures is run at the top of a clone)", err, out)
	}
	server, err := open(clone, "make run")
	if err != nil {
		return err
	}
	defer server.close()
	base, err := server.until(ctx, `^ +(http://127\.0\.0\.1:\d+)/$`)
	if err != nil {
		return err
	}
	if base[1] != "http://127.0.0.1:8080" {
		return fmt.Errorf("make run serves on %s, since port 8080 is taken: end what listens there, so that the pictures show what README says", base[1])
	}
	terminals, err := follow(ctx, server, clone)
	if err != nil {
		return err
	}
	pictures["run.svg"] = screen(terminals)
	return photograph(ctx, base[1]+"/", pictures)
}

// follow types the lines that make run prints: curl, and then psql, whose change curl shows.
func follow(ctx context.Context, server *terminal, dir string) ([]*terminal, error) {
	curl, err := server.until(ctx, `^ +(curl -N .*)$`)
	if err != nil {
		return nil, err
	}
	psql, err := server.until(ctx, `^ +(\S*psql .*)$`)
	if err != nil {
		return nil, err
	}
	if _, err := server.until(ctx, `Ctrl-C stops everything\.`); err != nil {
		return nil, err
	}
	viewer, err := open(dir, curl[1])
	if err != nil {
		return nil, err
	}
	defer viewer.close()
	if _, err := viewer.until(ctx, `^data: .*Waiting for your UPDATE`); err != nil {
		return nil, err
	}
	writer, err := open(dir, psql[1])
	if err != nil {
		return nil, err
	}
	defer writer.close()
	if _, err := writer.until(ctx, `^UPDATE 1$`); err != nil {
		return nil, err
	}
	_, err = viewer.until(ctx, `^data: .*by hand at`)
	return []*terminal{server, viewer, writer}, err
}

var secrets = []struct {
	pattern *regexp.Regexp
	short   string
}{
	{regexp.MustCompile(`\beyJ[\w-]+\.[\w-]+\.[\w-]+`), "eyJhbGciOi..."}, // a token
	{regexp.MustCompile(`(://[^:/@\s]+:)[^@\s]+@`), "${1}...@"},          // a password in a connection string
}

// shortened is a text without the secrets in it; those of a private database that is gone, but a picture with a token teaches to show one.
func shortened(text string) string {
	for _, s := range secrets {
		text = s.pattern.ReplaceAllString(text, s.short)
	}
	return text
}

// Command pictures draws the documents' pictures anew, from the program as it is committed: make pictures.
//
// It does what a newcomer does: it clones the repository, types "make run", then in two more terminals the lines that this prints, and opens the
// page. What is drawn was said by these programs; only tokens and passwords are shortened.
//
//   - run.svg: these terminals (terminal.go, run.go, screen.go)
//   - page.png and page-dark.png: the page (page.go), in few colours (small.go)
//   - update.svg: the way of an update (update.go), which needs no program
//
// The figures have commands of their own, which take longer: make bench and make rolling.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds all of it, compiling included; when it is too short, the error says what was waited for.
const patience = 10 * time.Minute

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "give the directory to draw into, like docs")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := drawInto(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

func drawInto(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pictures := map[string][]byte{"update.svg": wayOfAnUpdate()}
	if err := run(ctx, pictures); err != nil {
		return err
	}
	for name, picture := range pictures {
		if filepath.Ext(name) == ".png" {
			var err error
			if picture, err = small(picture); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
			return err
		}
		fmt.Printf("%s: %d bytes\n", filepath.Join(dir, name), len(picture))
	}
	return nil
}

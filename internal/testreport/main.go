// Command testreport runs go test and prints what a reader needs of it: a line for each package, of each test that failed its own
// log and the command that runs it alone, and at the end the ten slowest tests.
//
//	go run ./internal/testreport -race -timeout 10m ./...
//
// The one rule: it decides nothing. Its exit status is go test's, and what it does not understand it prints as it is.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
)

func main() {
	// go test has the same Ctrl-C from the terminal, and prints what it knows before it ends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is go test with args, reported on stdout. It returns go test's exit status, and 1 when that cannot be had.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(stderr, "testreport:", err)
		return 1
	}
	r := newReport(stdout, args)
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err != nil {
			break // the end, or Wait says what went wrong
		}
	}
	err = cmd.Wait()
	r.end()
	if ctx.Err() != nil {
		return 130
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(stderr, "testreport:", err)
		return 1
	}
	return 0
}

// Command testreport runs go test and prints what a reader needs: one line for each package; for each failed test its log and the command that
// runs it alone; and at the end the ten slowest tests.
//
//	go run ./internal/testreport -race -timeout 10m ./...
//
// The rule that keeps it right: it decides nothing. Its exit status is that of go test, and it prints unchanged what it does not understand.
// Files, in the order in which to read them: main.go (the process), report.go (the text).
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
	// On Ctrl-C the terminal also interrupts go test, which still prints its results.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs go test with args and prints the report on stdout. It returns go test's exit status, or 1 when there is none.
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
			break // the end, or an error that Wait returns, too
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

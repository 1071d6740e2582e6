// Workers runs a real job queue for auditstream's tests: River or gue, as its documentation has it. What happens is said line by line on
// standard input, and each line is answered when it has happened: insert USER RETRIES (answered with the job's key), work, rest, progress PERCENT
// TEXT, complete, fail, and of a key cancel, retry, delete. It is a module of its own because it links two queues that nothing else of auditstream's needs.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A queue does what a line says.
type queue interface {
	do(ctx context.Context, command, argument string) (answer string, err error)
}

// orders are for the job that runs: the rest of a line, and where to say that it was done.
type order struct {
	command, argument string
	done              chan error
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	var q queue
	switch os.Args[1] {
	case "river":
		q, err = newRiver(ctx, pool)
	case "gue":
		q, err = newGue(ctx, pool)
	default:
		err = fmt.Errorf("no such queue: %s", os.Args[1])
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		answer, err := q.do(ctx, command, argument)
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		fmt.Println("ok " + answer)
	}
	return nil
}

// tell gives an order to the job that runs, and waits until it has done it.
func tell(orders chan<- order, command, argument string) error {
	o := order{command, argument, make(chan error)}
	orders <- o
	return <-o.done
}

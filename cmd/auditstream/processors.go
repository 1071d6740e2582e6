package main

import (
	"os"
	"runtime"
)

// leaveProcessors has the program use half of the processors, unless GOMAXPROCS says how many: the rest is PostgreSQL's. An
// update is a chain of short steps, a notification, a read, some writes, and each that another thread is woken for costs more
// than it saves: on 2 processors a delivery takes a fifth less processor time on one, and arrives sooner (README, Figures).
func leaveProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(half(runtime.GOMAXPROCS(0))) // of what a container's limit leaves, which Go knows
	}
}

// half is rounded up, so that it is one at least.
func half(processors int) int { return (processors + 1) / 2 }

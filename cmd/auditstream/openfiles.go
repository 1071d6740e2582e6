//go:build unix

package main

import (
	"log/slog"
	"syscall"
)

// spareFiles are what the process opens beside streams: the database's connections, scrapes, polls, refusals.
const spareFiles = 100

// warnOpenFiles says at start, rather than under load, that the system allows fewer connections than the configuration. Go
// has raised the soft limit to the hard one by then.
func warnOpenFiles(logger *slog.Logger, maxStreams int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return // nothing is known, so nothing is said
	}
	open := uint64(limit.Cur) // FreeBSD's is signed
	if maxStreams > 0 && open < uint64(maxStreams)+spareFiles {
		logger.Warn("this process may open too few files for SSE_MAX_STREAMS: raise the limit (ulimit -n, LimitNOFILE=) or lower SSE_MAX_STREAMS",
			"open_files_limit", open, "sse_max_streams", maxStreams)
	}
}

//go:build unix

package main

import (
	"log/slog"
	"syscall"
)

// spareFiles is the number of files that the process needs besides streams: for the database, scrapes, polls and refusals.
const spareFiles = 100

// warnOpenFiles warns at start, before it fails under load, if the system allows fewer open files than SSE_MAX_STREAMS needs. Go has already
// raised the soft limit to the hard one.
func warnOpenFiles(logger *slog.Logger, maxStreams int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return // the limit is not known
	}
	open := uint64(limit.Cur) // signed on FreeBSD
	if maxStreams > 0 && open < uint64(maxStreams)+spareFiles {
		logger.Warn("this process may open too few files for SSE_MAX_STREAMS: raise the limit (ulimit -n, LimitNOFILE=) or lower SSE_MAX_STREAMS",
			"open_files_limit", open, "sse_max_streams", maxStreams)
	}
}

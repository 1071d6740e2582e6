//go:build !linux

package pgtest

import "os"

// tempDir is where data goes that nobody needs after the run.
func tempDir() string { return os.TempDir() }

//go:build !linux

package pgtest

import "os"

// tempDir returns the directory for data that nobody needs after the run.
func tempDir() string { return os.TempDir() }

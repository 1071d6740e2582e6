// Package rolling restarts three instances behind nginx one after the other, under 1,000 clients of which none may notice: make rolling.
package rolling

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

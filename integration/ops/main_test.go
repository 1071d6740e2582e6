// Package ops tests what operators get: the documents and their commands, metrics and alerts, the unit file, the container image (tag image),
// and a release with its packages (tag release).
package ops

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Package load tests what many or large streams cost: memory, descriptors, the limits that bound them, and the latency.
package load

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Package chaos breaks what a service may meet, at random and under random load, and holds the contract against what every client saw.
// The one rule: a schedule is decided by its seed before the run, so that a failure can be replayed: make chaos CHAOS_SEED=n.
package chaos

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

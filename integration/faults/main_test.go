// Package faults tests the server while something is broken, hostile or changed under it: the database, the connections, a balancer, Redis,
// rights, secrets, the schema.
package faults

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Package soak keeps instances under constant churn for as long as SOAK says, and fails when anything grows: make soak.
package soak

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

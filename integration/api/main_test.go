// Package api tests what README, openapi.yaml and the commands' help promise, one promise after the other, while nothing is broken.
package api

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

package pgnotify

import (
	"testing"

	"auditstream/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Package web tests what runs in a browser or in Node: the page of auditstream dev, and the client. It needs Chromium and Node.
package web

import (
	"testing"

	"auditstream/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

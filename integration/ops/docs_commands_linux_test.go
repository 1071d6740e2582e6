package ops

import (
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// documentedBlock says what becomes of a command block: TestReadme does it, another test holds it, or nobody runs it and why. One without a beginning is
// for all that its page has besides.
type documentedBlock struct {
	page, begin string
	do          func(r *reader, text string)
	test        string
	why         string
}

// documented are all command blocks of README and of each page, in the order in which one reads them, which is the order in which TestReadme does them.
var documented = []documentedBlock{
	{page: "README.md", begin: "make run", do: (*reader).target},
	{page: "README.md", begin: "make build && export PATH=", do: (*reader).begin},
	{page: "README.md", begin: "curl -N -H ", do: (*reader).follow},
	{page: "README.md", begin: "import { watchAudit }", test: "TestClientDocuments"},

	{page: "docs/start.md", begin: "make run", do: (*reader).target},
	{page: "docs/start.md", begin: "export DATABASE_URL=postgres://owner:", do: (*reader).adopt},
	{page: "docs/start.md", begin: "export DATABASE_URL=postgres://auditstream_serve:", do: (*reader).serve},
	{page: "docs/start.md", begin: "curl -N -H ", do: (*reader).follow},

	{page: "docs/adopt-a-table.md", begin: "auditstream install --table app.jobs ", do: (*reader).mapped},
	{page: "docs/adopt-a-table.md", begin: "select auditstream.report(", test: "TestReportIsShown"},
	{page: "docs/adopt-a-table.md", test: "TestDocsAdoptATable"},
	{page: "docs/job-queues.md", test: "TestDocsJobQueues"},

	{page: "docs/tokens-and-issuers.md", begin: "auditstream ", test: "TestTokensPageCommands"},
	{page: "docs/tokens-and-issuers.md", begin: "const { user } = ",
		why: "it is of an application with Auth.js; the token that it makes is what the settings above it are tried with"},
	{page: "docs/tokens-and-issuers.md", test: "TestTokensPageHoldsForEachIssuer"},

	{page: "docs/browser.md", begin: "import { watchAudit }", test: "TestClientDocuments"},
	{page: "docs/react.md", begin: "import { useAuditProgress }", test: "TestClientDocuments"},
	{page: "docs/go-package.md", test: "TestDocsGoPackageIsItsExamples"},
	{page: "docs/testing.md", begin: "func TestProgressIsSeen(", test: "TestFirstTestIsShortAndFast"},
	{page: "docs/testing.md", begin: "import { test } from", test: "TestDocsTestingFirstTestInNode"},
	{page: "docs/testing.md", begin: "import assert from", test: "TestDocsTestingComponent"},
	{page: "docs/testing.md", begin: "import pg from", test: "TestImage"},
	{page: "docs/testing.md", begin: "GenericContainer<?> ", why: "it is Java; the one for Node.js, which says the same to the container, is run"},
	{page: "docs/testing.md", begin: "from testcontainers.core", why: "it is Python, as above"},
	{page: "docs/testing.md", begin: "var auditstream = new ContainerBuilder", why: "it is C#, as above"},
	{page: "docs/terminal.md", begin: "export AUDITSTREAM_URL=", do: (*reader).watch},
	{page: "docs/api.md", begin: "GET /api/v1/sse/audits/{audit_id}/progress", test: "TestUpdateReachesTheStream"},
	{page: "docs/api.md", begin: "HTTP/1.1 200 OK", test: "TestUpdateReachesTheStream"},
	{page: "docs/api.md", begin: "GET /api/v1/sse/audits/progress?ids=", test: "TestAPISeveral"},

	{page: "docs/upgrade.md", begin: "auditstream doctor ", do: (*reader).upgrade},
	{page: "docs/redis.md", begin: "export REDIS_URL=", do: (*reader).redis},
	{page: "docs/redis.md", begin: "resetchannels ", test: "TestACLUserNeedsNoMore"},
	{page: "docs/poolers-and-failover.md", begin: "DATABASE_URL='", do: (*reader).failover},
	{page: "docs/connection-strings.md", begin: "postgres://user:password@host", why: "it is the form of a string, which all tests use"},
	{page: "docs/monitoring.md", begin: "scrape_configs:", do: (*reader).scrape},
	{page: "docs/deploy.md", begin: "docker build -t auditstream .", test: "TestImage"},
	{page: "docs/deploy.md", begin: "cp deploy/compose/env.example .env   ", test: "TestImage"},
	{page: "docs/deploy.md", begin: "make release ", do: (*reader).target},
	{page: "docs/proxies.md", test: "TestProxies"},
	{page: "docs/backup-and-migrations.md", test: "TestDocsBackup"},

	{page: "docs/watch-as-locks.md", begin: "when (case when pg_try_advisory_lock", why: "it is the trigger of install.sql in short, which TestLocksMissNothing tries"},
	{page: "docs/contributing.md", begin: "cmd/auditstream ──▶ service", why: "it is a drawing"},
	{page: "docs/contributing.md", begin: "make help ", do: (*reader).target},
	{page: "CONTRIBUTING.md", begin: ".ci/setup test", why: "make test begins with it, also before this test"},
	{page: "CONTRIBUTING.md", begin: "go build ./... && go vet ", do: (*reader).fastLoop},
}

// documentation are README and the pages that it leads to.
func documentation(t testing.TB) []string {
	t.Helper()
	return append([]string{"README.md", "CONTRIBUTING.md"}, pages(t)...)
}

// become finds what becomes of a block.
func become(block harness.DocBlock) (documentedBlock, bool) {
	k := slices.IndexFunc(documented, func(d documentedBlock) bool {
		return d.page == block.Document && strings.HasPrefix(block.Text, d.begin)
	})
	if k < 0 {
		return documentedBlock{}, false
	}
	return documented[k], true
}

// Every block of commands is run by a test that exists, or has its reason.
func TestDocsCommandsAreRun(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	tests := testNames(t)
	for _, page := range documentation(t) {
		for _, block := range harness.DocBlocks(t, page) {
			d, ok := become(block)
			if !ok {
				t.Errorf("no test runs this; add it to documented in docs_commands_linux_test.go: %v", block)
				continue
			}
			used[d.page+"\n"+d.begin] = true
		}
	}
	for _, d := range documented {
		if !used[d.page+"\n"+d.begin] {
			t.Errorf("%s has no block any more that begins with %q", d.page, d.begin)
		}
		if d.test != "" && !tests[d.test] {
			t.Errorf("%s of %s should hold %q, but there is no such test", d.test, d.page, d.begin)
		}
		if (d.do != nil) == (d.test+d.why != "") || d.test != "" && d.why != "" {
			t.Errorf("%s, %q: want one of a step, a test and a reason", d.page, d.begin)
		}
	}
}

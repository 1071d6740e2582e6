# make help lists what there is.
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@latest
RELEASE ?=
LDFLAGS = -s -w $(if $(RELEASE),-X main.release=$(RELEASE))
# The same for builds and tests, so that each package is compiled once, and once more for the race detector.
export GOFLAGS := $(strip $(filter-out -trimpath,$(shell $(GO) env GOFLAGS 2>/dev/null)) -trimpath)
# go test, with a report to read. What it vets otherwise is a part of what make lint does, and costs a minute of processor time.
TEST = $(GO) run ./internal/testreport -vet=off
# TESTFLAGS=-count=1 runs again what go test remembers.
TESTFLAGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Try it: a private PostgreSQL, live audits and the page on http://127.0.0.1:8080
	@.ci/setup run
	@$(MAKE) --no-print-directory build
	@exec bin/auditstream dev

.PHONY: test
test: ## Install what tests need, then run all of them but the long ones; 12 minutes on 2 cores, compiling included
	@.ci/setup test
	@$(MAKE) --no-print-directory -k test-units test-whole

# Where goroutines share what they have: with the race detector.
RACED = . ./auditstreamtest ./internal/server ./internal/pgnotify/... ./internal/store ./internal/connpool ./internal/service ./cmd/auditstream

.PHONY: test-units
test-units:
	$(TEST) -race -timeout 30m $(TESTFLAGS) $(RACED)

# The whole program, and the packages that are left. Most of these tests wait; which servers have the race detector is in
# integration/harness/binary.go.
# Those that take longest come first. Two packages at a time, with four tests each, keep two cores busy; with more, tests are late.
INTEGRATION = $(addprefix ./integration/,api faults ops web chaos load)

.PHONY: test-whole
test-whole:
	$(TEST) -timeout 30m -p 2 -parallel 4 -skip '$(LONG)' $(TESTFLAGS) \
		$(LONGEST) $$($(GO) list ./... | grep -vxF "$$($(GO) list $(LONGEST) $(RACED))")

# What takes longest begins first, and does not end alone.
LONGEST = $(INTEGRATION) ./internal/sql ./internal/server/web

# Not part of make test: what is long, or random by nature.
LONG = ^(TestSoak|TestRollingRestart|TestPgUpgrade)$$

.PHONY: test-all
test-all: ## All that make test leaves out, too: everything in race, shuffled, in containers and on each PostgreSQL; about 1 hour on 2 cores
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) test-race
	for version in 14 15 16 17 18; do $(MAKE) test-postgres PG=$$version || exit 1; done
	$(MAKE) rolling
	$(MAKE) soak SOAK=2m
	$(MAKE) test-containers-all
	CHECK_ALL=1 $(MAKE) test-changed

.PHONY: nightly
nightly: ## What finds faults by chance: chaos on new seeds, soak, all tests three times in random order, each fuzz target; about 4 hours on 2 cores
	$(MAKE) chaos CHAOS=30m
	$(MAKE) soak SOAK=20m
	$(MAKE) test-race TESTFLAGS=-count=3
	LOCKS_ROUNDS=1000 $(TEST) -count=1 -timeout 1h -run '^TestLocksMissNothing$$' ./internal/sql
	$(MAKE) fuzz FUZZTIME=3m

.PHONY: test-race
test-race: ## All tests with the race detector in tests and servers, in random order; about 20 minutes on 2 cores
	@.ci/setup test
	AUDITSTREAM_TEST_RACE=all $(TEST) -race -shuffle=on -timeout 3h -p 2 -parallel 6 $(TESTFLAGS) ./...

# What depends on who runs it: finding and starting PostgreSQL, the commands, Chromium, README's commands. See .ci/as-user.
.PHONY: test-user
test-user:
	$(TEST) -timeout 20m -skip '^(Fuzz|TestU[0-9])' $(TESTFLAGS) ./cmd/... ./internal/pgtest
	AUDITSTREAM_TEST_RACE=none $(TEST) -timeout 20m -run '^(TestUpdate|TestPageByKeyboard|TestPitfall05Terminated|TestReadme)' $(TESTFLAGS) $(addprefix ./integration/,api faults ops web)

PG ?= 18
.PHONY: test-postgres
test-postgres: ## Run what asks the database against PostgreSQL PG=14 to 18, taken from npm: the SQL, the reads, the listener, the API; 3 minutes
	@.ci/setup test
	@programs=$$(.ci/postgres '$(PG)') && PATH="$$programs:$$PATH" && export PATH AUDITSTREAM_TEST_POSTGRES=local AUDITSTREAM_TEST_RACE=none && \
		make --no-print-directory -k test-postgres-units test-postgres-whole

# CI has time for the SQL, the reads and the listener, without what is long and hardly differs between versions.
.PHONY: test-postgres-quick
test-postgres-quick: SKIP = |TestSourcesNeverRaise|TestUpgradeUnderWriters|TestUpgradeGrantsWhatServeNeeds|TestBulkUpdate.*|TestLongJSONIsReadInTime|TestInstallsOfSeveralFeedsAtATime
test-postgres-quick:
	@.ci/setup test
	@programs=$$(.ci/postgres '$(PG)') && PATH="$$programs:$$PATH" && export PATH AUDITSTREAM_TEST_POSTGRES=local && \
		make --no-print-directory test-postgres-units SKIP='$(SKIP)'

.PHONY: test-postgres-units test-postgres-whole
# npm's PostgreSQL has no pg_dump, and that of another version refuses to dump.
test-postgres-units:
	$(TEST) -timeout 20m -parallel 4 -skip '^(TestU11DumpAndRestoreKeepTheChoices$(SKIP))$$' $(TESTFLAGS) ./internal/sql ./internal/store ./internal/pgnotify
test-postgres-whole:
	$(TEST) -timeout 20m -p 2 -parallel 6 -run '^Test(API|Update|Upgrade|Privilege)' $(TESTFLAGS) ./integration/api ./integration/faults

IN_CONTAINER = AUDITSTREAM_TEST_POSTGRES=container $(TEST) -timeout 20m $(TESTFLAGS)

.PHONY: test-containers
test-containers: ## Adoption, install and rights, the reads and a stream on PostgreSQL in a container; needs a Docker engine; 2 minutes
	@.ci/setup test
	$(IN_CONTAINER) -run '^(TestAdopt|TestInstall|TestUninstall|TestS[0-9])' ./internal/sql
	$(IN_CONTAINER) ./internal/store
	$(IN_CONTAINER) -run '^(TestAPIAdoptedTable|TestUpdateReachesTheStream)$$' ./integration/api

# What starts its own PostgreSQL in any case, to break it, or hardly asks the database anything.
NOT_OF_THE_DATABASE = ^(TestChaos|TestFailover|TestRolling|TestBalancer|TestReadme|TestSoak|TestLoad|TestPage|TestClient|TestHostileRequest|TestBench$$)

.PHONY: test-containers-all
test-containers-all: ## All that asks the database, on PostgreSQL in a container; needs a Docker engine; about 10 minutes
	@.ci/setup test
	$(IN_CONTAINER) -skip '$(NOT_OF_THE_DATABASE)' ./integration/... ./internal/sql/... ./internal/store/... ./internal/pgnotify/...

# Each only when what it is made of has changed since it passed; see .ci/changed.
.PHONY: test-changed
test-changed: ## Licences, image, package, manifests and dashboard, each if its files have changed; CHECK_ALL=1: all of them, about 15 minutes
	@.ci/changed licenses go.mod go.sum THIRD_PARTY.md .ci/licenses -- make licenses
	@.ci/changed kubernetes deploy/kubernetes integration/kubernetes -- make test-kubernetes
	@.ci/changed grafana deploy/grafana-dashboard.json integration/grafana -- make test-grafana
	@.ci/changed release deploy go.mod cmd/auditstream/man.go $(wildcard integration/ops/release_*) -- make test-release
	@.ci/changed image Dockerfile .dockerignore compose.yaml deploy/compose go.mod docs/testing.md integration/nodetests auditstreamtest/container examples/testcontainers-go $(wildcard integration/ops/image_*) -- make test-image

.PHONY: test-image
test-image: ## Build the container image, run it without any rights, in compose.yaml, and in tests with testcontainers; needs a Docker engine
	@.ci/setup test
	@.ci/setup image
	AUDITSTREAM_TEST_POSTGRES=container $(GO) test -tags image -count=1 -run '^TestImage$$' -timeout 20m ./integration/ops

.PHONY: test-kubernetes
test-kubernetes: ## Check the manifests in deploy/kubernetes against Kubernetes' types
	cd integration/kubernetes && $(GO) vet . && $(GO) test -count=1 .

.PHONY: test-grafana
test-grafana: ## Check the dashboard deploy/grafana-dashboard.json against Grafana's types
	cd integration/grafana && $(GO) vet . && $(GO) test -count=1 .

.PHONY: release
release: ## Make a release in dist/: RELEASE=v1.2.3; archives, Debian packages, SBOMs, checksums
	@deploy/release '$(RELEASE)'

.PHONY: test-release
test-release: ## Make a release twice, compare its bytes, take it apart, install its Debian package into a folder and, as root, under systemd
	@.ci/setup test
	$(GO) test -tags release -count=1 -run '^TestRelease$$' -timeout 30m -v ./integration/ops

CHAOS ?= 1m
CHAOS_SEED ?=
.PHONY: chaos
chaos: ## Random faults under random load for CHAOS=1m; CHAOS_SEED=n replays a schedule
	@.ci/setup test
	CHAOS=$(CHAOS) CHAOS_SEED=$(CHAOS_SEED) $(GO) test -count=1 -run '^TestChaos' -v -timeout 3h ./integration/chaos

.PHONY: rolling
rolling: ## A rolling restart of three instances behind nginx under 1,000 clients, drawn anew in docs/rolling-restart.svg
	@.ci/setup test
	ROLLING_RESTART=$(abspath docs/rolling-restart.svg) $(GO) test -count=1 -run '^TestRollingRestart$$' -v ./integration/rolling

SOAK ?= 20m
SOAK_REPORT ?= soak
.PHONY: soak
soak: ## Constant churn for SOAK=20m; fails when anything grows; samples and drawing in SOAK_REPORT=soak/
	@.ci/setup test
	SOAK=$(SOAK) SOAK_REPORT=$(abspath $(SOAK_REPORT)) $(GO) test -count=1 -run '^TestSoak$$' -v -timeout 48h ./integration/soak

# Each target by itself, as go test wants it; go test names them, so that none is forgotten. Two workers, because the
# targets that need PostgreSQL start one for each; and hardly any minimizing, which is slow there and finds nothing.
FUZZTIME ?= 1m
FUZZFLAGS ?= -parallel=2 -fuzzminimizetime=1x
.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME=1m; stops at the first failure
	@.ci/setup test
	@set -e; for package in $$($(GO) list ./...); do \
		listed=$$($(GO) test -list '^Fuzz' $$package) || { echo "$$listed"; exit 1; }; \
		for target in $$(echo "$$listed" | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $(FUZZFLAGS) $$package || { \
				echo "make fuzz: $$target of $$package failed; the input is saved under its testdata/fuzz/$$target, where go test runs it"; exit 1; }; \
		done; \
	done

BENCH ?= default
BENCH_REPORT ?= bench
BENCH_PEER ?=
.PHONY: bench
bench: ## Memory, CPU, latency, connects and writers beside Nchan; BENCH=quick takes a minute; report in BENCH_REPORT=bench/
	@.ci/setup $(if $(filter none,$(BENCH_PEER)),test,bench)
	BENCH=$(BENCH) BENCH_PEER=$(BENCH_PEER) BENCH_REPORT=$(abspath $(BENCH_REPORT)) $(GO) test -count=1 -run '^TestBench$$' -v -timeout 30m ./integration/bench

# For benchstat: make bench-micro BENCH_COUNT=10 >new.txt, the same of another commit, then benchstat old.txt new.txt.
BENCH_COUNT ?= 1
.PHONY: bench-micro
bench-micro: ## Go benchmarks of the hub, the encoder, the token and the trigger, and the latency beside a bare LISTEN; BENCH_COUNT=10 for benchstat
	@.ci/setup test
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 200ms -count $(BENCH_COUNT) ./internal/store/ ./internal/pgnotify/ ./internal/server/ ./internal/sql/
	$(GO) test -run '^$$' -bench Latency -benchtime 1x -count $(BENCH_COUNT) ./integration/load

# Where PostgreSQL is not run by localpg, which needs Unix's signals, there are no tests either.
PORTABLE = . ./internal/server ./internal/pgnotify ./internal/pgnotify/redisnotify ./internal/store ./internal/sql

.PHONY: lint
lint: lint-quick ## Check all: also with each check of staticcheck, and that it compiles for the other systems; about 5 minutes
	GOOS=darwin $(GO) vet ./...
	GOOS=freebsd $(GO) vet ./...
	GOOS=windows $(GO) build $(PORTABLE)
	$(GO) run $(STATICCHECK) -checks all -tags image,release ./...

.PHONY: lint-quick
lint-quick: ## Check formatting, the module's files, and vet; 2 minutes, most of them compiling
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) mod verify
	$(GO) mod tidy -diff
	$(GO) vet -tags image,release ./...

.PHONY: docs
docs: docs-configuration ## Write the documents as a static site into dist/docs; make run serves them under /docs/
	$(GO) run ./internal/docsite/write dist/docs

.PHONY: docs-configuration
docs-configuration: ## Write docs/configuration.md from the flags
	AUDITSTREAM_UPDATE_DOCS=1 $(GO) test -vet=off -count=1 -run '^TestConfigurationPageIsThatOfTheFlags$$' ./cmd/auditstream

.PHONY: pictures
pictures: ## Draw the documents' pictures anew, from the last commit: make run in a terminal, its page, the way of an update
	@.ci/setup test
	$(GO) run ./integration/pictures docs

.PHONY: vuln
vuln: ## Look for known vulnerabilities (needs the vulnerability database's site)
	$(GO) run $(GOVULNCHECK) ./...

.PHONY: licenses licenses-write
licenses: ## Check that THIRD_PARTY.md is up to date and every licence is an allowed one
	@.ci/licenses
licenses-write: ## Write THIRD_PARTY.md
	@.ci/licenses write

.PHONY: module
module: ## Rename the Go module everywhere: PATH=host/owner/auditstream, where it will be published
	@PATH="$$PATH:$(USUAL_PATH)" $(GO) run ./internal/rename '$(PATH)'

# On the command line PATH is not where programs are: those of make module are looked for in the usual places, or GO=/path/to/go says where.
USUAL_PATH = /usr/local/go/bin:/usr/lib/go/bin:/usr/local/bin:/usr/bin:/bin
ifeq ($(origin PATH),command line)
unexport PATH
endif

.PHONY: image
image: ## Build the container image auditstream
	docker build -t auditstream --build-arg RELEASE=$(RELEASE) .

.PHONY: build
build: ## Build bin/auditstream
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/auditstream ./cmd/auditstream

.PHONY: clean
clean: ## Remove what was built and make run's database
	rm -rf bin dist .auditstream

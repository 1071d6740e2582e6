# make help lists what there is.
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@latest
RELEASE ?=
LDFLAGS = -s -w $(if $(RELEASE),-X main.release=$(RELEASE))
# Tests of the whole binary wait for databases to stop and start; 2 cores need minutes for all of them.
TESTFLAGS ?= -race -shuffle=on -timeout 40m

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
test: ## Install what tests need, then run all of them
	@.ci/setup test
	$(GO) vet ./...
	$(GO) test $(TESTFLAGS) ./...

# What starts its own PostgreSQL in any case, to break it, or hardly asks the database anything: once is enough.
NOT_OF_THE_DATABASE = ^(TestChaos|TestFailover|TestRolling|TestBalancer|TestReadme|TestSoak|TestLoad|TestPage|TestClient|TestHostileRequest|TestBench$$)

# All that opens streams and asks through Go's client. Left out is what
# - writes or reads HTTP/1.1 byte by byte: StreamIsLiterally, Status, HeaderSize, RequestsAfterAStream, TestHostileRequest*,
#   TestHostileTrickle, RequestsAreBounded, StuckClients, VanishedClients, SlowReader, OutOfFileDescriptors, all TestLoad
#   (of which a client that does not read has a test of its own for HTTP/2), and one part of Reconnect;
# - counts goroutines, of which a connection of HTTP/2 keeps its own: Churn;
# - measures writers, latency or hostile notifications, or has no stream: Pitfall01, 06 and 10, FreeLatency, HostileNotifications,
#   the commands, the configuration, privileges, the page, the browser's client.
OVER_HTTP2 = ^(TestUpdate.*|TestAPI(Stream(Ends.*|Timeout)|Heartbeat|OnlyChangesAreSent|EventData|IDIs.*|Ownership|Refusals|Reconnect|Limits|Several.*|AuthCookie|CORS|WithoutCORS.*|RowThat.*|DatabaseUnreachable|JWKS|Key.*|PreviousSecret|HostileTokens|Description.*|SecretsAreNeverLogged|MetricsNameNobody)|TestSecurity(Forged|Stolen).*|TestFault(Hundred|Killed|Ten|Rollback|StuckHTTP2|SIGINT|Database|BlackHoled|HalfOpen|LostTriggers|SafetyNet|Registrations|WriterThat).*|TestPitfall0(2|3|5|7|8|9).*)$$
NOT_OVER_HTTP2 = ^TestAPIReconnect$$/^204_

.PHONY: test-http2
test-http2: ## Run the tests of streams once more over HTTP/2, with TLS
	@.ci/setup test
	AUDITSTREAM_TEST_HTTP=2 $(GO) test $(TESTFLAGS) -count=1 -run '$(OVER_HTTP2)' -skip '$(NOT_OVER_HTTP2)' ./integration

.PHONY: test-containers
test-containers: ## Run the database tests against PostgreSQL in a container; needs a Docker engine
	@.ci/setup test
	AUDITSTREAM_TEST_POSTGRES=container $(GO) test $(TESTFLAGS) -skip '$(NOT_OF_THE_DATABASE)' ./integration/... ./sql/... ./store/... ./pgnotify/...

.PHONY: test-image
test-image: ## Build the container image, run it without any rights, and compose.yaml with it; needs a Docker engine
	@.ci/setup test
	@.ci/setup compose
	AUDITSTREAM_TEST_POSTGRES=container $(GO) test -tags image -count=1 -run '^TestImage$$' -timeout 20m ./integration

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
	$(GO) test -tags release -count=1 -run '^TestRelease$$' -timeout 30m -v ./integration

CHAOS ?= 1m
CHAOS_SEED ?=
.PHONY: chaos
chaos: ## Random faults under random load for CHAOS=1m; CHAOS_SEED=n replays a schedule
	@.ci/setup test
	CHAOS=$(CHAOS) CHAOS_SEED=$(CHAOS_SEED) $(GO) test -race -count=1 -run '^TestChaos' -v -timeout 3h ./integration

.PHONY: rolling
rolling: ## A rolling restart of three instances behind nginx under 1,000 clients, drawn anew in docs/rolling-restart.svg
	@.ci/setup test
	ROLLING_RESTART=$(abspath docs/rolling-restart.svg) $(GO) test -count=1 -run '^TestRollingRestart$$' -v ./integration

SOAK ?= 20m
SOAK_REPORT ?= soak
.PHONY: soak
soak: ## Constant churn for SOAK=20m; fails when anything grows; samples and drawing in SOAK_REPORT=soak/
	@.ci/setup test
	SOAK=$(SOAK) SOAK_REPORT=$(abspath $(SOAK_REPORT)) $(GO) test -count=1 -run '^TestSoak$$' -v -timeout 48h ./integration

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
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 200ms -count $(BENCH_COUNT) ./store/ ./pgnotify/ ./server/ ./sql/
	$(GO) test -run '^$$' -bench Latency -benchtime 1x -count $(BENCH_COUNT) ./integration/

# Where PostgreSQL is not run by localpg, which needs Unix's signals, there are no tests either.
PORTABLE = ./server ./pgnotify ./pgnotify/redisnotify ./store ./sql

.PHONY: lint
lint: ## Check formatting, vet, staticcheck, and that it compiles for the other systems
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet -tags image,release ./...
	GOOS=darwin $(GO) vet ./...
	GOOS=freebsd $(GO) vet ./...
	GOOS=windows $(GO) build $(PORTABLE)
	$(GO) run $(STATICCHECK) -tags image,release ./...

.PHONY: vuln
vuln: ## Look for known vulnerabilities (needs the vulnerability database's site)
	$(GO) run $(GOVULNCHECK) ./...

.PHONY: licenses licenses-write
licenses: ## Check that THIRD_PARTY.md is up to date and every licence is an allowed one
	@.ci/licenses
licenses-write: ## Write THIRD_PARTY.md
	@.ci/licenses write

.PHONY: image
image: ## Build the container image auditstream
	docker build -t auditstream --build-arg RELEASE=$(RELEASE) .

.PHONY: build
build: ## Build bin/auditstream
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/auditstream ./cmd/auditstream

.PHONY: clean
clean: ## Remove what was built and make run's database
	rm -rf bin dist .auditstream

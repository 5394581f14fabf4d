# make test     installs what is missing and runs all tests, but for some that are heavy; it goes on after those that
#               fail, and says at the end which did
# make check    what CI runs: format, vet, staticcheck, all tests, and short forms of what follows; of the
#               mutants another twelfth each day, of the faults of chaos another sixth, and another server
# make chaos    real processes, a real Redis, real faults; FOR=1h, SEED=42; writes docs/reliability.md
# make mutants  breaks the library in many ways, and demands that a test notices each
# make model    searches all states of the model of the protocol; writes docs/model.md
# make simulate thousands of seeds in fake time; SEEDS=100000
# make servers  all tests on other servers and versions, which it installs; ON="redis8 valkey9", QUICK=1; docs/servers.md
# make clients  the suite with all kinds of clients, on several versions of go-redis; GOREDIS=v9.21.0; docs/servers.md
# make soak     chaos, simulation, tests that live on chance, scripts and fuzzing in turn, for hours; FOR=8h, SERVERS=folder
# make fuzz     fuzzes each target for a while, or some: FUZZ="FuzzKeys FuzzFlags"
# make bench    compares with other libraries, in 20 to 25 minutes; writes bench/results.*, docs/performance.md and its plots
# make bench-topologies  quorums and clusters alone, in 4 minutes; the rest of those files stays
# make bench-quick  a short form, to see that it works; writes nothing
# make microbench   measures the hot paths, for benchstat

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULES = . test bench examples/booking
FOR ?= 20m
SEEDS ?= 20000
FUZZTIME ?= 30s
FUZZ = $$all

.PHONY: test check lint redis cc tools chaos mutants model simulate servers clients soak fuzz bench bench-topologies bench-quick microbench

test: redis cc
	cd test && GO=$(GO) $(GO) run ./all $(HEAVY) $(MODULES:%=../%)

# Shell: of so many parts another each day, such as 2/6.
share = $$(($$(date +%s) / 86400 % $(1) + 1))/$(1)

check: HEAVY = -heavy
check: export REDISLOCK_TEST_CLIENTS = $(shell echo $(call share,6))
check: tools lint test
	cd test && $(GO) run ./mutants -share $(call share,12)
	test/model/verify.sh small
	cd test && $(GO) run -race ./chaos -for 120s -seed 1 -share $(call share,6)
	test/servers/run.sh -quick today

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not gofmt-ed: $$unformatted"; exit 1; fi
	for module in $(filter-out bench,$(MODULES)); do (cd $$module && $(GO) mod tidy -diff) || exit 1; done # of bench see its README
	for module in $(MODULES); do (cd $$module && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...) || exit 1; done

# Debian and Ubuntu: installs what is missing. Elsewhere: says what to do.
need = command -v $(1) >/dev/null || { \
	command -v apt-get >/dev/null || { echo "$(1) is missing: install $(3)" >&2; exit 1; }; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y $(2); }

# Shell: $$all is what tests and fuzz targets a package has; and all of these words match some of it, or it is an error.
list = all=$$($(GO) test -list . $(1) | grep -E '^(Test|Fuzz)') || { echo "$(1): no tests" >&2; exit 1; }
match = for word in $(1); do echo "$$all" | grep -q "$$word" || { echo "no test is called $$word" >&2; exit 1; }; done

redis:
	@$(call need,redis-server,redis-server,Redis 6.2 or newer)
	@redis-server --version

cc: # the race detector needs one
	@$(call need,cc,gcc libc6-dev,a C compiler)

tools: redis cc
	@$(call need,spin,spin,Spin (spinroot.com))

chaos: tools
	cd test && $(GO) run -race ./chaos -for $(FOR) $(SEED:%=-seed %) -report ../docs/reliability.md

mutants: redis
	cd test && $(GO) run ./mutants

model: tools
	test/model/verify.sh full doc

simulate:
	cd test && $(call list,./simulation) && $(call match,^TestSeeds$$) && \
		$(GO) test -timeout 0 -v ./simulation -run '^TestSeeds$$' -seeds $(SEEDS) -first $$(date +%s)

servers: cc
	test/servers/run.sh $(if $(QUICK),-quick) $(ON)

clients: redis cc
	test/clients/run.sh $(GOREDIS)

soak: FOR = 1h
soak: redis cc
	cd test && $(GO) run ./soak -for $(FOR) $(SEED:%=-seed %) $(SERVERS:%=-servers %) -report ../docs/reliability.md

fuzz:
	$(call list,.) && all=$$(echo "$$all" | grep ^Fuzz) && \
	for target in $(FUZZ); do $(call match,^$$target$$) || exit 1; \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) . || exit 1; done

bench: redis
	cd bench && $(GO) run . -out . -report ../docs/performance.md -plots ../docs/performance

bench-topologies: redis
	cd bench && $(GO) run . -run '^(quorum|cluster)/' -merge -out . -report ../docs/performance.md

bench-quick: redis
	cd bench && $(GO) run . -quick

microbench: redis
	$(GO) test -run '^$$' -bench . -count 6 .

# make test   installs what is missing and runs all tests
# make check  what CI runs: format, vet, staticcheck, and make test
# make mutants  breaks the library in many ways, and demands that a test notices each
# make soak   repeats the tests that live on chance, for minutes
# make fuzz   fuzzes each target for a while
# make bench  measures the hot paths

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULES = . examples/booking
FUZZTIME ?= 30s
FUZZ = FuzzKeys FuzzGrant FuzzGrantOfAnyKeyAndValue FuzzGrantToWaiter FuzzReply FuzzAnyReply FuzzEvents FuzzFlags FuzzDurations FuzzNames

.PHONY: test check lint redis mutants soak fuzz bench

test: redis
	for module in $(MODULES); do (cd $$module && $(GO) test -race -timeout 5m ./...) || exit 1; done

check: lint test

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not gofmt-ed: $$unformatted"; exit 1; fi
	for module in $(MODULES); do (cd $$module && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...) || exit 1; done

# Debian and Ubuntu: installs redis-server. Elsewhere: says what to do.
redis:
	@command -v redis-server >/dev/null || { \
		command -v apt-get >/dev/null || { echo "redis-server is missing: install Redis 6.2 or newer" >&2; exit 1; }; \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y redis-server; }
	@redis-server --version

mutants: redis
	cd test && $(GO) run ./mutants

soak: redis
	$(GO) test -race -timeout 60m -count 20 -run 'NoWakeUp|Crosses|Order|Overlaps|Amid|Neighbour|Asleep|Killed|Lost|Survives' .

fuzz:
	for target in $(FUZZ); do \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) . || exit 1; done

bench: redis
	$(GO) test -run '^$$' -bench . -benchtime 2s -count 3 .

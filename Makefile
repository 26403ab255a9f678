# make run    a mirror, a freeze and a server from this machine's own sources
# make test   every test
# make bench  the benchmarks, beside the tools that people use instead
# make fuzz   every parser of outside bytes, FUZZTIME each (FUZZTIME=10m takes ten hours)
# make lint   gofmt, go vet, staticcheck, govulncheck
# make torture  crashes, full disks, power cuts: takes twenty minutes

export PATH := $(CURDIR)/.go/bin:$(PATH):/usr/local/go/bin
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 30s
TESTFLAGS ?=
PREFIX ?= /usr/local
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@latest

.PHONY: all build run test race bench fuzz lint torture install clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.built=$(VERSION)" -o bin/ ./cmd/snapd ./cmd/snapctl

run:
	@./.ci/deps run
	@$(MAKE) --no-print-directory build
	@./internal/demo/run.sh

test:
	@./.ci/deps test
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 20m $(TESTFLAGS) ./...
	$(GO) test -timeout 10m -race -short ./internal/cas ./internal/fetch ./internal/acquire ./internal/mirror ./internal/catalog ./internal/httpd/... ./internal/daemon ./internal/sign

bench:
	@./.ci/deps bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./internal/bench

fuzz:
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' ./.ci/fuzz

lint:
	@test -z "$$(gofmt -l cmd internal)" || { gofmt -d cmd internal; exit 1; }
	$(GO) vet ./...
	# SA4023 of this version panics on some packages.
	$(GO) run $(STATICCHECK) -checks inherit,-SA4023 ./...
	@$(GO) run $(GOVULNCHECK) ./... || { s=$$?; test $$s -ne 3 && echo "govulncheck: its database could not be reached"; test $$s -ne 3; }

torture:
	@./.ci/deps test
	$(GO) run ./internal/torture

install: build
	install -D -m 0755 bin/snapd $(DESTDIR)$(PREFIX)/sbin/snapd
	install -D -m 0755 bin/snapctl $(DESTDIR)$(PREFIX)/bin/snapctl
	install -D -m 0644 config.example.toml $(DESTDIR)$(PREFIX)/share/doc/snapd/config.example.toml
	bin/snapctl man --output $(DESTDIR)$(PREFIX)/share/man/man1

clean:
	rm -rf bin run

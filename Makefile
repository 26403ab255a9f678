# make run    a mirror, a freeze and a server from this machine's own sources;
#             LISTEN=127.0.0.1:8081 sets the address, DIR=/srv/run the directory
# make cluster  the same on three nodes with PostgreSQL, an S3 server and a balancer,
#             read by apt and dnf from each, in a temporary directory;
#             LISTEN=127.0.0.1:8081 sets the address, ONCE=1 stops after the demo
# make test   every test
# make bench  benchmarks against the tools that people use instead
# make fuzz   every parser of untrusted bytes, FUZZTIME each (FUZZTIME=10m takes ten hours)
# make lint   gofmt, go vet, staticcheck, govulncheck
# make torture  crashes, full disks, power cuts: takes an hour
# make dist   a release in dist/: source, static programs, checksums
# make deb    a Debian package in dist/
# make rpm    an rpm package in dist/

# The tests use tools in sbin, which the PATH of an ordinary user does not have.
export PATH := $(CURDIR)/.go/bin:$(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 30s
TESTFLAGS ?=
LDFLAGS ?=
ARCH ?= amd64,arm64
PREFIX ?= /usr/local
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@latest

.PHONY: all build run cluster test bench fuzz lint torture install install-built dist deb rpm clean

all: build

build:
	@GO='$(GO)' ./.ci/go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS) -X main.built=$(VERSION)" -o bin/ ./cmd/snapd ./cmd/snapctl

run:
	@./.ci/deps run
	@$(MAKE) --no-print-directory build
	@./internal/demo/run.sh

cluster:
	@./.ci/deps cluster
	@$(MAKE) --no-print-directory build
	@$(GO) run ./internal/demo/cluster $(if $(LISTEN),-listen $(LISTEN)) $(if $(ONCE),-once) $(if $(CONFIG),-config $(CONFIG))

# With the flags of `build`, so that each package is compiled once.
test: flags = CGO_ENABLED=0 GOFLAGS='$(GOFLAGS) -trimpath'
test:
	@./.ci/deps test
	$(flags) $(GO) vet ./...
	@$(flags) GO='$(GO)' TESTFLAGS='$(TESTFLAGS)' ./.ci/test

bench:
	@./.ci/deps bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./internal/bench

fuzz:
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' ./.ci/fuzz

lint:
	@test -z "$$(gofmt -l client cmd internal)" || { gofmt -d client cmd internal; exit 1; }
	$(GO) vet ./...
	# SA4023 of this version panics on some packages.
	$(GO) run $(STATICCHECK) -checks inherit,-SA4023 ./...
	@$(GO) run $(GOVULNCHECK) ./... || { s=$$?; test $$s -ne 3 && echo "govulncheck: its database could not be reached"; test $$s -ne 3; }

torture:
	@./.ci/deps test
	$(GO) run ./internal/torture

install: build install-built

# The files that packages contain, from the programs in bin/: also units, manual pages,
# shell completions, the AppArmor profile and a configuration.
share = $(DESTDIR)$(PREFIX)/share
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
install-built:
	install -D -m 0755 bin/snapd $(DESTDIR)$(PREFIX)/sbin/snapd
	install -D -m 0755 bin/snapctl $(DESTDIR)$(PREFIX)/bin/snapctl
	bin/snapctl man --output $(share)/man/man1 >/dev/null
	bin/snapd man --output $(share)/man/man8 >/dev/null
	install -d $(share)/man/man5
	mv $(share)/man/man8/frozen-snapd.toml.5 $(share)/man/man5/
	install -d $(share)/bash-completion/completions $(share)/zsh/vendor-completions $(share)/fish/vendor_completions.d
	bin/snapctl completion bash > $(share)/bash-completion/completions/snapctl
	bin/snapctl completion zsh > $(share)/zsh/vendor-completions/_snapctl
	bin/snapctl completion fish > $(share)/fish/vendor_completions.d/snapctl.fish
	install -D -m 0644 config.example.toml $(share)/doc/frozen-snapd/examples/config.example.toml
	install -D -m 0644 contrib/config.toml $(DESTDIR)$(SYSCONFDIR)/frozen-snapd/config.toml
	install -D -m 0644 contrib/apparmor/frozen-snapd $(DESTDIR)$(SYSCONFDIR)/apparmor.d/frozen-snapd
	install -D -m 0644 contrib/systemd/frozen-snapd.service $(DESTDIR)$(UNITDIR)/frozen-snapd.service
	install -D -m 0644 contrib/systemd/frozen-snapd.socket $(DESTDIR)$(UNITDIR)/frozen-snapd.socket
	install -D -m 0644 contrib/systemd/frozen-snapd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/frozen-snapd.conf
	install -D -m 0644 contrib/systemd/frozen-snapd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/frozen-snapd.conf

# A release: source with all modules, static programs, bills of materials, checksums.
dist:
	$(GO) run ./internal/dist --output dist --arch '$(ARCH)'

# Packages, built from the tarball of a release without the network.
deb:
	@./.ci/deps deb
	@GO='$(GO)' ./contrib/package deb

rpm:
	@./.ci/deps rpm
	@GO='$(GO)' ./contrib/package rpm

clean:
	rm -rf bin run dist

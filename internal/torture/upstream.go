package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// packageNames are the packages that upstream has; each has a source package.
var packageNames = []string{"alpha", "beta", "gamma", "delta", "epsilon"}

// upstream is a Debian archive and a Fedora repository, which are updated together.
type upstream struct {
	*debtest.Archive
	srv     *httptest.Server
	rpms    *rpmtest.Repo
	rpmSrv  *httptest.Server
	rpmKeys string // file
	version map[string]int
	date    time.Time
	fault   atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

// newUpstream publishes the first state, with the given date.
func newUpstream(tb testing.TB, date time.Time) *upstream {
	u := &upstream{Archive: debtest.New(tb), version: map[string]int{}, date: date}
	u.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if f := u.fault.Load(); f != nil {
			return (*f)(w, r)
		}
		return false
	}
	u.srv = httptest.NewServer(u.Handler())
	tb.Cleanup(u.srv.Close)
	key := signtest.NewKey(tb, "fedora")
	u.rpms = rpmtest.New(rpmtest.Options{Signer: signtest.Signer(tb, key)})
	u.rpmKeys = signtest.KeyringFile(tb, key)
	u.rpmSrv = httptest.NewServer(u.rpms)
	tb.Cleanup(u.rpmSrv.Close)
	for _, n := range packageNames {
		u.add(n)
	}
	u.publish()
	return u
}

// listen serves the archive at an address of this machine, which mirrors use from now on.
func (u *upstream) listen(tb testing.TB, host string) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	u.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: u.Handler()}}
	u.srv.Start()
	tb.Cleanup(u.srv.Close)
}

func (u *upstream) publish() {
	u.Publish(u.date)
	u.rpms.Publish(u.date)
}

func (u *upstream) add(name string) {
	u.version[name]++
	v := fmt.Sprint(u.version[name])
	u.Add(debtest.Package{Name: name, Version: v, Description: name + "\nversion " + v, Files: map[string]string{"/usr/share/" + name: v}})
	u.AddSource(debtest.Source{Name: name, Version: v})
	u.rpms.Remove(name)
	u.rpms.Add(rpmtest.Package{Name: name, Version: v + ".0"})
}

// upgrade replaces packages with their next versions and publishes the new state, dated
// one minute later.
func (u *upstream) upgrade(names ...string) {
	for _, n := range names {
		u.Default().Remove(n, fmt.Sprint(u.version[n]))
		u.add(n)
	}
	u.date = u.date.Add(time.Minute)
	u.publish()
}

// sites contains the addresses of an upstream, for use by another process.
type sites struct {
	Deb, DebKeys string // URL, keyring file
	RPM, RPMKeys string
}

func (u *upstream) sites() sites { return sites{u.srv.URL, u.KeyringFile(), u.rpmSrv.URL, u.rpmKeys} }

func (u *upstream) mirrors(keep time.Duration) []config.Mirror { return u.sites().debs(keep) }

// debs configures one mirror that downloads everything and one that downloads packages on
// demand.
func (s sites) debs(keep time.Duration) []config.Mirror {
	m := config.Mirror{
		Name: "debian", Type: "deb", URL: remote.NewURL(s.Deb), Suites: []string{"stable"}, Components: []string{"main"},
		Architectures: []string{"amd64"}, Keyring: config.Strings{s.DebKeys}, Sources: true,
		Download: config.All, Languages: []string{"en"}, Keep: config.Duration(keep),
	}
	lazy := m
	lazy.Name, lazy.Download = "lazy", config.OnDemand
	return []config.Mirror{m, lazy}
}

// all configures the mirrors of debs, and one of the Fedora repository.
func (s sites) all(keep time.Duration) []config.Mirror {
	return append(s.debs(keep), config.Mirror{
		Name: "fedora", Type: "rpm", URL: remote.NewURL(s.RPM), Architectures: []string{"x86_64"}, Keyring: config.Strings{s.RPMKeys},
		Download: config.All, Keep: config.Duration(keep),
	})
}

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// packageNames are the packages of the upstream; each has a source package.
var packageNames = []string{"alpha", "beta", "gamma", "delta", "epsilon"}

// upstream is a Debian archive that moves on.
type upstream struct {
	*debtest.Archive
	srv     *httptest.Server
	version map[string]int
	date    time.Time
	fault   atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

// newUpstream publishes a first state, dated date.
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
	for _, n := range packageNames {
		u.add(n)
	}
	u.Publish(u.date)
	return u
}

func (u *upstream) add(name string) {
	u.version[name]++
	v := fmt.Sprint(u.version[name])
	u.Add(debtest.Package{Name: name, Version: v, Description: name + "\nversion " + v, Files: map[string]string{"/usr/share/" + name: v}})
	u.AddSource(debtest.Source{Name: name, Version: v})
}

// upgrade replaces packages by their next versions and publishes that, later.
func (u *upstream) upgrade(names ...string) {
	for _, n := range names {
		u.Default().Remove(n, fmt.Sprint(u.version[n]))
		u.add(n)
	}
	u.date = u.date.Add(time.Minute)
	u.Publish(u.date)
}

func (u *upstream) mirrors(keep time.Duration) []config.Mirror {
	return mirrors(u.srv.URL, u.KeyringFile(), keep)
}

// mirrors configures one mirror that takes everything and one that takes
// packages on demand.
func mirrors(url, keyring string, keep time.Duration) []config.Mirror {
	m := config.Mirror{
		Name: "debian", Type: "deb", URL: url, Suites: []string{"stable"}, Components: []string{"main"},
		Architectures: []string{"amd64"}, Keyring: config.Strings{keyring}, Sources: true,
		Download: config.All, Languages: []string{"en"}, Keep: config.Duration(keep),
	}
	lazy := m
	lazy.Name, lazy.Download = "lazy", config.OnDemand
	return []config.Mirror{m, lazy}
}

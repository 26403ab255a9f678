package main

import (
	"testing"

	"example.org/snapd/internal/api"
)

// A change of a local mirror is printed with the suite and component of each deb package.
func TestOwnChange(t *testing.T) {
	x := newTester(t)
	one := []api.OwnPackage{{Name: "hello", Version: "1", Arch: "amd64", Suite: "stable", Component: "main"}}
	for _, c := range []struct {
		name     string
		packages []api.OwnPackage
		want     string
	}{
		{"deb", one, "own@20261122T160000Z: removed 1 package\n- hello 1 amd64 stable/main\n"},
		{"rpm", []api.OwnPackage{{Name: "a", Version: "1-1", Arch: "x86_64", Suite: "."}, {Name: "a", Version: "1-1", Arch: "src", Suite: "."}}, "own@20261122T160000Z: removed 2 packages\n- a 1-1 x86_64\n- a 1-1 src\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x.fake.set(func() {
				x.fake.answers["remove"] = api.OwnResult{Mirror: "own", Snapshot: "own@20261122T160000Z", New: true, Packages: c.packages}
			})
			if o := x.run("", "remove", "own", c.packages[0].Name); o.Exit != 0 || o.Out != c.want {
				t.Errorf("exit %d, %q, expected %q\n%s", o.Exit, o.Out, c.want, o.Err)
			}
		})
	}
}

// A dry run of a sync prints which suites changed, and makes no snapshot.
func TestSyncDryRun(t *testing.T) {
	x := newTester(t)
	x.fake.set(func() {
		x.fake.answers["sync"] = api.SyncResult{DryRun: true, Mirrors: []api.MirrorSync{
			{Mirror: "debian", New: true, Suites: []string{"bookworm", "bookworm-updates"}},
			{Mirror: "fedora", Snapshot: "fedora@20261122T160000Z", New: true, Suites: []string{"."}},
			{Mirror: "same", Snapshot: "same@20261122T160000Z"},
		}}
	})
	want := "debian: would make a snapshot: bookworm, bookworm-updates changed\nfedora: would make a snapshot\nsame: nothing changed since same@20261122T160000Z\n"
	if o := x.run("", "sync", "--dry-run"); o.Exit != 0 || o.Out != want {
		t.Errorf("exit %d, %q, expected %q\n%s", o.Exit, o.Out, want, o.Err)
	}
	if o := x.run("", "sync", "--dry-run", "--no-wait"); o.Exit != 2 {
		t.Errorf("without waiting: exit %d", o.Exit)
	}
}

package client_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/lockfile"
)

// A freeze from the lock file of a freeze contains the same packages, in every format.
func TestLockRoundTrip(t *testing.T) {
	b := freezertest.NewBoth(t, "stable")
	freeze := func(name string, manifests ...api.ManifestFile) {
		t.Helper()
		if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: name, Manifests: manifests}, nil); err != nil {
			t.Fatal(err)
		}
	}
	list := api.ManifestFile{Name: "list", Data: []byte("hello=2.10-3\nlogin=1:4.13+dfsg1-1+b1\ntzdata=2024a-0+deb12u1\nbash=5.2.26-3.fc40\nbind-libs=32:9.18.26-1.fc40\ntzdata=2024a-1.fc40\n")}
	freeze("4.1", list)
	all := b.Names(t, "4.1")
	for _, f := range lockfile.Formats() {
		res, err := b.Sources(t.Context(), &api.SourcesRequest{Ref: "4.1", Format: string(f)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Sources(t.Context(), &api.SourcesRequest{Ref: "4.1", Format: string(f)})
		if err != nil || again.Text != res.Text {
			t.Errorf("%s: again: %v\n%s", f, err, cmp.Diff(res.Text, again.Text))
		}
		name := "again-" + string(f)
		freeze(name, api.ManifestFile{Name: "lock", Data: []byte(res.Text)})
		want := slices.DeleteFunc(slices.Clone(all), func(s string) bool {
			return f == lockfile.RPMsLock && strings.HasPrefix(s, "debian ") || f != lockfile.RPMsLock && f != lockfile.SHA256Sums && strings.HasPrefix(s, "fedora ")
		})
		if len(want) < 3 {
			t.Fatalf("%s: only %v", f, want)
		}
		if d := cmp.Diff(want, b.Names(t, name)); d != "" {
			t.Errorf("%s (-freeze +freeze of its lock file):\n%s\n%s", f, d, res.Text)
		}
		if note := f == lockfile.ReproEnv; note != (len(res.Notes) == 1) {
			t.Errorf("%s: notes %q", f, res.Notes)
		}
	}
	// A snapshot has URLs at its exact timestamp; one mirror can be chosen.
	res, err := b.Sources(t.Context(), &api.SourcesRequest{Ref: "debian@latest", Format: "repro-env", Container: "debian@sha256:00"})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := b.Parts.Store().Latest(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	at, _ := strings.CutPrefix(snap.ID(), "debian@")
	if !strings.HasPrefix(res.Text, "[container]\nimage = \"debian@sha256:00\"\n") || !strings.Contains(res.Text, `url = "http://snapd.example.org/archive/debian/`+at+`/pool/`) || len(res.Notes) != 0 {
		t.Errorf("notes %q\n%s", res.Notes, res.Text)
	}
	res, err = b.Sources(t.Context(), &api.SourcesRequest{Ref: "4.1", Format: "sha256sums", Mirror: "fedora"})
	if err != nil || strings.Contains(res.Text, ".deb") || !strings.Contains(res.Text, ".rpm") {
		t.Errorf("%v, %+v", err, res)
	}
	if _, err := b.Sources(t.Context(), &api.SourcesRequest{For: &list, Format: "sha256sums"}); err == nil || !strings.Contains(err.Error(), "freeze the packages of list first") {
		t.Errorf("a lock file for a build manifest: %v", err)
	}
}

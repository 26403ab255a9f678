package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A recording that is not frozen yet has sources, with the key that signs its documents.
func TestRecordingSources(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	snap, err := w.Store().Latest(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	pins := []meta.RecordingPin{{Mirror: "debian", Timestamp: snap.Timestamp}}
	for _, r := range []meta.Recording{{Name: "plain", Started: w.Now(), Pins: pins}, {Name: "again", Started: w.Now(), Pins: pins, Resigned: true}} {
		if err := w.Store().StartRecording(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	// The last line of a key's data identifies the key.
	lines := strings.Split(strings.TrimSpace(w.Signer.PublicKeyArmored()), "\n")
	ours := "\n " + lines[len(lines)-3] + "\n"
	for name, c := range map[string]struct {
		comment string
		ours    bool
	}{
		"plain": {", signed by the distribution; recording plain\n", false},
		"again": {", re-signed by this server; recording again\n", true},
	} {
		res, err := w.Freezer.Sources(t.Context(), &api.SourcesRequest{Ref: name})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range []string{"# " + snap.ID() + c.comment, "URIs: http://snapd.example.org/record/" + name + "/debian\n", "Signed-By:"} {
			if !strings.Contains(res.Text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, res.Text)
			}
		}
		if strings.Contains(res.Text, ours) != c.ours {
			t.Errorf("%s: this server's key in it: expected %v:\n%s", name, c.ours, res.Text)
		}
	}
	if _, err := w.Freezer.Sources(t.Context(), &api.SourcesRequest{Ref: "nothing"}); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a name of nothing: %v", err)
	}
}

// The error for a format that sources does not support names it and lists the others.
func TestSourcesRefused(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	for want, req := range map[string]api.SourcesRequest{
		"usage: debian@latest has no mirror fedora, only debian":                                                                                                {Mirror: "fedora"},
		"usage: --format repo does not apply to any mirror of debian@latest (deb822, list and mmdebstrap are for deb, repo is for rpm)":                         {Format: "repo"},
		`usage: --format "x": expected deb822, list, repo, mmdebstrap, repro-env, rules-distroless, rules-distroless-v1, rpms-lock or sha256sums`:               {Format: "x"},
		"usage: --format rpms-lock does not apply to any mirror of debian@latest (rpms-lock is for rpm, sha256sums for both, the other lock files are for deb)": {Format: "rpms-lock"},
		"usage: debian@latest has no mirror fedora, only debian ":                                                                                               {Format: "sha256sums", Mirror: "fedora"},
		"usage: --format sha256sums refers to no keys: leave out --keys-dir":                                                                                    {Format: "sha256sums", KeysDir: "/keys"},
		"usage: --container needs --format repro-env":                                                                                                           {Container: "debian"},
		`usage: --container "a b": expected the name of an image`:                                                                                               {Format: "repro-env", Container: "a b"},
	} {
		req.Ref = "debian@latest"
		if _, err := w.Freezer.Sources(t.Context(), &req); err == nil || err.Error() != strings.TrimSpace(want) {
			t.Errorf("%+v: %v, expected %s", req, err, want)
		}
	}
}

func TestSBOM(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	for _, f := range []string{"spdx", "cyclonedx"} {
		res, err := w.Freezer.SBOM(t.Context(), &api.SBOMRequest{Ref: "4.1", Format: f})
		if err != nil || !strings.Contains(res.Text, "src-a") {
			t.Errorf("%s: %v", f, err)
		}
		again := w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: []api.ManifestFile{{Name: "sbom.json", Data: []byte(res.Text)}}})
		if again.New {
			t.Error("a freeze of the bill of materials is another one")
		}
	}
}

// Package URLs in bills of materials contain the distribution of a package, according to
// its suite.
func TestSBOMDistro(t *testing.T) {
	b := freezertest.NewBoth(t, "stable", "stable-updates", "sid")
	for name, fields := range map[string][3]string{"stable": {"Debian", "bookworm", "12.5"}, "stable-updates": {"Debian", "bookworm-updates", "12-updates"}, "sid": {"Debian", "sid", ""}} {
		s := b.Debian.Suite(name)
		s.Origin, s.Codename, s.Version = fields[0], fields[1], fields[2]
	}
	b.Debian.Suite("stable-updates").Add(debtest.Package{Name: "updated", Version: "2"})
	b.Debian.Suite("sid").Add(debtest.Package{Name: "fresh", Version: "3"})
	b.Debian.Publish(b.Now.Add(time.Minute))
	b.Sync(t)
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", NoSources: true, Manifests: freezertest.List("login", "updated", "fresh", "bind-libs")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"spdx", "cyclonedx"} {
		res, err := b.SBOM(t.Context(), &api.SBOMRequest{Ref: "x", Format: format})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"pkg:deb/debian/login@1:4.13%2Bdfsg1-1%2Bb1?arch=amd64&distro=debian-12"`,
			`"pkg:deb/debian/updated@2?arch=amd64&distro=debian-12"`,
			`"pkg:deb/debian/fresh@3?arch=amd64&distro=debian-sid"`,
			`"pkg:rpm/fedora/bind-libs@9.18.26-1.fc40?arch=x86_64&distro=fedora-40&epoch=32"`,
		} {
			if !strings.Contains(res.Text, want) {
				t.Errorf("%s: no %s", format, want)
			}
		}
		again, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", NoSources: true, Manifests: []api.ManifestFile{{Name: "sbom", Data: []byte(res.Text)}}}, nil)
		if err != nil || again.New {
			t.Errorf("%s: freezing what the bill of materials lists: %v", format, err)
		}
	}
}

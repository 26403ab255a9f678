package freezertest

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// Both is a server with a mirror of Debian and one of Fedora.
type Both struct {
	*freezer.Freezer
	Parts  *mirrortest.Parts
	Debian *debtest.Archive
	Now    time.Time
}

// NewBoth returns a Both whose mirror of Debian has these suites, after its first sync.

func NewBoth(t *testing.T, suites ...string) *Both {
	t.Helper()
	b := &Both{Debian: debtest.New(t), Now: mirrortest.Start}
	debs := httptest.NewServer(b.Debian.Handler())
	t.Cleanup(debs.Close)
	theirs := signtest.Signer(t, signtest.NewKey(t, "fedora"))
	fedora := rpmtest.New(rpmtest.Options{PackageSigner: theirs, Signer: theirs})
	rpms := httptest.NewServer(fedora)
	t.Cleanup(rpms.Close)
	keys := filepath.Join(t.TempDir(), "keys.asc")
	if err := os.WriteFile(keys, theirs.Keyring().ExportArmored(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range suites {
		b.Debian.Suite(s).Components = []string{"main", "contrib"}
	}
	b.Debian.Suite(suites[0]).Add(
		debtest.Package{Name: "hello", Version: "2.10-3"}, debtest.Package{Name: "tzdata", Version: "2024a-0+deb12u1", Arch: "all"},
		debtest.Package{Name: "login", Version: "1:4.13+dfsg1-1+b1"}, debtest.Package{Name: "bar", Version: "1"})
	b.Debian.Publish(b.Now)
	fedora.Add(
		rpmtest.Package{Name: "bash", Version: "5.2.26", Release: "3.fc40", Arch: "x86_64"}, rpmtest.Package{Name: "tzdata", Version: "2024a", Release: "1.fc40"},
		rpmtest.Package{Name: "bind-libs", Version: "9.18.26", Release: "1.fc40", Epoch: 32, Arch: "x86_64"})
	fedora.SetTags(`<distro cpeid="cpe:/o:fedoraproject:fedora:40">Fedora 40</distro>`)
	fedora.Publish(b.Now)
	now := func() time.Time { return b.Now }
	b.Parts = mirrortest.ComposeTemp(t, mirrortest.Config{
		Mirrors: []config.Mirror{
			{Name: "debian", Type: "deb", URL: remote.NewURL(debs.URL), Suites: suites, Components: []string{"main", "contrib"}, Architectures: []string{"amd64"},
				Keyring: config.Strings{b.Debian.KeyringFile()}, Sources: true, Download: config.OnDemand},
			{Name: "fedora", Type: "rpm", URL: remote.NewURL(rpms.URL), Keyring: config.Strings{keys}, Download: config.OnDemand},
		},
		Formats: []repo.Format{deb.Format{}, rpm.Format{}}, Now: now,
	})
	b.Sync(t)
	b.Freezer = For(b.Parts, signtest.Signer(t, signtest.NewKey(t, "freezer")), now)
	return b
}

// Sync advances the clock by a minute and takes a snapshot.
func (b *Both) Sync(t *testing.T) {
	t.Helper()
	b.Now = b.Now.Add(time.Minute)
	for _, m := range []string{"debian", "fedora"} {
		if _, err := b.Parts.Sync(t.Context(), config.MirrorName(m), mirror.SyncOptions{AcceptClock: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// Names lists the packages of a freeze: "mirror name version arch".
func (b *Both) Names(t *testing.T, ref string) (out []string) {
	t.Helper()
	list, err := b.Packages(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Packages {
		out = append(out, strings.Join([]string{p.Mirror, p.Name, p.Version, p.Arch}, " "))
	}
	slices.Sort(out)
	return out
}

// Verified fails the test unless a deep verification finds nothing wrong.
func (b *Both) Verified(t *testing.T, ref string) {
	t.Helper()
	Verify(t, b.Freezer, ref)
}

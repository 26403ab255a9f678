package story

import (
	"slices"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// apt resolves and installs packages from the freeze of a repository that lists indices,
// packages or both only by SHA-512.
func TestSHA512(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	for _, c := range []struct {
		name     string
		release  []string
		packages bool
	}{
		{"indices", []string{"SHA512"}, false},
		{"packages", []string{"SHA256"}, true},
		{"both", []string{"SHA512"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArchive(t)
			a.Default().Digests, a.Default().SHA512 = c.release, c.packages
			a.Add(debtest.Package{Name: "hello", Version: "1:2~rc1+b1", Fields: map[string]string{"Depends": "lib (>= 1)"}},
				debtest.Package{Name: "lib", Version: "1"}, debtest.Package{Name: "other", Version: "1"})
			a.publish()
			s := start(t, head+a.stanza("debian", ""))
			s.Ctl("sync")
			s.Ctl("freeze", "4.1", "--package", "hello", "--with-deps", "--no-sources")
			s.Ctl("verify", "4.1", "--deep")
			apt := debtest.NewApt(t, s.Ctl("sources", "4.1"))
			apt.Run("apt-get", "update")
			apt.Run("apt-get", "install", "hello")
			if got := apt.Installed(); !slices.Equal(got, []string{"hello 1:2~rc1+b1", "lib 1"}) {
				t.Errorf("installed: %q", got)
			}
		})
	}
}

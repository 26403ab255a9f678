package lockfile

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/buildlist"
)

var update = flag.Bool("update", false, "write the golden lock files")

// document has debs of two mirrors and rpms, in no order.
func document() *Document {
	sum := func(c string) string { return strings.Repeat(c, 64) }
	return &Document{
		Ref: "4.1", Container: "debian@sha256:" + sum("9"),
		Repositories: []Repository{
			{ID: "snapd-4.1-security", Mirror: "security", Ecosystem: buildlist.Deb, URL: "https://snapd.example.org/frozen/4.1/security",
				Suites:   []Suite{{Name: "stable", Components: []string{"main"}, Archs: []string{"amd64"}}, {Name: "stable/updates", Components: []string{"main"}, Archs: []string{"amd64"}}},
				Packages: []Package{{Name: "tar", Version: "1.34+deb12u1", Arch: "amd64", Suites: []string{"stable/updates"}, Path: "pool/t/tar_1.34+deb12u1_amd64.deb", Size: 3, SHA256: sum("3")}}},
			{ID: "snapd-4.1-debian", Mirror: "debian", Ecosystem: buildlist.Deb, URL: "https://snapd.example.org/frozen/4.1/debian",
				Suites: []Suite{{Name: "stable", Components: []string{"main", "contrib"}, Archs: []string{"amd64", "arm64"}}},
				Packages: []Package{
					{Name: "tzdata", Version: "2024a-1", Arch: "all", Suites: []string{"stable"}, Path: "pool/t/tzdata_2024a-1_all.deb", Size: 4, SHA256: sum("4")},
					{Name: "libstdc++6", Version: "1:12~rc1-1", Arch: "arm64", Suites: []string{"stable"}, Path: "pool/l/libstdc++6_12~rc1-1_arm64.deb", Size: 2, SHA256: sum("2")},
					{Name: "libstdc++6", Version: "1:12~rc1-1", Arch: "amd64", Suites: []string{"stable"}, Path: "pool/l/libstdc++6_12~rc1-1_amd64.deb", Size: 1, SHA256: sum("1")},
					{Name: "libstdc++6", Version: "1:12~rc1-1", Arch: "amd64", Suites: []string{"stable-updates", "stable"}, Path: "pool/l/libstdc++6_12~rc1-1_amd64.deb", Size: 1, SHA256: sum("1")},
				}},
			{ID: "snapd-4.1-fedora", Mirror: "fedora", Ecosystem: buildlist.RPM, URL: "https://snapd.example.org/frozen/4.1/fedora", Archs: []string{"x86_64"},
				Packages: []Package{
					{Name: "bind", Version: "32:9.18^git1-1.fc40", Arch: "x86_64", Path: "Packages/b/bind-9.18^git1-1.fc40.x86_64.rpm", Size: 5, SHA256: sum("5"), SourceName: "bind", SourceVersion: "9.18^git1-1.fc40"},
					{Name: "glibc", Version: "2.39-1.fc40", Arch: "i686", Path: "Packages/g/glibc-2.39-1.fc40.i686.rpm", Size: 6, SHA256: sum("6"), SourceName: "glibc", SourceVersion: "2.39-1.fc40"},
					{Name: "hwdata", Version: "0.363-1.fc40", Arch: "noarch", Path: "Packages/h/hwdata-0.363-1.fc40.noarch.rpm", Size: 7, SHA256: sum("7"), SourceName: "hwdata", SourceVersion: "0.363-1.fc40"},
					{Name: "bind", Version: "32:9.18^git1-1.fc40", Arch: "src", Source: true, Path: "Packages/b/bind-9.18^git1-1.fc40.src.rpm", Size: 8, SHA256: sum("8")},
				}},
		},
	}
}

// of returns the document with only the repositories that a format can contain.
func of(f Format) *Document {
	d := document()
	d.Repositories = slices.DeleteFunc(d.Repositories, func(r Repository) bool { return !f.Holds(r.Ecosystem) })
	return d
}

// Each format has a golden file, which does not depend on the order of the packages.
// buildlist recognises the format and finds the same packages.
func TestWrite(t *testing.T) {
	for _, f := range Formats() {
		t.Run(string(f), func(t *testing.T) {
			d := of(f)
			got, err := Write(d, f)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", string(f))
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-golden +got):\n%s", diff)
			}
			slices.Reverse(d.Repositories)
			for i := range d.Repositories {
				slices.Reverse(d.Repositories[i].Packages)
			}
			if again, err := Write(d, f); err != nil || again != got {
				t.Errorf("in another order: %v\n%s", err, cmp.Diff(got, again))
			}

			m, err := buildlist.Parse("lock", strings.NewReader(got), "")
			if err != nil {
				t.Fatal(err)
			}
			if kind, _, _ := strings.Cut(string(f), "-v1"); string(m.Format) != kind {
				t.Errorf("recognised as %s", m.Format)
			}
			wanted, found := map[string]string{}, map[string]string{}
			for _, r := range d.Repositories {
				for _, p := range r.Packages {
					if f == SHA256Sums {
						if !p.Source {
							wanted[p.SHA256] = p.Path
						}
						continue
					}
					wanted[p.SHA256] = p.Name + " " + p.Version + " " + p.Arch
				}
			}
			for _, e := range m.Entries {
				if found[e.SHA256] = e.Name + " " + e.Version + " " + e.Arch; f == SHA256Sums {
					found[e.SHA256] = e.Path // whose names have no epochs
				}
				if f != SHA256Sums && !strings.HasPrefix(e.URL, "https://snapd.example.org/frozen/4.1/") {
					t.Errorf("%s has the URL %q", e, e.URL)
				}
			}
			if diff := cmp.Diff(wanted, found); diff != "" {
				t.Errorf("packages (-document +lock):\n%s", diff)
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	for want, change := range map[string]func(*Repository) Format{
		`write lock file repro-env of 4.1: invalid lock file: tzdata:all=2024a-1: expected a SHA-256, found "": upstream lists another digest, and the file is not stored yet`: func(r *Repository) Format {
			r.Packages[0].SHA256 = ""
			return ReproEnv
		},
		`write lock file sha256sums of 4.1: invalid lock file: tzdata:all=2024a-1: expected the path of a file, found "a\nb"`: func(r *Repository) Format {
			r.Packages[0].Path = "a\nb"
			return SHA256Sums
		},
		`write lock file rpms-lock of 4.1: invalid lock file: expected packages of an architecture, found packages for all: configure the architectures of the mirror`: func(r *Repository) Format {
			r.Packages = []Package{{Name: "a", Version: "1-1", Arch: "noarch", Path: "a-1-1.noarch.rpm", SHA256: strings.Repeat("1", 64)}}
			return RPMsLock
		},
		`write lock file yaml of 4.1: invalid lock file: format "yaml"`: func(*Repository) Format { return "yaml" },
	} {
		d := &Document{Ref: "4.1", Repositories: document().Repositories[1:2]}
		f := change(&d.Repositories[0])
		if text, err := Write(d, f); text != "" || !errors.Is(err, ErrInvalid) || err.Error() != want {
			t.Errorf("%v, expected %s", err, want)
		}
	}
}

// Any text is unchanged after it was written to TOML and read.
func TestTOMLText(t *testing.T) {
	for in, want := range map[string]string{`a"b\c`: `"a\"b\\c"`, "\x01\x7fé": `"\u0001\u007Fé"`} {
		if got := tomlText(in); got != want {
			t.Errorf("%q: %s, expected %s", in, got, want)
		}
	}
}

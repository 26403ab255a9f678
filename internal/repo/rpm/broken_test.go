package rpm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

func TestBroken(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	r.Add(
		rpmtest.Package{Name: "app", Version: "1.0", Requires: []string{"lib >= 2.0", "lib < 3", "virtual", "/usr/bin/tool", "/usr/share/unknown", "/usr/bin/none",
			"libc.so.6(GLIBC_2.34)(64bit)", "gone", "newer >= 1:1.0", "exact = 1.0", "exact = 1.0-2"}},
		rpmtest.Package{Name: "lib", Version: "2.5", Provides: []string{"virtual = 7", "libc.so.6(GLIBC_2.34)(64bit)"}},
		rpmtest.Package{Name: "newer", Version: "9.0"},
		rpmtest.Package{Name: "exact", Version: "1.0", Release: "1"},
		rpmtest.Package{Name: "tool", Version: "1", Files: []rpmtest.File{{Path: "/usr/bin/tool", Body: "x"}}},
		rpmtest.Package{Name: "source", Version: "1", Arch: "src", Requires: []string{"anything"}},
	)
	r.Publish(t0)
	u := &upstream{r: r}
	root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
	if err != nil {
		t.Fatal(err)
	}
	recs, _, err := readAll(t, u, config.Mirror{}, root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Format{}.Broken(t.Context(), func(emit func(repo.Record) error) error {
		return recordsOf(recs)(t.Context(), "", emit)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.Problem{
		{Package: "app:noarch=1.0-1", Relation: "/usr/bin/none", Reason: "nothing provides it"},
		{Package: "app:noarch=1.0-1", Relation: "exact = 1.0-2", Reason: "only exact = 1.0-1 is provided"},
		{Package: "app:noarch=1.0-1", Relation: "gone", Reason: "nothing provides it"},
		{Package: "app:noarch=1.0-1", Relation: "newer >= 1:1.0", Reason: "only newer = 9.0-1 is provided"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRichPossible(t *testing.T) {
	there := func(name string) bool { return name == "a" || name == "libx.so()(64bit)" }
	for rich, want := range map[string]bool{
		"(a or b)": true, "(b or c)": false, "(b if c)": true, "(b >= 1.0 or a < 2)": true, "((b and c) or libx.so()(64bit))": true, "(a)": true, "((b))": false,
	} {
		if got := richPossible(rich, there); got != want {
			t.Errorf("%s: %v", rich, got)
		}
	}
}

func TestClientConfig(t *testing.T) {
	p := repo.SourceParams{Mirror: config.Mirror{Name: "fedora"}, URL: "http://snap.example.org/frozen/4.1/fedora", Name: "snapd-4.1-fedora",
		KeyFiles: []string{"/etc/pki/snap d.asc", "file:///etc/pki/fedora.asc"}, Comment: "Frozen as 4.1."}
	got, err := Format{}.ClientConfig("repo", p)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Frozen as 4.1.
[snapd-4.1-fedora]
name=fedora
baseurl=http://snap.example.org/frozen/4.1/fedora
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=file:///etc/pki/snap%20d.asc
       file:///etc/pki/fedora.asc
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := (Format{}).ClientConfig("deb822", p); err == nil || !strings.Contains(err.Error(), "expected repo") {
		t.Error(err)
	}
	p.KeyFiles = nil
	if _, err := (Format{}).ClientConfig("repo", p); err == nil {
		t.Error("ClientConfig wrote a .repo file without a key")
	}
}

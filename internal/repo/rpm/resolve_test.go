package rpm

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

func TestResolve(t *testing.T) {
	if _, err := exec.LookPath("dnf"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r := rpmtest.New(rpmtest.Options{})
	built := r.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64", Requires: []string{"lib >= 1.0"}},
		rpmtest.Package{Name: "app", Version: "0.9", Arch: "x86_64"},
		rpmtest.Package{Name: "lib", Version: "1.2~rc1+x", Requires: []string{"base"}},
		rpmtest.Package{Name: "unused", Version: "1"})
	r.Publish(t0)
	other := rpmtest.New(rpmtest.Options{})
	more := other.Add(rpmtest.Package{Name: "base", Version: "1^x", Epoch: 3})
	other.Publish(t0)
	a, b := httptest.NewServer(r), httptest.NewServer(other)
	defer a.Close()
	defer b.Close()
	repos := []repo.SourceParams{{Name: "snapd-a", URL: a.URL}, {Name: "snapd-b", URL: b.URL}}
	got, err := Format{}.Resolve(t.Context(), repos, "x86_64", []string{"app"})
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.Resolved{
		{URL: a.URL + "/" + built[0].Href(), SHA256: cas.Sum(built[0].Bytes)},
		{URL: a.URL + "/" + built[2].Href(), SHA256: cas.Sum(built[2].Bytes)},
		{URL: b.URL + "/" + more[0].Href(), SHA256: cas.Sum(more[0].Bytes)},
	}
	slices.SortFunc(got, func(a, b repo.Resolved) int { return strings.Compare(a.URL, b.URL) })
	slices.SortFunc(want, func(a, b repo.Resolved) int { return strings.Compare(a.URL, b.URL) })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := (Format{}).Resolve(t.Context(), repos[:1], "x86_64", []string{"app"}); err == nil || !strings.Contains(err.Error(), "base") {
		t.Errorf("without what it needs: %v", err)
	}
	if _, err := (Format{}).Resolve(t.Context(), repos, "x86_64", []string{"nothing"}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("an unknown package: %v", err)
	}
}

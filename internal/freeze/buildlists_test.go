package freeze_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// both is a server with a mirror of Debian and one of Fedora.
type both struct {
	*freezer.Freezer
	e      *mirror.Engine
	debian *debtest.Archive
	now    time.Time
}

func newBoth(t *testing.T, suites ...string) *both {
	t.Helper()
	b := &both{debian: debtest.New(t), now: mirrortest.Start}
	debs := httptest.NewServer(b.debian.Handler())
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
		b.debian.Suite(s).Components = []string{"main", "contrib"}
	}
	b.debian.Suite(suites[0]).Add(
		debtest.Package{Name: "hello", Version: "2.10-3"}, debtest.Package{Name: "tzdata", Version: "2024a-0+deb12u1", Arch: "all"},
		debtest.Package{Name: "login", Version: "1:4.13+dfsg1-1+b1"}, debtest.Package{Name: "bar", Version: "1"})
	b.debian.Publish(b.now)
	fedora.Add(
		rpmtest.Package{Name: "bash", Version: "5.2.26", Release: "3.fc40", Arch: "x86_64"}, rpmtest.Package{Name: "tzdata", Version: "2024a", Release: "1.fc40"},
		rpmtest.Package{Name: "bind-libs", Version: "9.18.26", Release: "1.fc40", Epoch: 32, Arch: "x86_64"})
	fedora.SetTags(`<distro cpeid="cpe:/o:fedoraproject:fedora:40">Fedora 40</distro>`)
	fedora.Publish(b.now)
	dir := t.TempDir()
	blobs, err := cas.OpenDir(dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return b.now }
	b.e, err = mirror.New(mirror.Config{
		Mirrors: []config.Mirror{
			{Name: "debian", Type: "deb", URL: remote.NewURL(debs.URL), Suites: suites, Components: []string{"main", "contrib"}, Architectures: []string{"amd64"},
				Keyring: config.Strings{b.debian.KeyringFile()}, Sources: true, Download: config.OnDemand},
			{Name: "fedora", Type: "rpm", URL: remote.NewURL(rpms.URL), Keyring: config.Strings{keys}, Download: config.OnDemand},
		},
		Formats: []repo.Format{deb.Format{}, rpm.Format{}}, Store: st, Blobs: blobs, Client: fetch.New(fetch.Config{Retries: -1}), Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.e.Close()
		if err := errors.Join(st.Close(), blobs.Close()); err != nil {
			t.Error(err)
		}
	})
	b.sync(t)
	b.Freezer = freezer.New(freezer.Config{
		Engine: b.e, Signer: signtest.Signer(t, signtest.NewKey(t, "freezer")), PublicURL: "http://snapd.example.org", Version: "test", Now: now,
	})
	return b
}

// sync takes a snapshot a minute later.
func (b *both) sync(t *testing.T) {
	t.Helper()
	b.now = b.now.Add(time.Minute)
	for _, m := range []string{"debian", "fedora"} {
		if _, err := b.e.Sync(t.Context(), m, mirror.SyncOptions{AcceptClock: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// names lists the packages of a freeze: "mirror name version arch".
func (b *both) names(t *testing.T, ref string) (out []string) {
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

func (b *both) verified(t *testing.T, ref string) {
	t.Helper()
	v, err := b.Verify(t.Context(), &api.VerifyRequest{Ref: ref, Deep: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Faults {
		t.Errorf("verify %s: %+v", ref, f)
	}
}

// Each format of build manifests is recognised and frozen to what its tool listed,
// and nothing else.
func TestFreezeEachFormat(t *testing.T) {
	const (
		hello  = "debian hello 2.10-3 amd64"
		login  = "debian login 1:4.13+dfsg1-1+b1 amd64"
		tzdata = "debian tzdata 2024a-0+deb12u1 all"
		bash   = "fedora bash 5.2.26-3.fc40 x86_64"
		bind   = "fedora bind-libs 32:9.18.26-1.fc40 x86_64"
		zone   = "fedora tzdata 2024a-1.fc40 noarch"

		loginURL = "pkg:deb/debian/login@4.13%2Bdfsg1-1%2Bb1?arch=amd64&distro=debian-12.5&epoch=1"
		bindURL  = "pkg:rpm/fedora/bind-libs@9.18.26-1.fc40?arch=x86_64&distro=fedora-40&epoch=32"
	)
	b := newBoth(t, "stable")
	sums := map[string]string{}
	for _, ref := range []string{"debian@latest", "fedora@latest"} {
		list, err := b.Packages(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Packages {
			sums[p.Mirror+" "+p.Name] = p.SHA256
		}
	}
	covered := map[buildlist.Format]bool{}
	for i, tt := range []struct {
		format buildlist.Format
		what   string
		text   string
		want   []string
	}{
		{buildlist.List, "versions", "hello=2.10-3\nlogin:amd64=1:4.13+dfsg1-1+b1\nbind-libs=32:9.18.26-1.fc40\n", []string{hello, login, bind}},
		{buildlist.List, "mixed", "# build\nhello # the greeter\ntzdata=2024a-0+deb12u1\n", []string{hello, tzdata}},
		{buildlist.List, "names of both", "hello\nbash\n", []string{hello, bash}},
		{buildlist.List, "a name of two mirrors", "tzdata\n", nil},
		{buildlist.Tails, "", "packages:\n  binary:\n  - {package: hello, version: 2.10-3, arch: amd64}\n", []string{hello}},
		{buildlist.Buildinfo, "", "Format: 1.0\nSource: x\nVersion: 1\nBuild-Architecture: amd64\nInstalled-Build-Depends:\n hello (= 2.10-3),\n tzdata (= 2024a-0+deb12u1)\n", []string{hello, tzdata}},
		{buildlist.DpkgStatus, "", "Package: login\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:4.13+dfsg1-1+b1\n\nPackage: bar\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n", []string{login}},
		{buildlist.DpkgQuery, "-W", "hello\t2.10-3\nlogin:amd64\t1:4.13+dfsg1-1+b1\n", []string{hello, login}},
		{buildlist.DpkgQuery, "-l", "ii  hello  2.10-3  amd64  greeter\nrc  bar  1  amd64  gone\n", []string{hello}},
		{buildlist.DpkgQuery, "commas", "hello,2.10-3,amd64\ntzdata,2024a-0+deb12u1,all\n", []string{hello, tzdata}},
		{buildlist.DpkgQuery, "Ubuntu", "hello\t2.10-3\nsnap:core20\tlatest/stable\t2318\n", []string{hello}},
		{buildlist.DpkgSelections, "", "bar\t\t\tdeinstall\nhello\t\t\tinstall\nlogin\t\t\thold\n", []string{hello, login}},
		{buildlist.DpkgSelections, "with architectures", "bar:amd64\tpurge\nhello:amd64\tinstall\ntzdata\tinstall\nbash\tdeinstall\n", []string{hello, tzdata}},
		{buildlist.AptList, "", "Listing...\nhello/stable,now 2.10-3 amd64 [installed]\nbar/stable 1 amd64\n", []string{hello}},
		{buildlist.AptHistory, "", "\nStart-Date: 2024-01-01  10:00:00\nCommandline: apt-get install hello\nInstall: hello:amd64 (2.10-2), tzdata:amd64 (2024a-0+deb12u1, automatic), bar:amd64 (1)\nEnd-Date: 2024-01-01  10:00:01\n\n" +
			"Start-Date: 2024-01-02  10:00:00\nUpgrade: hello:amd64 (2.10-2, 2.10-3)\nRemove: bar:amd64 (1)\nEnd-Date: 2024-01-02  10:00:01\n", []string{hello, tzdata}},
		{buildlist.Mmdebstrap, "", "hello 2.10-3\ntzdata 2024a-0+deb12u1\n", []string{hello, tzdata}},
		{buildlist.Mmdebstrap, "columns", "hello 2.10-3 amd64\ntzdata 2024a-0+deb12u1 all\n", []string{hello, tzdata}},
		{buildlist.Mmdebstrap, "simulated", "Inst hello (2.10-3 Debian:12/stable [amd64])\nConf hello (2.10-3 Debian:12/stable [amd64])\n", []string{hello}},
		{buildlist.Debootstrap, "", "hello login\n", []string{hello, login}},
		{buildlist.PrintURIs, "", "'http://mirror.example.org/login_4.13%2bdfsg1-1%2bb1_amd64.deb' login_1%3a4.13+dfsg1-1+b1_amd64.deb 0 \n", []string{login}},
		{buildlist.SHA256Sums, "", sums["debian tzdata"] + "  any/tzdata_0_all.deb\n" + sums["fedora bash"] + "  bash-0-0.x86_64.rpm\n", []string{tzdata, bash}},
		{buildlist.SPDX, "JSON", `{"spdxVersion": "SPDX-2.3", "packages": [{"name": "login", "externalRefs": [{"referenceType": "purl", "referenceLocator": "` + loginURL + `"}]}]}`, []string{login}},
		{buildlist.SPDX, "tag-value", "SPDXVersion: SPDX-2.3\nDocumentName: x\nPackageName: login\nExternalRef: PACKAGE-MANAGER purl " + loginURL + "\nPackageName: bind\nExternalRef: PACKAGE-MANAGER purl " + bindURL + "\n", []string{login, bind}},
		{buildlist.CycloneDX, "", `{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "login", "purl": "` + loginURL + `"}, {"name": "bind-libs", "purl": "` + bindURL + `"}]}`, []string{login, bind}},
		{buildlist.Syft, "", `{"artifacts": [{"name": "login", "type": "deb", "purl": "pkg:deb/debian/login@1%3A4.13%2Bdfsg1-1%2Bb1?arch=amd64"}, {"name": "x", "type": "python", "purl": "pkg:pypi/x@1"}], "schema": {}}`, []string{login}},
		{buildlist.RPMQA, "", "bash-5.2.26-3.fc40.x86_64\nbind-libs-9.18.26-1.fc40.x86_64\ntzdata-2024a-1.fc40.noarch\n", []string{bash, bind, zone}},
		{buildlist.RPMQA, "--last", "bash-5.2.26-3.fc40.x86_64          Tue 14 Nov 2023 10:13:20 PM UTC\n", []string{bash}},
		{buildlist.RPMQA, "tabs", "bash\t(none)\t5.2.26\t3.fc40\tx86_64\nbind-libs\t32\t9.18.26\t1.fc40\tx86_64\n", []string{bash, bind}},
		{buildlist.RPMQA, "commas", "bash,5.2.26,3.fc40,x86_64\nbind-libs,9.18.26,1.fc40,x86_64\n", []string{bash, bind}},
		{buildlist.RPMQA, "bars", "bash|0|5.2.26|3.fc40|x86_64\n", []string{bash}},
		{buildlist.RPMQA, "dnf list", "Installed Packages\nbind-libs.x86_64    32:9.18.26-1.fc40    @fedora\n", []string{bind}},
		{buildlist.RPMQA, "userinstalled", "Packages installed by user\nbash-5.2.26-3.fc40.x86_64\n", []string{bash}},
		{buildlist.RPMQI, "", "Name        : bind-libs\nEpoch       : 32\nVersion     : 9.18.26\nRelease     : 1.fc40\nArchitecture: x86_64\nDescription :\nx\n", []string{bind}},
		{buildlist.DNFHistory, "", "Transaction ID : 2\nReturn-Code    : Success\nPackages Altered:\n    Upgrade  bash-5.2.26-3.fc40.x86_64 @updates\n    Upgraded bash-5.2.26-1.fc40.x86_64 @@System\n" +
			"----\nTransaction ID : 1\nReturn-Code    : Success\nPackages Altered:\n    Install bash-5.2.26-1.fc40.x86_64 @fedora\n    Install tzdata-2024a-1.fc40.noarch @fedora\n", []string{bash, zone}},
		{buildlist.RPMsLock, "", "lockfileVersion: 1\narches:\n- arch: x86_64\n  packages:\n  - url: https://mirror.example.org/bind-libs-9.18.26-1.fc40.x86_64.rpm\n    evr: 32:9.18.26-1.fc40\n", []string{bind}},
	} {
		covered[tt.format] = true
		t.Run(strings.TrimSpace(string(tt.format)+" "+tt.what), func(t *testing.T) {
			format, err := buildlist.Recognise("m", []byte(tt.text))
			if err != nil || format != tt.format {
				t.Fatalf("recognised as %q, %v", format, err)
			}
			name := fmt.Sprintf("x%d", i)
			res, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: name, Manifests: []api.ManifestFile{{Name: "m", Data: []byte(tt.text)}}, NoSources: true}, nil)
			if tt.want == nil {
				if !errors.Is(err, freeze.ErrAmbiguous) {
					t.Fatalf("got %v, want it to be ambiguous", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(tt.want)
			if d := cmp.Diff(tt.want, b.names(t, name)); d != "" {
				t.Errorf("(-want +got):\n%s%+v", d, res.Report)
			}
			b.verified(t, name)
		})
	}
	for _, f := range buildlist.Formats() {
		if !covered[f] {
			t.Errorf("format %s is frozen by no row", f)
		}
	}
}

// A list that fits two formats is refused with their names; naming one is enough.
func TestFreezeAsksForTheFormat(t *testing.T) {
	b := newBoth(t, "stable")
	m := []api.ManifestFile{{Name: "build.txt", Data: []byte("bash 5.2.26-3.fc40\n")}}
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, NoSources: true}, nil)
	if want := "build.txt fits the formats mmdebstrap and rpm-qa: choose one with --format"; !errors.Is(err, freeze.ErrUsage) || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want %s", err, want)
	}
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, Format: "rpm-qa", NoSources: true}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"fedora bash 5.2.26-3.fc40 x86_64"}, b.names(t, "x")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// What a build manifest lists beside packages of ours is reported.
func TestFreezeReportsNotes(t *testing.T) {
	b := newBoth(t, "stable")
	res, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", NoSources: true, Manifests: []api.ManifestFile{
		{Name: "u.manifest", Data: []byte("hello\t2.10-3\nsnap:core20\tlatest/stable\t2318\n")},
		{Name: "selections", Data: []byte("login\tinstall\nbar\tdeinstall\n")},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"u.manifest:2: snap:core20 is a snap: skipped", "selections:2: bar is selected for deinstall: skipped"}
	if d := cmp.Diff(want, res.Report.Notes); d != "" || res.Report.NoteCount != 2 {
		t.Errorf("notes (-want +got), %d in all:\n%s", res.Report.NoteCount, d)
	}
}

// Of an entry without a version the newest in the suites of a mirror is chosen, as
// apt chooses it: suites that are not automatic come last.
func TestFreezeNewestOfSuites(t *testing.T) {
	b := newBoth(t, "stable", "stable-updates", "stable-backports")
	b.debian.Suite("stable-updates").Add(debtest.Package{Name: "hello", Version: "2.10-4"})
	backports := b.debian.Suite("stable-backports")
	backports.Fields = map[string]string{"NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"}
	backports.Add(debtest.Package{Name: "hello", Version: "2.12-1~bpo12+1"}, debtest.Package{Name: "fresh", Version: "1~bpo12+1"})
	b.debian.Publish(b.now)
	b.sync(t)
	want := []string{"debian bar 1 amd64", "debian fresh 1~bpo12+1 amd64", "debian hello 2.10-4 amd64"}
	for name, req := range map[string]api.FreezeRequest{
		"list":       {Manifests: list("hello", "fresh", "bar=1")},
		"selections": {Manifests: []api.ManifestFile{{Name: "s", Data: []byte("hello\tinstall\nfresh\thold\nbar\tinstall\n")}}},
		"package":    {Packages: []string{"hello", "fresh", "bar"}},
	} {
		req.Name, req.NoSources = name, true
		res, err := b.Freeze(t.Context(), &req, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, b.names(t, name)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		i := slices.IndexFunc(res.Report.Entries, func(e api.ReportEntry) bool { return strings.HasPrefix(e.Entry, "hello") })
		if reason := "2.10-4 is the newest by the priority of its suite of 2.12-1~bpo12+1, 2.10-4, 2.10-3"; res.Report.Entries[i].Reason != reason {
			t.Errorf("%s: reason %q, want %q", name, res.Report.Entries[i].Reason, reason)
		}
		if n := map[string]int{"list": 2, "selections": 3, "package": 3}[name]; res.Report.Newest != n {
			t.Errorf("%s: %d entries without a version, want %d", name, res.Report.Newest, n)
		}
		b.verified(t, name)
	}
	m, err := b.e.Mirror("debian")
	if err != nil {
		t.Fatal(err)
	}
	var sources strings.Builder
	for _, suite := range m.Suites {
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s main\n", b.debian.KeyringFile(), m.URL, suite)
	}
	apt := debtest.NewApt(t, sources.String())
	apt.Run("apt-get", "update")
	for _, p := range []string{"hello=2.10-4", "fresh=1~bpo12+1"} {
		name, version, _ := strings.Cut(p, "=")
		if out := apt.Run("apt-cache", "policy", name); !strings.Contains(out, "Candidate: "+version+"\n") {
			t.Errorf("apt chooses another %s:\n%s", name, out)
		}
	}
}

// Several snapshots of one mirror are frozen together, and an entry that only one
// that was not chosen has is named with it.
func TestFreezeOfSeveralSnapshots(t *testing.T) {
	b := newBoth(t, "stable")
	old := "debian@" + b.now.UTC().Format("20060102T150405Z")
	b.debian.Suite("stable").Remove("hello", "2.10-3")
	b.debian.Suite("stable").Add(debtest.Package{Name: "hello", Version: "2.12-1"})
	b.now = b.now.Add(time.Hour)
	b.debian.Publish(b.now)
	b.sync(t)
	m := list("hello=2.10-3", "tzdata=2024a-0+deb12u1", "nothing=1")
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, NoSources: true}, nil)
	var refused *freeze.ReportError
	if !errors.As(err, &refused) || !errors.Is(err, freeze.ErrMissing) {
		t.Fatalf("got %v, want missing entries", err)
	}
	if want := "hello=2.10-3 (" + old + " has it)\n  nothing=1"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want it to end with %s", err, want)
	}
	if want := "freeze from the snapshots that have what is missing, too: --mirror debian --mirror fedora --mirror " + old; refused.Hint != want {
		t.Errorf("hint %q, want %q", refused.Hint, want)
	}
	if refused.Report.Entries[0].Snapshot != old {
		t.Errorf("report: %+v", refused.Report.Entries[0])
	}
	m = list("hello=2.10-3", "tzdata=2024a-0+deb12u1")
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, NoSources: true, Mirrors: []string{"debian", old}}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"debian hello 2.10-3 amd64", "debian tzdata 2024a-0+deb12u1 all"}, b.names(t, "x")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	b.verified(t, "x")

	// Both versions, and the whole of both.
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "two", Manifests: list("hello=2.10-3", "hello=2.12-1"), NoSources: true, Mirrors: []string{old, "debian"}}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"debian hello 2.10-3 amd64", "debian hello 2.12-1 amd64"}, b.names(t, "two")); d != "" {
		t.Errorf("two (-want +got):\n%s", d)
	}
	b.verified(t, "two")
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true, Mirrors: []string{"debian", old}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := b.names(t, "all"); len(got) != 5 || !slices.Contains(got, "debian hello 2.10-3 amd64") || !slices.Contains(got, "debian hello 2.12-1 amd64") {
		t.Errorf("all: %v", got)
	}
	b.verified(t, "all")
	// Without a version the newest of them is meant.
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "newest", Manifests: list("hello"), NoSources: true, Mirrors: []string{old, "debian"}}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"debian hello 2.12-1 amd64"}, b.names(t, "newest")); d != "" {
		t.Errorf("newest (-want +got):\n%s", d)
	}
	_, err = b.Freeze(t.Context(), &api.FreezeRequest{Name: "same", Manifests: m, Mirrors: []string{"debian", "debian@latest"}}, nil)
	if !errors.Is(err, freeze.ErrUsage) || !strings.Contains(err.Error(), "is named twice") {
		t.Errorf("one snapshot twice: %v", err)
	}
}

// The candidates of an ambiguous source package are told apart by their files,
// also where only one file differs.
func TestAmbiguousSources(t *testing.T) {
	b := newBoth(t, "stable", "other")
	b.debian.Suite("stable").AddSource(debtest.Source{Name: "hello", Version: "2.10-3", Files: map[string]string{"a": "1"}})
	b.debian.Suite("other").AddSource(debtest.Source{Name: "hello", Version: "2.10-3", Files: map[string]string{"a": "2"}, Component: "contrib"})
	b.debian.Publish(b.now.Add(time.Minute))
	b.sync(t)
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: list("hello:source=2.10-3")}, nil)
	if !errors.Is(err, freeze.ErrAmbiguous) {
		t.Fatalf("got %v, want it to be ambiguous", err)
	}
	for _, want := range []string{"debian hello 2.10-3 source: pool/main/h/hello/hello_2.10-3.dsc (", "pool/contrib/h/hello/hello_2.10-3.dsc (", "pool/contrib/h/hello/hello_2.10-3.tar.gz ("} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

// Package URLs in bills of materials say which distribution a package is of, by
// its own suite.
func TestSBOMDistro(t *testing.T) {
	b := newBoth(t, "stable", "stable-updates", "sid")
	for name, fields := range map[string][3]string{"stable": {"Debian", "bookworm", "12.5"}, "stable-updates": {"Debian", "bookworm-updates", "12-updates"}, "sid": {"Debian", "sid", ""}} {
		s := b.debian.Suite(name)
		s.Origin, s.Codename, s.Version = fields[0], fields[1], fields[2]
	}
	b.debian.Suite("stable-updates").Add(debtest.Package{Name: "updated", Version: "2"})
	b.debian.Suite("sid").Add(debtest.Package{Name: "fresh", Version: "3"})
	b.debian.Publish(b.now.Add(time.Minute))
	b.sync(t)
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", NoSources: true, Manifests: list("login", "updated", "fresh", "bind-libs")}, nil)
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

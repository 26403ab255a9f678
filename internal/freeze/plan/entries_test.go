package plan_test

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A digest that no stored package has is compared with the package that has the entry's
// version: at once if the package is stored, otherwise after it was downloaded.
func TestDigestsOfEntries(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	deb, err := http.Get(w.Server.URL + "/" + w.Archive.Default().PathOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer deb.Body.Close()
	body, err := io.ReadAll(deb.Body)
	if err != nil {
		t.Fatal(err)
	}
	s512, s1, m5 := sha512.Sum512(body), sha1.Sum(body), md5.Sum(body)
	right := map[string]string{"SHA512": hex.EncodeToString(s512[:]), "SHA1": hex.EncodeToString(s1[:]), "MD5Sum": hex.EncodeToString(m5[:])}
	uri := func(algo, sum string, size int) []api.ManifestFile {
		return []api.ManifestFile{{Name: "uris", Data: fmt.Appendf(nil, "'http://mirror.example.org/pool/main/a/a/a_1_amd64.deb' a_1_amd64.deb %d %s:%s\n", size, algo, sum)}}
	}
	said := map[string]string{"SHA512": "SHA-512", "SHA1": "SHA-1", "MD5Sum": "MD5"}
	for i, round := range []string{"not here", "here"} {
		for algo, sum := range right {
			wrong := strings.Repeat("0", len(sum))
			_, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "wrong", Manifests: uri(algo, wrong, len(body)), Format: "print-uris"}, nil)
			want := said[algo] + " " + sum + ", expected " + wrong
			if !errors.Is(err, freeze.ErrMissing) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: another %s: %v, expected %s", round, algo, err, want)
			}
			res := w.Freeze(t, api.FreezeRequest{Name: algo, Manifests: uri(algo, sum, len(body)), Format: "print-uris", NoSources: true})
			if res.New != (i == 0) || res.Frozen.Packages != 1 || res.Report.Resolved != 1 {
				t.Errorf("%s: the right %s: %+v, %+v", round, algo, res.Frozen, res.Report)
			}
		}
	}
	miss := w.Freeze(t, api.FreezeRequest{Name: "without", Manifests: append(uri("SHA512", strings.Repeat("0", 128), len(body)), freezertest.List("c=1")...), AllowMissing: true})
	if miss.Report.Missing != 1 || !strings.Contains(miss.Report.Entries[0].Reason, "has SHA-512") {
		t.Errorf("allowed to be missing: %+v", miss.Report)
	}
	_, err = w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "size", Manifests: uri("SHA512", right["SHA512"], len(body)+1), Format: "print-uris"}, nil)
	if want := fmt.Sprintf("missing: 1 entry is not in the chosen snapshots:\n  a:amd64=1 (%s has %d bytes, expected %d)", path.Base(w.Archive.Default().PathOf("a")), len(body), len(body)+1); err == nil || err.Error() != want {
		t.Errorf("another size: %v\nexpected %s", err, want)
	}
}

// Each format of build manifests is recognised and frozen to exactly the packages that
// its tool listed. Long because of its table of cases.
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
	b := freezertest.NewBoth(t, "stable")
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
		{buildlist.ReproEnv, "", "[container]\nimage = \"debian\"\n\n[[package]]\nname = \"login\"\nversion = \"1:4.13+dfsg1-1+b1\"\nsystem = \"debian\"\nurl = \"https://mirror.example.org/login_4.13+dfsg1-1+b1_amd64.deb\"\nsha256 = \"" + sums["debian login"] + "\"\n", []string{login}},
		{buildlist.RulesDistroless, "", `{"packages": [{"arch": "amd64", "dependencies": [], "key": "hello_2.10-3_amd64", "name": "hello", "sha256": "` + sums["debian hello"] + `", "url": "https://mirror.example.org/hello_2.10-3_amd64.deb", "version": "2.10-3"}], "version": 1}`, []string{hello}},
		{buildlist.Mkosi, "", `{"manifest_version": 1, "config": {"name": "image", "distribution": "debian"}, "packages": [{"type": "deb", "name": "login", "version": "1:4.13+dfsg1-1+b1", "architecture": "amd64"}]}`, []string{login}},
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
			if d := cmp.Diff(tt.want, b.Names(t, name)); d != "" {
				t.Errorf("(-want +got):\n%s%+v", d, res.Report)
			}
			b.Verified(t, name)
		})
	}
	for _, f := range buildlist.Formats() {
		if !covered[f] {
			t.Errorf("format %s is frozen by no row", f)
		}
	}
}

// A list that fits two formats is refused with the names of both. Naming the format
// resolves this.
func TestFreezeAsksForTheFormat(t *testing.T) {
	b := freezertest.NewBoth(t, "stable")
	m := []api.ManifestFile{{Name: "build.txt", Data: []byte("bash 5.2.26-3.fc40\n")}}
	_, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, NoSources: true}, nil)
	if want := "build.txt fits the formats mmdebstrap and rpm-qa: choose one with --format"; !errors.Is(err, freeze.ErrUsage) || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want %s", err, want)
	}
	if _, err := b.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: m, Format: "rpm-qa", NoSources: true}, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"fedora bash 5.2.26-3.fc40 x86_64"}, b.Names(t, "x")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Lines of a build manifest that are not about packages of the mirrors are reported.
func TestFreezeReportsNotes(t *testing.T) {
	b := freezertest.NewBoth(t, "stable")
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

// For an entry without a version, the newest version in the suites of a mirror is chosen,
// as apt chooses it: suites with NotAutomatic have the lowest priority.
func TestFreezeNewestOfSuites(t *testing.T) {
	b := freezertest.NewBoth(t, "stable", "stable-updates", "stable-backports")
	b.Debian.Suite("stable-updates").Add(debtest.Package{Name: "hello", Version: "2.10-4"})
	backports := b.Debian.Suite("stable-backports")
	backports.Fields = map[string]string{"NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"}
	backports.Add(debtest.Package{Name: "hello", Version: "2.12-1~bpo12+1"}, debtest.Package{Name: "fresh", Version: "1~bpo12+1"})
	b.Debian.Publish(b.Now)
	b.Sync(t)
	want := []string{"debian bar 1 amd64", "debian fresh 1~bpo12+1 amd64", "debian hello 2.10-4 amd64"}
	for name, req := range map[string]api.FreezeRequest{
		"list":       {Manifests: freezertest.List("hello", "fresh", "bar=1")},
		"selections": {Manifests: []api.ManifestFile{{Name: "s", Data: []byte("hello\tinstall\nfresh\thold\nbar\tinstall\n")}}},
		"package":    {Packages: []string{"hello", "fresh", "bar"}},
	} {
		req.Name, req.NoSources = name, true
		res, err := b.Freeze(t.Context(), &req, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, b.Names(t, name)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		i := slices.IndexFunc(res.Report.Entries, func(e api.ReportEntry) bool { return strings.HasPrefix(e.Entry, "hello") })
		if reason := "2.10-4 is the newest by the priority of its suite of 2.12-1~bpo12+1, 2.10-4, 2.10-3"; res.Report.Entries[i].Reason != reason {
			t.Errorf("%s: reason %q, want %q", name, res.Report.Entries[i].Reason, reason)
		}
		if n := map[string]int{"list": 2, "selections": 3, "package": 3}[name]; res.Report.Newest != n {
			t.Errorf("%s: %d entries without a version, want %d", name, res.Report.Newest, n)
		}
		b.Verified(t, name)
	}
	m, err := b.Parts.Mirror("debian")
	if err != nil {
		t.Fatal(err)
	}
	var sources strings.Builder
	for _, suite := range m.Suites {
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s main\n", b.Debian.KeyringFile(), m.URL, suite)
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

package buildlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden results")

// samples are files in testdata/samples, most of them written by the tools
// themselves (testdata/README.md).
var samples = map[string]Format{
	"list.txt":                   List,
	"tails.build-manifest":       Tails,
	"tiny.buildinfo":             Buildinfo,
	"tiny-signed.buildinfo":      Buildinfo,
	"dpkg-status.txt":            DpkgStatus,
	"dpkg-query.txt":             DpkgQuery,
	"dpkg-l.txt":                 DpkgQuery,
	"apt-list.txt":               AptList,
	"mmdebstrap.txt":             Mmdebstrap,
	"apt-simulate.txt":           Mmdebstrap,
	"debootstrap-print-debs.txt": List,
	"debootstrap-deburis.txt":    Debootstrap,
	"print-uris.txt":             PrintURIs,
	"print-uris-quiet.txt":       PrintURIs,
	"SHA256SUMS":                 SHA256Sums,
	"SHA256SUMS-binary":          SHA256Sums,
	"SHA256SUMS-tag":             SHA256Sums,
	"syft.spdx.json":             SPDX,
	"syft-14.cdx.json":           CycloneDX,
	"syft-15.cdx.json":           CycloneDX,
	"syft-16.cdx.json":           CycloneDX,
	"rpm-qa.txt":                 RPMQA,
	"rpm-qa-nevra.txt":           RPMQA,
	"rpm-qa-epoch.txt":           RPMQA,
	"rpm-qa-columns.txt":         RPMQA,
	"rpms.lock.yaml":             RPMsLock,
	"mixed.txt":                  List,
	"columns.txt":                Mmdebstrap,
	"ubuntu.manifest":            DpkgQuery,
	"dpkg-selections.txt":        DpkgSelections,
	"dpkg-selections-plain.txt":  DpkgSelections,
	"apt-history.log":            AptHistory,
	"trivy.cdx.json":             CycloneDX,
	"trivy.spdx.json":            SPDX,
	"trivy.spdx":                 SPDX,
	"syft.json":                  Syft,
	"rpm-qa-last.txt":            RPMQA,
	"rpm-qa-tabs.txt":            RPMQA,
	"rpm-qa-commas.txt":          RPMQA,
	"rpm-qa-bars.txt":            RPMQA,
	"dnf-userinstalled.txt":      RPMQA,
	"rpm-qi.txt":                 RPMQI,
	"dnf-info.txt":               RPMQI,
	"dnf-history.txt":            DNFHistory,
	"dnf-history-range.txt":      DNFHistory,
	"dnf5-history.txt":           DNFHistory,

	"repro-env.lock":               ReproEnv,
	"repro-env-old.lock":           ReproEnv,
	"rules-distroless-1.lock.json": RulesDistroless,
	"rules-distroless-2.lock.json": RulesDistroless,
	"mkosi-deb.manifest":           Mkosi,
	"mkosi-rpm.manifest":           Mkosi,
	"SHA256SUMS-repro-get":         SHA256Sums,
	"rpms-ubi.lock.yaml":           RPMsLock,
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Each sample is recognised and parsed to its golden result, regardless of how its
// bytes arrive and whether the format is given.
func TestSamples(t *testing.T) {
	for name, format := range samples {
		t.Run(name, func(t *testing.T) {
			data := sample(t, name)
			m, err := Parse(name, bytes.NewReader(data), "")
			if err != nil {
				t.Fatal(err)
			}
			if m.Format != format {
				t.Fatalf("recognised as %s, want %s", m.Format, format)
			}
			got, err := json.MarshalIndent(m, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", "golden", name+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s (-golden +got):\n%s", golden, d)
			}

			crlf := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
			for what, in := range map[string]io.Reader{
				"named":        bytes.NewReader(data),
				"byte by byte": iotest.OneByteReader(bytes.NewReader(data)),
				"CRLF":         bytes.NewReader(crlf),
				"BOM":          io.MultiReader(bytes.NewReader(utf8BOM), bytes.NewReader(data)),
			} {
				again, err := Parse(name, in, format)
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				if d := cmp.Diff(m.Entries, again.Entries); d != "" {
					t.Errorf("%s: entries differ (-first +again):\n%s", what, d)
				}
			}
			// No other format accepts it.
			for _, other := range Formats() {
				if other == format {
					continue
				}
				if format == List && other == Debootstrap {
					continue // only names
				}
				if m, err := Parse(name, bytes.NewReader(data), other); err == nil && other != Mmdebstrap && other != List {
					t.Errorf("--format %s accepts it, %d entries", other, len(m.Entries))
				}
			}
		})
	}
}

// Samples of one system list the same packages.
func TestSamplesAgree(t *testing.T) {
	versions := func(name string) map[string]string {
		m, err := Parse(name, bytes.NewReader(sample(t, name)), "")
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]string)
		for _, e := range m.Entries {
			if e.Name != "cron" { // removed; dpkg-query -W lists its configuration
				out[e.Name] = e.Version
			}
		}
		return out
	}
	want := versions("dpkg-query.txt")
	for _, name := range []string{"dpkg-l.txt", "apt-list.txt", "list.txt"} {
		if d := cmp.Diff(want, versions(name)); d != "" {
			t.Errorf("dpkg-query.txt and %s (-first +second):\n%s", name, d)
		}
	}
	for name, version := range versions("dpkg-status.txt") {
		if want[name] != version {
			t.Errorf("dpkg-status.txt: %s %s, dpkg-query.txt %s", name, version, want[name])
		}
	}
	rpms := versions("rpm-qa-nevra.txt")
	for _, name := range []string{"rpm-qa-epoch.txt", "syft.spdx.json", "syft-15.cdx.json", "rpms.lock.yaml"} {
		got := versions(name)
		for rpm, version := range rpms {
			if got[rpm] != version {
				t.Errorf("%s: %s %q, rpm -qa says %q", name, rpm, got[rpm], version)
			}
		}
	}
}

func entries(t *testing.T, format Format, text string) []Entry {
	t.Helper()
	m, err := Parse("m", strings.NewReader(text), format)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Entries {
		m.Entries[i].Raw = ""
	}
	return m.Entries
}

// lineTest is an entry in a format.
type lineTest struct {
	format Format
	line   string
	want   Entry // a Size of 0 stands for an unknown one, a Line of 0 for the first
}

func checkLines(t *testing.T, tests []lineTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(string(tt.format)+" "+tt.line, func(t *testing.T) {
			if tt.want.Size == 0 {
				tt.want.Size = -1
			}
			tt.want.Line = max(tt.want.Line, 1)
			if d := cmp.Diff([]Entry{tt.want}, entries(t, tt.format, tt.line)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestDebLines(t *testing.T) {
	checkLines(t, []lineTest{
		{List, "NetworkManager=1:1.46.0-1.fc40", Entry{Name: "NetworkManager", Version: "1:1.46.0-1.fc40"}},
		{List, "  libc6:i386=2.36-9 ", Entry{Name: "libc6", Arch: "i386", Version: "2.36-9"}},
		{List, "hello # the greeter", Entry{Name: "hello"}},
		{List, "libc6:i386\t# for wine", Entry{Name: "libc6", Arch: "i386"}},
		{List, "ImageMagick", Entry{Name: "ImageMagick"}},
		{List, "bash:source=5.2.15-2", Entry{Name: "bash", Arch: "source", Source: true, Version: "5.2.15-2"}},
		{DpkgQuery, "libc6:amd64\t2.36-9", Entry{Ecosystem: Deb, Name: "libc6", Arch: "amd64", Version: "2.36-9"}},
		{DpkgQuery, "Vendor_Tool\t1.0", Entry{Ecosystem: Deb, Name: "Vendor_Tool", Version: "1.0"}},
		{DpkgQuery, "adduser\t3.134\tall", Entry{Ecosystem: Deb, Name: "adduser", Arch: "all", Version: "3.134"}},
		{DpkgQuery, "hello,2.10-3,amd64", Entry{Ecosystem: Deb, Name: "hello", Arch: "amd64", Version: "2.10-3"}},
		{DpkgQuery, "hello | 2.10-3 | arm64", Entry{Ecosystem: Deb, Name: "hello", Arch: "arm64", Version: "2.10-3"}},
		{DpkgQuery, "hello;2.10-3", Entry{Ecosystem: Deb, Name: "hello", Version: "2.10-3"}},
		{DpkgQuery, "rn\t1.0-1", Entry{Ecosystem: Deb, Name: "rn", Version: "1.0-1"}},
		{DpkgSelections, "libc6:amd64\t\t\thold", Entry{Ecosystem: Deb, Name: "libc6", Arch: "amd64"}},
		{DpkgSelections, "hello\tinstall", Entry{Ecosystem: Deb, Name: "hello"}},
		{AptHistory, "Start-Date: 2024-01-01  10:00:00\nInstall: vim:amd64 (2:9.0-1, automatic)\nEnd-Date: 2024-01-01  10:00:01\n", Entry{Ecosystem: Deb, Name: "vim", Arch: "amd64", Version: "2:9.0-1", Line: 2}},
		{DpkgQuery, "hi  libc6:amd64  2.36-9  amd64  GNU C Library", Entry{Ecosystem: Deb, Name: "libc6", Arch: "amd64", Version: "2.36-9"}},
		{DpkgQuery, "iU  hello  2.10-3  amd64", Entry{Ecosystem: Deb, Name: "hello", Arch: "amd64", Version: "2.10-3"}},
		{AptList, "bash/now 5.2.15-2 amd64 [installed,local]", Entry{Ecosystem: Deb, Name: "bash", Arch: "amd64", Version: "5.2.15-2"}},
		{AptList, "bash/stable,stable-security 5.2.15-2+b8 amd64 [upgradable from: 5.2.15-2+b7]", Entry{Ecosystem: Deb, Name: "bash", Arch: "amd64", Version: "5.2.15-2+b7"}},
		{AptList, "tar/stable-security,now 1.34 amd64 [installed,upgradable to: 1.35]", Entry{Ecosystem: Deb, Name: "tar", Arch: "amd64", Version: "1.34", Origin: "stable-security"}},
		{Mmdebstrap, "hello 2.10-3 amd64", Entry{Ecosystem: Deb, Name: "hello", Arch: "amd64", Version: "2.10-3"}},
		{Mmdebstrap, "hello:amd64  2.10-3  amd64 # twice", Entry{Ecosystem: Deb, Name: "hello", Arch: "amd64", Version: "2.10-3"}},
		{Mmdebstrap, "libc6:amd64=2.36-9", Entry{Ecosystem: Deb, Name: "libc6", Arch: "amd64", Version: "2.36-9"}},
		{Mmdebstrap, "Inst tar [1.33] (1.34 Debian:12/stable, Debian-Security:12/stable-security [amd64]) [less:amd64 ]",
			Entry{Ecosystem: Deb, Name: "tar", Arch: "amd64", Version: "1.34", Origin: "Debian:12/stable, Debian-Security:12/stable-security"}},
		{Debootstrap, "libstdc++6 12.2-1 http://user:secret@mirror.example.org/pool/libstdc%2b%2b6_12.2-1_amd64.deb",
			Entry{Ecosystem: Deb, Name: "libstdc++6", Version: "12.2-1", Arch: "amd64", URL: "http://mirror.example.org/pool/libstdc%2b%2b6_12.2-1_amd64.deb"}},
	})
}

func TestRPMLines(t *testing.T) {
	checkLines(t, []lineTest{
		{RPMQA, "bash-5.2.26-3.fc40.x86_64", Entry{Ecosystem: RPM, Name: "bash", Version: "5.2.26-3.fc40", EpochUnknown: true, Arch: "x86_64"}},
		{RPMQA, "bind-libs-32:9.18-1.fc40.x86_64", Entry{Ecosystem: RPM, Name: "bind-libs", Version: "32:9.18-1.fc40", Arch: "x86_64"}},
		{RPMQA, "32:bind-libs-9.18-1.fc40.x86_64", Entry{Ecosystem: RPM, Name: "bind-libs", Version: "32:9.18-1.fc40", Arch: "x86_64"}},
		{RPMQA, "bash-(none):5.2-3.noarch", Entry{Ecosystem: RPM, Name: "bash", Version: "5.2-3", Arch: "noarch"}},
		{RPMQA, "bash-0:5.2-3.noarch", Entry{Ecosystem: RPM, Name: "bash", Version: "5.2-3", Arch: "noarch"}},
		{RPMQA, "kernel-2.6.18-8.el5", Entry{Ecosystem: RPM, Name: "kernel", Version: "2.6.18-8.el5", EpochUnknown: true}},
		{RPMQA, "python3.12.aarch64 3.12.3-2.fc40", Entry{Ecosystem: RPM, Name: "python3.12", Version: "3.12.3-2.fc40", EpochUnknown: true, Arch: "aarch64"}},
		{RPMQA, "bash-5.2.26-3.fc40.x86_64      Tue 14 Nov 2023 10:13:20 PM UTC", Entry{Ecosystem: RPM, Name: "bash", Version: "5.2.26-3.fc40", EpochUnknown: true, Arch: "x86_64"}},
		{RPMQA, "bash\t(none)\t5.2.26\t3.fc40\tx86_64", Entry{Ecosystem: RPM, Name: "bash", Version: "5.2.26-3.fc40", Arch: "x86_64"}},
		{RPMQA, "bind|32|9.18|1.fc40|x86_64|", Entry{Ecosystem: RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "x86_64"}},
		{RPMQA, "bind||9.18|1.fc40|x86_64", Entry{Ecosystem: RPM, Name: "bind", Version: "9.18-1.fc40", Arch: "x86_64"}},
		{RPMQA, "bind,9.18,1.fc40,x86_64", Entry{Ecosystem: RPM, Name: "bind", Version: "9.18-1.fc40", EpochUnknown: true, Arch: "x86_64"}},
		{RPMQA, "bind 32 9.18-1.fc40 x86_64", Entry{Ecosystem: RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "x86_64"}},
		{RPMQA, "bind (none):9.18-1.fc40 noarch", Entry{Ecosystem: RPM, Name: "bind", Version: "9.18-1.fc40", Arch: "noarch"}},
		{RPMQA, "bind 9.18 1.fc40", Entry{Ecosystem: RPM, Name: "bind", Version: "9.18-1.fc40", EpochUnknown: true}},
		{RPMQI, "Name        : bind\nEpoch       : 32\nVersion     : 9.18\nRelease     : 1.fc40\nArchitecture: x86_64\nSource RPM  : bind-9.18-1.fc40.src.rpm\n",
			Entry{Ecosystem: RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "x86_64", SourceName: "bind", SourceVersion: "9.18-1.fc40"}},
		{DNFHistory, "Transaction ID : 1\nPackages Altered:\n    Dep-Install bind-32:9.18-1.fc40.x86_64 @updates\n", Entry{Ecosystem: RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "x86_64", Origin: "updates", Line: 3}},
		{RPMQA, "bind.x86_64     32:9.18-1.fc40     @updates", Entry{Ecosystem: RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "x86_64", Origin: "updates"}},
	})
}

func TestFilesAndSBOMs(t *testing.T) {
	const (
		md5    = "d41d8cd98f00b204e9800998ecf8427e"
		sha1   = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
		sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		sha512 = sha256 + sha256
	)
	checkLines(t, []lineTest{
		{PrintURIs, "'http://mirror.example.org/v/vim_9.0-1_all.deb' vim_2%3a9.0-1_all.deb 12 SHA256:" + sha256,
			Entry{Ecosystem: Deb, Name: "vim", Version: "2:9.0-1", Arch: "all", Size: 12, SHA256: sha256, Path: "vim_2%3a9.0-1_all.deb", URL: "http://mirror.example.org/v/vim_9.0-1_all.deb"}},
		{PrintURIs, "'http://mirror.example.org/v/vim_9.0-1.dsc' vim_9.0-1.dsc 12 SHA512:" + sha512,
			Entry{Ecosystem: Deb, Name: "vim", Version: "9.0-1", EpochUnknown: true, Arch: "source", Source: true, Size: 12, SHA512: sha512, Path: "vim_9.0-1.dsc", URL: "http://mirror.example.org/v/vim_9.0-1.dsc"}},
		{PrintURIs, "'http://mirror.example.org/v/vim_9.0.orig.tar.xz' vim_9.0.orig.tar.xz 12 MD5Sum:" + md5,
			Entry{Ecosystem: Deb, Name: "vim", Arch: "source", Source: true, Size: 12, MD5: md5, Path: "vim_9.0.orig.tar.xz", URL: "http://mirror.example.org/v/vim_9.0.orig.tar.xz"}},
		{SHA256Sums, sha1 + "  pool/a/ab_1.0-1_all.udeb", Entry{Ecosystem: Deb, Name: "ab", Version: "1.0-1", EpochUnknown: true, Arch: "all", SHA1: sha1, Path: "pool/a/ab_1.0-1_all.udeb"}},
		{SHA256Sums, strings.ToUpper(sha256) + " *a-2:1-1.noarch.rpm", Entry{Ecosystem: RPM, Name: "a", Version: "2:1-1", Arch: "noarch", SHA256: sha256, Path: "a-2:1-1.noarch.rpm"}},
		{SHA256Sums, `\` + sha256 + `  x\\y/a-1-1.src.rpm`, Entry{Ecosystem: RPM, Name: "a", Version: "1-1", EpochUnknown: true, Arch: "src", Source: true, SHA256: sha256, Path: `x\y/a-1-1.src.rpm`}},
		{SHA256Sums, "SHA512 (ab_1.0.diff.gz) = " + sha512, Entry{Ecosystem: Deb, Name: "ab", Arch: "source", Source: true, SHA512: sha512, Path: "ab_1.0.diff.gz"}},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageName: login\nExternalRef: PACKAGE-MANAGER purl pkg:deb/debian/login@4.13%2Bdfsg1-1%2Bb1?arch=amd64&epoch=1\n",
			Entry{Ecosystem: Deb, Name: "login", Version: "1:4.13+dfsg1-1+b1", Arch: "amd64", Origin: "debian", Line: 2}},
		{Syft, `{"artifacts": [{"name": "login", "type": "deb", "purl": "pkg:deb/debian/login@1%3A4.13?arch=amd64"}]}`,
			Entry{Ecosystem: Deb, Name: "login", Version: "1:4.13", Arch: "amd64", Origin: "debian"}},
	})
}

// Content that is not a package is skipped with a note, and only one of equal entries
// is kept.
func TestNotesAndDuplicates(t *testing.T) {
	for _, tt := range []struct {
		format Format
		text   string
		want   []string // entries
		notes  []Note
	}{
		{List, "# a comment\n\na=1\na=1\na=2\na:all=1\n", []string{"a=1", "a=2", "a:all=1"}, nil},
		{DpkgQuery, "rc  gone  1-1  all  was here\nun  never  <none>  <none>  (no description available)\nii  here  1-1  all  is\n", []string{"here:all=1-1"},
			[]Note{{1, "gone is config-files: skipped"}, {2, "never is not-installed: skipped"}}},
		{DpkgStatus, "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\nPackage: half\nStatus: install ok half-installed\nVersion: 1\nArchitecture: all\n\n" +
			"Package: here\nStatus: hold ok unpacked\nArchitecture: all\nSource: there (1:0)\nVersion: 1\nDescription: x\n .\n y\n\nPackage: distroless\nVersion: 2\nArchitecture: arm64\n",
			[]string{"here:all=1", "distroless:arm64=2"}, []Note{{1, "gone is config-files: skipped"}, {6, "half is half-installed: skipped"}}},
		{DpkgSelections, "ab\tinstall\nbc\tdeinstall\ncd\tpurge\nde\thold\n", []string{"ab", "de"},
			[]Note{{2, "bc is selected for deinstall: skipped"}, {3, "cd is selected for purge: skipped"}}},
		{DpkgQuery, "Package,Version,Architecture\nab,1,all\n", []string{"ab:all=1"}, nil},
		{DpkgQuery, "ab 1 all install ok installed\nbc:amd64 2 hold ok installed\ncd 3 all deinstall ok config-files\n", []string{"ab:all=1", "bc:amd64=2"},
			[]Note{{3, "cd is config-files: skipped"}}},
		{DpkgQuery, "ab\t1\tinstall ok installed\nbc\t2\tall\tinstalled\ncd\t3\tdeinstall ok config-files\nde\t4\tall\thalf-installed\n", []string{"ab=1", "bc:all=2"},
			[]Note{{3, "cd is config-files: skipped"}, {4, "de is half-installed: skipped"}}},
		{DpkgQuery, "ab\t1\nsnap:core20\tlatest/stable\t2318\n", []string{"ab=1"}, []Note{{2, "snap:core20 is a snap: skipped"}}},
		{Mmdebstrap, "ab 1\nsnap:core20 latest/stable 2318\n", []string{"ab=1"}, []Note{{2, "snap:core20 is a snap: skipped"}}},
		{AptHistory, "Start-Date: 2024-01-01  10:00:00\nInstall: ab:amd64 (1), bc:i386 (1, automatic), cd:amd64 (1)\nEnd-Date: x\n\n" +
			"Start-Date: 2024-01-02  10:00:00\nUpgrade: ab:amd64 (1, 2)\nPurge: bc:i386 (1)\nRemove: cd:amd64 (1)\nError: Sub-process /usr/bin/dpkg returned an error code (1)\nEnd-Date: x\n\n" +
			"Start-Date: 2024-01-03  10:00:00\nInstall: cd:amd64 (2)\n", []string{"ab:amd64=2", "cd:amd64=2"},
			[]Note{{9, "the transaction of 2024-01-02  10:00:00 ended with an error (Sub-process /usr/bin/dpkg returned an error code (1)): its packages are listed as it planned them"},
				{12, "the transaction of 2024-01-03  10:00:00 has no end: its packages are listed as it planned them"}, {7, "bc:i386=1 was removed or replaced: skipped"}}},
		{DNFHistory, "Transaction ID : 2\nReturn-Code    : Failure: 1\nPackages Altered:\n    Removed ab-1-1.noarch @@System\n    Install cd-1-1.noarch @fedora\nScriptlet output:\n   1 hello\n" +
			"-----\nTransaction ID : 1\nReturn-Code    : Success\nPackages Altered:\n    Install ab-1-1.noarch @fedora\n", []string{"cd:noarch=1-1"},
			[]Note{{1, `transaction 2 ended with "Failure: 1": its packages are listed as it planned them`}, {4, "ab:noarch=1-1 was removed or replaced: skipped"}}},
		{RPMQI, "Installed Packages\nName         : ab\nVersion      : 1\nRelease      : 1\nArchitecture : noarch\nDescription  : x\n             : y\n\nAvailable Packages\nName         : cd\nVersion      : 1\nRelease      : 1\nArchitecture : noarch\n",
			[]string{"ab:noarch=1-1"}, []Note{{10, "cd is available, not installed: skipped"}}},
		{RPMQI, "Name        : gpg-pubkey\nVersion     : a15b79cc\nRelease     : 63d04c2c\nArchitecture: (none)\nName        : ab\nVersion     : 1\nRelease     : 1\nArchitecture: x86_64\nSource RPM  : (none)\n",
			[]string{"ab:src=1-1"}, []Note{{1, "gpg-pubkey-a15b79cc-63d04c2c is a public key: skipped"}}},
		{RPMQA, "Packages installed by user\na-1-1.noarch\n", []string{"a:noarch=1-1"}, nil},
		{RPMQA, "Installed Packages\na.noarch 1-1 @x\nAvailable Packages\nb.noarch 1-1 x\n", []string{"a:noarch=1-1"}, []Note{{4, "b.noarch is available, not installed: skipped"}}},
		{RPMQA, "NAME|EPOCH|VERSION|RELEASE|ARCH\ngpg-pubkey|(none)|a15b79cc|63d04c2c|(none)\na|(none)|1|1|noarch\n", []string{"a:noarch=1-1"},
			[]Note{{2, "gpg-pubkey|(none)|a15b79cc|63d04c2c|(none) is a public key: skipped"}}},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageName: a\nPackageComment: <text>b\nPackageName: c\n</text>\nPackageName: d\nExternalRef: PACKAGE-MANAGER purl pkg:deb/d@1\nFileName: e\nPackageChecksum: none\n",
			[]string{"d=1"}, []Note{{2, "a has no package URL: skipped"}}},
		{AptList, "Listing... Done\nab/stable 1 all\nbc/now 2 all [residual-config]\ncd/stable,now 3 all [installed]\n", []string{"cd:all=3"},
			[]Note{{2, "ab=1 is not installed: skipped"}, {3, "bc=2 is residual-config: skipped"}}},
		{PrintURIs, "Reading package lists...\n'http://mirror.example.org/dists/sid/InRelease' mirror.example.org_dists_sid_InRelease 0 \n'http://mirror.example.org/ab_1_all.deb' ab_1_all.deb 0 \n",
			[]string{"ab:all=1"}, []Note{{2, "mirror.example.org_dists_sid_InRelease is not a package file: skipped"}}},
		{SHA256Sums, strings.Repeat("0", 64) + "  debian.iso\n" + strings.Repeat("0", 64) + "  ab_1_all.deb\n", []string{"ab:all=1"}, []Note{{1, "debian.iso is not a package file: skipped"}}},
		{RPMQA, "Installed Packages\ngpg-pubkey-a15b79cc-63d04c2c\ngpg-pubkey-a15b79cc-63d04c2c.(none)\na-1-1.noarch\n", []string{"a:noarch=1-1"},
			[]Note{{2, "gpg-pubkey-a15b79cc-63d04c2c is a public key: skipped"}, {3, "gpg-pubkey-a15b79cc-63d04c2c.(none) is a public key: skipped"}}},
		{Mmdebstrap, "NOTE: This is only a simulation!\nRemv old [1]\nInst ab (1 Debian:12/stable [all])\nConf ab (1 Debian:12/stable [all])\n", []string{"ab:all=1"}, []Note{{2, "old [1] is removed: skipped"}}},
		{Debootstrap, "I: Retrieving InRelease\nbash  base-files\nbash\n", []string{"bash", "base-files"}, nil},
		{Tails, "packages:\n  udeb: []\n  binary:\n  - {package: ab, version: 1.10, arch: all}\n  source:\n  - {name: x, package: cd, version: '1'}\n", []string{"ab:all=1.10", "cd:source=1"}, []Note{{2, "packages of kind udeb: skipped"}}},
	} {
		t.Run(string(tt.format), func(t *testing.T) {
			m, err := Parse("m", strings.NewReader(tt.text), tt.format)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range m.Entries {
				got = append(got, e.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("entries (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.notes, m.Notes); d != "" {
				t.Errorf("notes (-want +got):\n%s", d)
			}
		})
	}
}

func TestRecognise(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", `recognise m: expected a build manifest, found nothing: build manifest format not recognised`},
		{"\n# only this\n", `recognise m: expected a build manifest, found nothing: build manifest format not recognised`},
		{"Dear reader,\n", `recognise m: expected a build manifest, found "Dear reader,": build manifest format not recognised`},
		{"\x00\x01\x02", `recognise m: expected a build manifest, found "\x00\x01\x02": build manifest format not recognised`},
		{"ab 2048-qt\ncd 0ad\n", `m fits the formats mmdebstrap and debootstrap: choose one with --format`},
		{"Package: ab\nVersion: 1\n\nBuild-Architecture: amd64\n", `m fits the formats buildinfo and dpkg-status: choose one with --format`},
		{`{"components": [], "spdxVersion": "SPDX-2.3"}`, `m fits the formats cyclonedx and spdx: choose one with --format`},
		{`{"name": "x", "dependencies": {"components": 1}}`, `recognise m: expected a build manifest, found "{\"name\": \"x\", \"dependencies\": {\"components\": 1}}": build manifest format not recognised`},
		{"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Debian\n", `recognise m: expected a build manifest, found "-----BEGIN PGP SIGNED MESSAGE-----": build manifest format not recognised`},

		{"ab=1\ncd=2\nef\n", "list"},
		{"hello # the greeter\ntzdata=2024a-0+deb12u1\n", "list"},
		{"NetworkManager\nbash\n", "list"},
		{"linux-image-6.1.0-18-amd64\n", "list"},
		{"linux-headers-6.1.0-18\n", `m fits the formats list and rpm-qa: choose one with --format`},
		{"bash-5.2.26-3.fc40\n", "rpm-qa"},
		{"bar\tdeinstall\nfoo\tinstall\n", "dpkg-selections"},
		{"bar:amd64\t\t\tinstall\n", "dpkg-selections"},
		{"ab 1 amd64\n", "mmdebstrap"},
		{"ab 1-1 i386\n", `m fits the formats mmdebstrap and rpm-qa: choose one with --format`},
		{"ab 1-1 i386\ncd 1-1 noarch\n", "rpm-qa"},
		{"ab 1-1 i386\ncd 1-1 all\n", "mmdebstrap"},
		{"ab,1-1,s390x\n", `m fits the formats dpkg-query and rpm-qa: choose one with --format`},
		{"ab 1-1.fc40\n", `m fits the formats mmdebstrap and rpm-qa: choose one with --format`},
		{"ab 2.10-3\n", "mmdebstrap"},
		{"ab\t2.10-3\n", "dpkg-query"},
		{"ab,1,amd64\n", "dpkg-query"},
		{"ab 1 amd64 deinstall ok config-files\nbc 1 amd64 install ok installed\n", "dpkg-query"},
		{"ab\t1\tdeinstall ok config-files\nbc\t1\tinstall ok installed\n", "dpkg-query"},
		{"ab\t1\nsnap:lxd\t5.0/stable\t24322\n", "dpkg-query"},
		{"ab\t(none)\t1\t1\tnoarch\n", "rpm-qa"},
		{"ab|0|1|1|x86_64\n", "rpm-qa"},
		{"ab-1-1.noarch    Tue Nov 14 22:13:20 2023\n", "rpm-qa"},
		{"Packages installed by user\nab-1-1.noarch\n", "rpm-qa"},
		{"Name        : ab\nVersion     : 1\n", "rpm-qi"},
		{"Transaction ID : 1\n", "dnf-history"},
		{"\nStart-Date: 2024-01-01  10:00:00\n", "apt-history"},
		{"# made by hand\nSPDXVersion: SPDX-2.3\n", "spdx"},
		{`{"artifacts": [{"name": "x"}], "schema": {}}`, "syft"},
		{"[container]\nimage = \"x\"\n\n[[package]] # one\nname = \"ab\"\n", "repro-env"},
		{`{"packages": [{"arch": "amd64", "key": "x"}], "version": 1}`, "rules-distroless"},
		{`{"packages": {"/noble/ab:amd64=1": {}}, "version": 2}`, "rules-distroless"},
		{`{"dependency_sets": {}, "packages": {}}`, "rules-distroless"},
		{`{"packages": [{"name": "x"}], "spdxVersion": "SPDX-2.3"}`, "spdx"},
		{`{"packages": [{"name": "x"}], "version": 1}`, `recognise m: expected a build manifest, found "{\"packages\": [{\"name\": \"x\"}], \"version\": 1}": build manifest format not recognised`},
		{`{"manifest_version": 1, "config": {}, "packages": []}`, "mkosi"},
		{`{"artifacts": [], "components": []}`, `m fits the formats syft and cyclonedx: choose one with --format`},
		{"ab=1\ncd 2\n", `recognise m: expected a build manifest, found "ab=1": build manifest format not recognised`},
		{"ab=1\n", "list"},
		{"ab 1\n", "mmdebstrap"},
		{"ab 1", "mmdebstrap"},
		{"ab\t1\n", "dpkg-query"},
		{"ab\ncd\n", "list"},
		{"ii  ab  5.2-2+b7 amd64 shell\n", "dpkg-query"},
		{"tzdata.noarch 2024a-1.fc40\n", "rpm-qa"},
		{"tzdata-2024a-1.fc40.noarch\n", "rpm-qa"},
		{strings.Repeat("0", 64) + "  tzdata-2024a-1.noarch.rpm\n", "sha256sums"},
		{`{"lockfileVersion": 1, "arches": []}`, "rpms-lock"},
		{`{"creationInfo": {"created": "x", "specVersion": "no"}, "spdxVersion": "SPDX-2.3"}`, "spdx"},
	} {
		f, err := Recognise("m", []byte(tt.text))
		got := string(f)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("Recognise(%q):\n got %s\nwant %s", tt.text, got, tt.want)
		}
	}

	_, err := Recognise("m", []byte("ab 0ad\n"))
	var amb *AmbiguousError
	if !errors.As(err, &amb) || !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("got %v, want an AmbiguousError", err)
	}
}

// Passwords in URLs do not occur in results or errors.
func TestPasswords(t *testing.T) {
	const u = "http://user:se%ret@mirror.example.org/ab_1_all.deb"
	for format, text := range map[Format]string{
		PrintURIs:       "'" + u + "' ab_1_all.deb 5\n'" + u + "x' x 5\n",
		Debootstrap:     "ab 1 " + u + "\n",
		ReproEnv:        "[[package]]\nname = \"ab\"\nversion = \"1\"\nsystem = \"debian\"\nsha256 = \"" + strings.Repeat("0", 64) + "\"\nurl = \"" + u + "\"\n",
		RulesDistroless: `{"version": 1, "packages": [{"key": "ab_1_all", "name": "ab", "version": "1", "arch": "all", "sha256": "` + strings.Repeat("0", 64) + `", "url": "` + u + `"}]}`,
		RPMsLock:        "lockfileVersion: 1\narches:\n- packages:\n  - url: http://user:secret@mirror.example.org/a-1-1.noarch.rpm\n  module_metadata:\n  - url: " + u + "\n",
		SPDX:            `{"spdxVersion": "SPDX-2.3", "packages": [{"downloadLocation": "` + u + `", "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:deb/ab@1?repository_url=http://u:secret@mirror.example.org"}]}]}`,
		List:            u + "\n",
	} {
		m, err := Parse("m", strings.NewReader(text), format)
		doc, _ := json.Marshal(m)
		out := fmt.Sprintf("%s %v", doc, err)
		if !strings.Contains(out, "mirror.example.org") || strings.Contains(out, "ret@") || strings.Contains(out, "user") {
			t.Errorf("%s: %s", format, out)
		}
	}
}

// endless repeats a text without end.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

func TestLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("reads hundreds of MiB")
	}
	for _, tt := range []struct {
		format Format
		head   string
		text   string
		want   string
	}{
		{List, "", "# " + strings.Repeat("x", 4094) + "\n", `read build manifest m: more than 536870912 bytes: build manifest too large`},
		{SPDX, `{"packages": ["`, strings.Repeat("x", 4096), `m:1: an element of more than 33554432 bytes: build manifest too large`},
		{DpkgStatus, "Package: ab\n", " x\n", "m:5592403: expected a stanza of at most 16 MiB, found \" x\""},
	} {
		_, err := Parse("m", io.MultiReader(strings.NewReader(tt.head), &endless{text: tt.text}), tt.format)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.format, err, tt.want)
		}
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("the disk is gone")
	for _, f := range append(Formats(), "") {
		_, err := Parse("m", io.MultiReader(strings.NewReader("{ab=1\n"), iotest.ErrReader(broken)), f)
		if !errors.Is(err, broken) {
			t.Errorf("%s: got %v, want it to wrap %v", f, err, broken)
		}
	}
}

// Tokens in queries do not occur in results or errors.
func TestTokens(t *testing.T) {
	const u = "http://mirror.example.org/ab_1_all.deb?X-Amz-Signature=s3cret&arch=amd64"
	for format, text := range map[Format]string{
		PrintURIs:   "'" + u + "' ab_1_all.deb 5\n",
		Debootstrap: "ab 1 " + u + "\n",
		List:        u + "\n",
	} {
		m, err := Parse("m", strings.NewReader(text), format)
		doc, _ := json.Marshal(m)
		out := fmt.Sprintf("%s %v", doc, err)
		if !strings.Contains(out, "mirror.example.org/ab_1_all.deb") || strings.Contains(out, "s3cret") {
			t.Errorf("%s: %s", format, out)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, tt := range []struct {
		name   string
		format Format
		line   string
	}{
		{"dpkg-query", DpkgQuery, "libsample%d:amd64\t1:%d.0-1+deb12u1\n"},
		{"list", List, "libsample%d=1:%d.0-1+deb12u1\n"},
	} {
		var text strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&text, tt.line, i, i)
		}
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("m", strings.NewReader(text.String()), ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

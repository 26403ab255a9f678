package buildlist

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// errorTest is a manifest that is refused.
type errorTest struct {
	format Format
	text   string
	want   string
}

func checkErrors(t *testing.T, tests []errorTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(string(tt.format), func(t *testing.T) {
			_, err := Parse("m", strings.NewReader(tt.text), tt.format)
			if err == nil || err.Error() != tt.want {
				t.Errorf("%.100q:\n got %v\nwant %s", tt.text, err, tt.want)
			}
			if err != nil && tt.format != "zip" && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%.100q: %v is neither malformed nor too large", tt.text, err)
			}
		})
	}
}

func TestLineErrors(t *testing.T) {
	checkErrors(t, []errorTest{
		{List, "", `m: expected packages (list), found nothing`},
		{"", "ab=1\nbc=1\ncd=x\n", `m:3: expected name=version, name:arch=version, or a package name, found "cd=x"`},
		{List, "ab=1\n1.0\n", `m:2: expected name=version, name:arch=version, or a package name, found "1.0"`},
		{List, "ab=" + strings.Repeat("1", maxField+1), `m:1: expected a version of at most 1024 bytes, found "` + strings.Repeat("1", maxRaw) + `…"`},
		{List, "ab=1\n" + strings.Repeat("x", MaxLine+2), `m:2: a line of more than 1048576 bytes: build manifest too large`},
		{DpkgQuery, "ab 1\n", `m:1: expected name and version in columns, or a row of dpkg -l, found "ab 1"`},
		{DpkgQuery, "ab\t\n", `m:1: expected name and version in columns, or a row of dpkg -l, found "ab"`},
		{AptList, "ab/stable,now 1 all [installiert]\n", `m:1: expected name/suite version architecture [installed] (LC_ALL=C apt list --installed), found "ab/stable,now 1 all [installiert]"`},
		{Mmdebstrap, "Inst ab (x)\n", `m:1: expected Inst name (version suite [architecture]), found "Inst ab (x)"`},
		{Debootstrap, "Base\n", `m:1: expected package names, or name version url, found "Base"`},
		{PrintURIs, "'http://mirror.example.org/ab_1_all.deb' ab_1_all.deb 5 SHA256:00\n", `m:1: expected 'uri' file size digest, found "'http://mirror.example.org/ab_1_all.deb' ab_1_all.deb 5 SHA256:00"`},
		{SHA256Sums, "abc  ab_1_all.deb\n", `m:1: expected digest and path, found "abc  ab_1_all.deb"`},
		{RPMQA, "bash\n", `m:1: expected name-[epoch:]version-release.arch, name.arch [epoch:]version-release, or name, epoch, version, release and arch in columns, found "bash"`},
	})
}

func TestDocumentErrors(t *testing.T) {
	signed := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nFormat: 1.0\nInstalled-Build-Depends:\n ab (= 1)\n"
	lock := "lockfileVersion: 1\narches:\n- packages:\n  - url: https://mirror.example.org/"
	checkErrors(t, []errorTest{
		{DpkgStatus, "Package: ab\nStatus: install ok installed\nVersion: 1\n", `m:1: expected the architecture of ab, found nothing`},
		{DpkgStatus, "Package: ab\nStatus: install ok broken\n", `m:2: expected a status of dpkg, found "install ok broken"`},
		{DpkgStatus, "Package: ab\nPackage: cd\n", `m:2: expected each field once, found "Package: cd"`},
		{DpkgStatus, " x\n", `m:1: expected a field, found " x"`},
		{Buildinfo, "Format: 3.0 (quilt)\n", `m:1: expected Format 1.0 or its successor 1.x, found "3.0 (quilt)"`},
		{Buildinfo, "Format: 1.0\nInstalled-Build-Depends:\n ab (= 1),\n cd (>= 1)\n", `m:4: expected name (= version) or name:arch (= version), found "cd (>= 1)"`},
		{Buildinfo, signed, `m:6: expected the end of the signature, found nothing`},
		{Buildinfo, signed + "-----BEGIN PGP SIGNATURE-----\n-----END PGP SIGNATURE-----\nab (= 2)\n", `m:9: expected the end of the file after the signature, found "ab (= 2)"`},
		{Buildinfo, signed + "-evil\n", `m:7: expected the signature, found "-evil"`},

		{DpkgSelections, "ab\tmaybe\n", `m:1: expected a package and one of install, hold, deinstall, purge, found "ab\tmaybe"`},
		{DpkgSelections, "ab\tdeinstall\n", `m: expected packages (dpkg-selections), found nothing`},
		{Debootstrap, "ab install\n", `m:1: expected package names, or name version url, found "ab install"`},
		{AptHistory, "Install: ab:amd64 (1)\n", `m:1: expected a transaction with a Start-Date field, found nothing`},
		{AptHistory, "Start-Date: x\nInstall: ab:amd64 1\n", `m:2: expected name:architecture (version), found "ab:amd64 1"`},
		{AptHistory, "Start-Date: x\nInstall: ab:amd64 (automatic)\n", `m:2: expected a version of ab:amd64, found "automatic"`},
		{AptHistory, "Start-Date: x\nInstall: ab:amd64 (1) bc:amd64 (1)\n", `m:2: expected a comma after ab:amd64 (1), found " bc:amd64 (1)"`},
		{DNFHistory, "ab\n", `m:1: expected Transaction ID : number, found "ab"`},
		{DNFHistory, "Transaction ID : x\n", `m:1: expected the number of a transaction, found "x"`},
		{DNFHistory, "Transaction ID : 1\nPackages Altered:\n    Bless ab-1-1.noarch\n", `m:3: expected an action of dnf history, found "bless"`},
		{DNFHistory, "Transaction ID : 1\nPackages Altered:\n    Install ab\n", `m:3: expected an action and name-[epoch:]version-release.arch, found "Install ab"`},
		{RPMQI, "package ab is not installed\n", `m:1: expected Name : package, found "package ab is not installed"`},
		{RPMQI, "Name : ab\nVersion : 1\n", `m:1: expected the version and release of ab, found "1-"`},
		{RPMQI, "Name : ab\nVersion : 1\nRelease : 1\nArchitecture: pdp11\n", `m:1: expected the architecture of ab, found "pdp11"`},
		{SPDX, "SPDXVersion: SPDX-3.0\n", `m:1: expected SPDXVersion SPDX-2.3 or SPDX-2.2, once, found "SPDX-3.0"`},
		{SPDX, "PackageName: ab\n", `m:1: expected the tag SPDXVersion, found nothing`},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageName ab\n", `m:2: expected Tag: value, found "PackageName ab"`},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageComment: <text>ab\n", `m:2: expected the end of a text, </text>, found "<text>ab"`},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageName: ab\nPackageChecksum: SHA256: 00\nExternalRef: PACKAGE-MANAGER purl pkg:deb/ab@1\n", `m:2: expected one digest for SHA256, found "00"`},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageName: ab\nExternalRef: PACKAGE-MANAGER purl pkg:deb/ab@2:1?epoch=1\n", `m:2: expected a version in the package URL, found "pkg:deb/ab@2:1?epoch=1"`},
		{SPDX, "SPDXVersion: SPDX-2.3\nPackageName: ab\nExternalRef: OTHER LocationRef-x a b\nExternalRef: PACKAGE-MANAGER purl\n", `m:4: expected ExternalRef: category purl locator, found "PACKAGE-MANAGER purl"`},
		{Syft, `{"schema": {}}`, `m:1: expected the key artifacts, found nothing`},
		{Syft, `{"artifacts": [{"name": "ab", "type": "deb"}]}`, `m:1: expected the package URL of ab, found nothing`},
		{Tails, "a: [", `m: expected a YAML document, found "line 1: did not find expected node content"`},
		{Tails, "packages: &a\n  binary: *a\n", `m:1: expected a document without anchors and aliases, found "a"`},
		{Tails, "a: b\n", `m:1: expected the key packages, found nothing`},
		{Tails, "packages: {}\n---\n{}\n", `m:2: expected one YAML document, found "another"`},
		{Tails, "packages: {}\npackages: {}\n", `m:2: expected each key once, found "packages"`},
		{Tails, "packages:\n  binary:\n  - package: ab\n    version: ''\n", `m:3: expected the version of a binary package, found nothing`},
		{Tails, "packages:\n  binary:\n    ab: 1\n", `m:3: expected binary as a sequence, found "a mapping"`},
		{Tails, strings.Repeat("- ", maxNodes+1), `read build manifest m: more than 1048576 lines and separators of YAML: build manifest too large`},
		{Tails, strings.Repeat("x", MaxYAML+1), `read build manifest m: more than 8388608 bytes of YAML: build manifest too large`},
		{Tails, strings.Repeat("[", 200) + strings.Repeat("]", 200), `m:1: expected at most 100 levels, found nothing`},
		{RPMsLock, "lockfileVersion: 2\n", `m:1: expected lockfileVersion 1, found "2"`},
		{RPMsLock, lock + "a.tar\n", `m:4: expected the url of an .rpm file, found "https://mirror.example.org/a.tar"`},
		{RPMsLock, lock + "a-1-1.noarch.rpm\n    checksum: sha256:00\n", `m:4: expected algorithm:digest, found "sha256:00"`},
		{RPMsLock, strings.Replace(lock, "packages", "source", 1) + "a-1-1.noarch.rpm\n", `m:4: expected a source package, found "https://mirror.example.org/a-1-1.noarch.rpm"`},

		{SPDX, `{"packages": []}`, `m:1: expected the key spdxVersion, found nothing`},
		{SPDX, `{"spdxVersion": "SPDX-3.0"}`, `m:1: expected spdxVersion SPDX-2.3 or SPDX-2.2, found "SPDX-3.0"`},
		{SPDX, "{\"spdxVersion\": \"SPDX-2.3\",\n\"packages\": [\n{},\n{\"name\": 1}]}", `m:4: expected an SPDX package, found "json: cannot unmarshal number into Go struct field spdxPackage.name of type string"`},
		{SPDX, `{"spdxVersion": "SPDX-2.3", "packages": [`, `m:1: expected the end of packages, found "the end of the file"`},
		{SPDX, `{"x": ` + strings.Repeat(`{"x": `, 200), `m:1: expected at most 100 levels, found "{"`},
		{SPDX, `{"x": ` + strings.Repeat("[", 20000), `m:1: expected an element, found "invalid character '[' exceeded max depth"`},
		{SPDX, `{"packages": [` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "]}", `m:1: expected at most 100 levels, found "` + strings.Repeat("[", 200) + `…"`},
		{SPDX, `{"spdxVersion": "SPDX-2.3", "spdxVersion": "SPDX-2.3"}`, `m:1: expected each key once, found "spdxVersion"`},
		{SPDX, `{} {}`, `m:1: expected the end of the file, found "more"`},
		{CycloneDX, `{"bomFormat": "CycloneDX", "specVersion": "1.3"}`, `m:1: expected specVersion 1.4 to 1.7, found "1.3"`},
		{CycloneDX, `{"specVersion": "1.5"}`, `m:1: expected the key bomFormat, found nothing`},
		{CycloneDX, `{"components": [{"name": "x", "purl": "pkg:deb/debian/ab?arch=all"}]}`, `m:1: expected a version in the package URL, found "pkg:deb/debian/ab?arch=all"`},
		{CycloneDX, `{"components": [{"components": [{"purl": "nonsense"}]}]}`, `m:1: expected a package URL, found "nonsense"`},
		{CycloneDX, `{"components": [{"purl": "pkg:deb/debian/ab@1", "hashes": [{"alg": "SHA-256", "content": "00"}]}]}`, `m:1: expected one digest for SHA-256, found "00"`},

		{"zip", "", `parse build manifest m: format "zip" is not known`},
	})
}

func TestLockErrors(t *testing.T) {
	checkErrors(t, []errorTest{
		{ReproEnv, "a = \n", `m:1: expected a lock file of repro-env in TOML, found "unexpected character U+000A at start of value"`},
		{ReproEnv, "[container]\nimage = \"x\"\n", `m: expected packages (repro-env), found nothing`},
		{ReproEnv, "# one\n[[package]]\nname = \"ab\"\nsystem = \"alpine\"\n", `m:2: expected a package of the system debian, ab, found "alpine"`},
		{ReproEnv, reproEnv("ab", "1", "ab_1_all.apk"), `m:1: expected the url of the .deb file of ab, found "https://mirror.example.org/ab_1_all.apk"`},
		{ReproEnv, reproEnv("ab", "1", "bc_1_all.deb"), `m:1: expected the url of ab 1, found "https://mirror.example.org/bc_1_all.deb"`},
		{ReproEnv, reproEnv("ab", "2:1", "ab_1-1_all.deb"), `m:1: expected the url of ab 2:1, found "https://mirror.example.org/ab_1-1_all.deb"`},
		{ReproEnv, reproEnv("a b", "1", "ab_1_all.deb"), `m:1: expected the name of a package, found "a b"`},
		{ReproEnv, reproEnv("ab", "", "ab_1_all.deb"), `m:1: expected the version of ab, found nothing`},
		{ReproEnv, reproEnv("ab.deb", "???", "ab.deb"), `m:1: expected the url of a file name_version_architecture.deb, found "https://mirror.example.org/ab.deb"`},
		{ReproEnv, strings.Replace(reproEnv("ab", "1", "ab_1_all.deb"), "0", "x", 1), `m:1: expected the sha256 of ab, found "x` + strings.Repeat("0", 63) + `"`},
		{ReproEnv, "x = '" + strings.Repeat("x", MaxTOML) + "'", `read build manifest m: more than 8388608 bytes of TOML: build manifest too large`},

		{RulesDistroless, `{"packages": []}`, `m:1: expected the key version, found nothing`},
		{RulesDistroless, `{"version": 1}`, `m:1: expected the key packages, found nothing`},
		{RulesDistroless, `{"version": 3}`, `m:1: expected version 1 or 2, found "3"`},
		{RulesDistroless, `{"version": 2, "packages": []}`, `m:1: expected packages of version 2 as an object, found "an array"`},
		{RulesDistroless, `{"version": 1, "packages": {}}`, `m:1: expected packages of version 1 as an array, found "an object"`},
		{RulesDistroless, `{"version": 1, "packages": "x"}`, `m:1: expected packages as an array or an object, found "x"`},
		{RulesDistroless, "{\"version\": 1, \"packages\": [\n1]}", `m:2: expected a package of rules_distroless, found "json: cannot unmarshal number into Go value of type buildlist.distrolessPackage"`},
		{RulesDistroless, `{"version": 1, "packages": []}`, `m: expected packages (rules-distroless), found nothing`},
		{RulesDistroless, listed("bc_1_amd64", "ab_1_amd64.deb", ""), `m:1: expected the key ab_1_amd64, found "bc_1_amd64"`},
		{RulesDistroless, listed("ab_1_amd64", "ab_1_arm64.deb", ""), `m:1: expected the url of ab_1_amd64, found "https://mirror.example.org/ab_1_arm64.deb"`},
		{RulesDistroless, listed("ab_1_amd64", "ab_1_amd64.deb", `{"key": "bc_1_amd64"}`), `m:1: expected the package bc_1_amd64, on which ab_1_amd64 depends, in the lock file, found nothing`},
		{RulesDistroless, strings.Replace(listed("ab_1_amd64", "x", ""), "urls", "links", 1), `m:1: expected the urls of ab_1_amd64, found nothing`},
		{RulesDistroless, keyed("noble/ab", "pool/ab_1_all.deb", 1), `m:1: expected a key /suite/name:architecture=version, found "noble/ab"`},
		{RulesDistroless, keyed("/noble/bc:amd64=1", "pool/ab_1_all.deb", 1), `m:1: expected the key /noble/ab:all=1, found "/noble/bc:amd64=1"`},
		{RulesDistroless, keyed("/noble/ab:amd64=1", "pool/bc_1_all.deb", 1), `m:1: expected the filename of /noble/ab:amd64=1, found "pool/bc_1_all.deb"`},
		{RulesDistroless, keyed("/noble/ab:amd64=1", "", 1), `m:1: expected the filename of /noble/ab:amd64=1, found nothing`},
		{RulesDistroless, keyed("/noble/ab:amd64=1", "pool/ab_1_all.deb", -1), `m:1: expected the size of /noble/ab:amd64=1 in bytes, found "-1"`},
		{RulesDistroless, `{"packages": {"/a/b:c=1": {}, "/a/b:c=1": {}}}`, `m:1: expected the name of a package, found nothing`},

		{Mkosi, `{"packages": []}`, `m:1: expected the key manifest_version, found nothing`},
		{Mkosi, `{"manifest_version": 1}`, `m:1: expected the key packages, found nothing`},
		{Mkosi, `{"manifest_version": 2}`, `m:1: expected manifest_version 1, found "2"`},
		{Mkosi, mkosi("pkg", "ab", "1", "any"), `m:1: expected a package of type deb or rpm, ab, found "pkg"`},
		{Mkosi, mkosi("deb", "", "1", "all"), `m:1: expected the name of a package, found nothing`},
		{Mkosi, mkosi("rpm", "ab", "1", "noarch"), `m:1: expected the version of ab, found "1"`},
		{Mkosi, mkosi("rpm", "ab", "1-1", "pdp11"), `m:1: expected the architecture of ab, found "pdp11"`},
	})
}

// reproEnv is a lock file of repro-env with one package.
func reproEnv(name, version, file string) string {
	return fmt.Sprintf("[[package]]\nname = %q\nversion = %q\nsystem = \"debian\"\nurl = \"https://mirror.example.org/%s\"\nsha256 = \"%s\"\n", name, version, file, strings.Repeat("0", 64))
}

// listed is a lock file of rules_distroless, version 1, with the package ab.
func listed(key, file, dependencies string) string {
	return fmt.Sprintf(`{"version": 1, "packages": [{"key": %q, "name": "ab", "version": "1", "arch": "amd64", "sha256": "%s", "urls": ["https://mirror.example.org/%s"], "dependencies": [%s]}]}`,
		key, strings.Repeat("0", 64), file, dependencies)
}

// keyed is a lock file of rules_distroless, version 2, with the package ab.
func keyed(key, file string, size int) string {
	return fmt.Sprintf(`{"version": 2, "packages": {%q: {"name": "ab", "version": "1", "architecture": "all", "suite": "noble", "sha256": "%s", "filename": %q, "size": %d}}}`,
		key, strings.Repeat("0", 64), file, size)
}

// mkosi is a manifest of mkosi with one package.
func mkosi(typ, name, version, arch string) string {
	return fmt.Sprintf(`{"manifest_version": 1, "packages": [{"type": %q, "name": %q, "version": %q, "architecture": %q}]}`, typ, name, version, arch)
}

package rpm_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/sign/signtest"
)

const ownSpec = `Name: tool
Epoch: 2
Version: 1.0
Release: 3
Summary: A tool & more
License: MIT
URL: https://mirror.example.org/tool
Packager: Nobody <nobody@example.org>
Vendor: Example
BuildArch: noarch
Provides: tool-api = 2:1.5-1
Provides: tool(one)
Requires: libtool >= 1.2, /bin/sh
Requires(post): tool-config < 3:4-5
Requires: (a or b)
Conflicts: oldtool <= 1
Obsoletes: oldtool < 2
Recommends: nice
Suggests: nicer = 1
Supplements: other
Enhances: another > 2
%description
It has "quotes" and <tags>.

A second block of text.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc/tool %{buildroot}/usr/share/tool %{buildroot}/var/log
touch %{buildroot}/usr/bin/tool %{buildroot}/etc/tool/conf "%{buildroot}/usr/share/tool/a & b" %{buildroot}/var/log/tool
%files
/usr/bin/tool
%config /etc/tool/conf
/usr/share/tool
%ghost /var/log/tool
%post
exit 0
%changelog
* Mon Jan 05 2026 Nobody <nobody@example.org> - 1.0-3
- Second entry
* Thu Jan 01 2026 Nobody <nobody@example.org> - 1.0-2
- First <entry>
`

// rpmbuilt runs rpmbuild and returns a binary package and its source package.
func rpmbuilt(t *testing.T, spec string) (dir string, files []string) {
	t.Helper()
	needs.Programs(t, "rpmbuild")
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "tool.spec"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "rpmbuild", "-ba", "--quiet", "--define", "_topdir "+work, filepath.Join(work, "tool.spec"))
	cmd.Env = append(os.Environ(), "HOME="+work, "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rpmbuild: %v\n%s", err, out)
	}
	dir = filepath.Join(work, "repo")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, glob := range []string{"RPMS/noarch/*.rpm", "SRPMS/*.rpm"} {
		found, err := filepath.Glob(filepath.Join(work, glob))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", glob, found, err)
		}
		to := filepath.Join(dir, filepath.Base(found[0]))
		if err := os.Rename(found[0], to); err != nil {
			t.Fatal(err)
		}
		files = append(files, to)
	}
	return dir, files
}

// ownPackage reads a package in the way that adds it to a local mirror.
func ownPackage(t *testing.T, m config.Mirror, file string) repo.OwnPackage {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	read, err := rpm.Format{}.ReadOwn(m, nil, filepath.Base(file), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	f := repo.OwnFile{File: repo.File{Path: filepath.Base(file), Size: int64(len(data)), SHA256: cas.Sum(data)}, Read: read}
	pkgs, err := rpm.Format{}.OwnPackages(m, repo.OwnParams{}, []repo.OwnFile{f})
	if err != nil || len(pkgs) != 1 {
		t.Fatalf("%v, %v", pkgs, err)
	}
	return pkgs[0]
}

func unsignedMirror() config.Mirror {
	no := false
	return config.Mirror{Name: "own", Type: "rpm", Local: true, GPGCheck: &no}
}

// Elements equal those of createrepo_c, except for the location and file time.
func TestOwnAsCreaterepo(t *testing.T) {
	needs.Programs(t, "createrepo_c")
	dir, files := rpmbuilt(t, ownSpec)
	if out, err := exec.CommandContext(t.Context(), "createrepo_c", "--quiet", "--general-compress-type=gz", dir).CombinedOutput(); err != nil {
		t.Fatalf("createrepo_c: %v\n%s", err, out)
	}
	theirs := map[string]string{} // by list and pkgid
	for _, kind := range []rpmmd.Kind{rpmmd.Primary, rpmmd.Filelists, rpmmd.Other} {
		found, err := filepath.Glob(filepath.Join(dir, "repodata", "*-"+string(kind)+".xml.gz"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", kind, found, err)
		}
		f, err := os.Open(found[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		plain, err := rpmmd.Decode(found[0], f)
		if err != nil {
			t.Fatal(err)
		}
		for s := rpmmd.NewScanner(plain, kind); ; {
			p, err := s.Next()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			theirs[string(kind)+p.PkgID] = normalEntry(string(p.Raw))
		}
	}
	for _, file := range files {
		p := ownPackage(t, unsignedMirror(), file)
		id := p.Files[0].SHA256.String()
		for kind, element := range map[rpmmd.Kind][]byte{rpmmd.Primary: p.Bytes, rpmmd.Filelists: p.Beside["filelists"], rpmmd.Other: p.Beside["other"]} {
			if d := cmp.Diff(strings.Split(theirs[string(kind)+id], "\n"), strings.Split(normalEntry(string(element)), "\n")); d != "" {
				t.Errorf("%s of %s: -createrepo_c +ours\n%s", kind, filepath.Base(file), d)
			}
		}
	}
}

var (
	betweenRE = regexp.MustCompile(`>\s*<`)
	emptyRE   = regexp.MustCompile(`<([a-z:]+)></[a-z:]+>`)
	placeRE   = regexp.MustCompile(` (file|href)="[^"]*"`)
)

// normalEntry removes differences in formatting from an element.
func normalEntry(s string) string {
	s = strings.NewReplacer("&#10;", "\n", "&quot;", "\"", "&#39;", "'").Replace(s)
	s = betweenRE.ReplaceAllString(s, "><")
	s = emptyRE.ReplaceAllString(s, "<$1/>")
	s = placeRE.ReplaceAllString(s, "")
	return strings.ReplaceAll(s, "><", ">\n<")
}

func TestOwnRefuses(t *testing.T) {
	_, files := rpmbuilt(t, ownSpec)
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Base(files[0])
	changed := bytes.Clone(data)
	changed[len(changed)-20] ^= 1
	signed := unsignedMirror()
	signed.GPGCheck = nil
	for name, c := range map[string]struct {
		m    config.Mirror
		name string
		data []byte
		is   error
	}{
		"another name":     {unsignedMirror(), "evil-1.0-3.noarch.rpm", data, repo.ErrMismatch},
		"a changed byte":   {unsignedMirror(), good, changed, repo.ErrMismatch},
		"cut in a header":  {unsignedMirror(), good, data[:500], repo.ErrMalformed},
		"cut in payload":   {unsignedMirror(), good, data[:len(data)-30], repo.ErrMismatch},
		"no package":       {unsignedMirror(), good, []byte(strings.Repeat("text", 1000)), repo.ErrMalformed},
		"another ending":   {unsignedMirror(), "tool.deb", data, repo.ErrNotPackage},
		"without a signer": {signed, good, data, repo.ErrUntrusted},
	} {
		_, err := rpm.Format{}.ReadOwn(c.m, signtest.Keyring(signtest.NewKey(t, "packager")), c.name, bytes.NewReader(c.data))
		if !errors.Is(err, c.is) {
			t.Errorf("%s: %v, expected %v", name, err, c.is)
		}
	}
	m := unsignedMirror()
	f := repo.OwnFile{File: repo.File{Path: good, Size: 1, SHA256: cas.Sum(data)}}
	if f.Read, err = (rpm.Format{}).ReadOwn(m, nil, good, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := (rpm.Format{}).OwnPackages(m, repo.OwnParams{Suite: "stable"}, []repo.OwnFile{f}); !errors.Is(err, repo.ErrNotPackage) {
		t.Errorf("a suite: %v", err)
	}
}

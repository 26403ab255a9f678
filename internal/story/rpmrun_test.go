package story

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/needs"
)

// A debianPackage is a package that is installed on this machine.
type debianPackage struct {
	version string
	depends [][]string // names, of which one of each list is needed
}

var restOfDependency = regexp.MustCompile(`[ (:].*`)

// debianPackages returns the packages that some need, by name, with what provides others.
func debianPackages(t *testing.T, names []string, without ...string) map[string]debianPackage {
	t.Helper()
	out, err := exec.Command("dpkg-query", "--show", "--showformat", "${db:Status-Status}\t${Package}\t${Version}\t${Pre-Depends}, ${Depends}\t${Provides}\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	all, provider := map[string]debianPackage{}, map[string]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 || f[0] != "installed" {
			continue
		}
		p := debianPackage{version: f[2]}
		for list := range strings.SplitSeq(f[3], ",") {
			var or []string
			for name := range strings.SplitSeq(list, "|") {
				if name = restOfDependency.ReplaceAllString(strings.TrimSpace(name), ""); name != "" {
					or = append(or, name)
				}
			}
			if or != nil {
				p.depends = append(p.depends, or)
			}
		}
		all[f[1]] = p
		for name := range strings.SplitSeq(f[4], ",") {
			provider[restOfDependency.ReplaceAllString(strings.TrimSpace(name), "")] = f[1]
		}
	}
	for name := range all {
		provider[name] = name
	}
	found := map[string]debianPackage{}
	for todo := names; len(todo) > 0; todo = todo[1:] {
		name := provider[todo[0]]
		if _, ok := found[name]; ok || name == "" {
			continue
		}
		p := debianPackage{version: all[name].version}
		for _, or := range all[name].depends {
			i := slices.IndexFunc(or, func(d string) bool { return provider[d] != "" && !slices.Contains(without, d) })
			if i >= 0 {
				p.depends = append(p.depends, []string{provider[or[i]]})
				todo = append(todo, or[i])
			}
		}
		found[name] = p
	}
	return found
}

// unusedPaths are not taken from Debian's packages.
var unusedPaths = regexp.MustCompile(`^/usr/share/(doc|man|locale|info|lintian|bug|zoneinfo)/`)

// wrap returns a spec file whose packages have the files of this machine's Debian
// packages, and the dependencies between them. Long because it has most of that text.
func wrap(t *testing.T, packages map[string]debianPackage) string {
	t.Helper()
	var spec, install, copies, files strings.Builder
	spec.WriteString(`Name: filesystem
Version: 1
Release: 1
Summary: Directories
License: MIT
AutoReqProv: no
Provides: /bin/sh
%global debug_package %{nil}
%global __os_install_post %{nil}
%global _binary_payload w1.gzdio
%global _build_id_links none
%description
Directories.
`)
	install.WriteString(`%install
cd %{buildroot}
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc/rpm root tmp var/tmp var/lib
ln -s usr/bin usr/sbin usr/lib usr/lib64 .
echo root:x:0:0:root:/root:/bin/bash > etc/passwd
echo root:x:0: > etc/group
ln -s bash usr/bin/sh
`)
	files.WriteString(`%files
/bin
/sbin
/lib
/lib64
%dir /usr/bin
%dir /usr/sbin
%dir /usr/lib
%dir /usr/lib64
%dir /etc/rpm
/etc/passwd
/etc/group
%dir /root
%attr(1777,root,root) /tmp
%attr(1777,root,root) /var/tmp
%dir /var/lib
/usr/bin/sh
`)
	var dirs []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		epoch, version, ok := strings.Cut(packages[name].version, ":")
		if !ok {
			epoch, version = "0", epoch
		}
		release := "0"
		if i := strings.LastIndexByte(version, '-'); i >= 0 {
			version, release = version[:i], version[i+1:]
		}
		fmt.Fprintf(&spec, "%%package -n %s\nEpoch: %s\nVersion: %s\nRelease: %s\nSummary: %[1]s\nAutoReqProv: no\nRequires: filesystem\n",
			name, epoch, strings.ReplaceAll(version, "-", "_"), release)
		for _, d := range packages[name].depends {
			fmt.Fprintf(&spec, "Requires: %s\n", d[0])
		}
		fmt.Fprintf(&spec, "%%description -n %[1]s\n%[1]s.\n", name)
		list, err := exec.Command("dpkg-query", "--listfiles", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&files, "%%files -n %s\n", name)
		for file := range strings.Lines(string(list)) {
			file = strings.TrimSuffix(file, "\n")
			st, err := os.Lstat(file)
			if err != nil || st.IsDir() || filepath.Dir(file) == "/" || unusedPaths.MatchString(file) || strings.ContainsAny(file, "\"*?[]{} %") {
				continue
			}
			to := file
			switch strings.SplitN(file, "/", 3)[1] {
			case "bin", "sbin", "lib", "lib64":
				to = "/usr" + file
			}
			fmt.Fprintf(&copies, "cp -a %s .%s\n", file, to)
			if dir := filepath.Dir(to); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
			fmt.Fprintln(&files, to)
		}
	}
	for _, d := range dirs {
		fmt.Fprintf(&install, "mkdir -p .%s\n", d)
	}
	return spec.String() + install.String() + copies.String() + files.String()
}

// greeter is a program that a package is built with, and hello that package.
const (
	greeter = "Name: greeter\nVersion: %[1]s\nRelease: 1\nSummary: Greets\nLicense: MIT\nBuildArch: noarch\n%%description\nGreets.\n" +
		"%%install\nmkdir -p %%{buildroot}/usr/bin\nprintf '#!/bin/sh\\necho greeter %[1]s says hello to $1\\n' > %%{buildroot}/usr/bin/greet\nchmod 755 %%{buildroot}/usr/bin/greet\n" +
		"%%files\n/usr/bin/greet\n"
	hello = "Name: hello\nVersion: 1.0\nRelease: 1\nSummary: Says hello\nLicense: MIT\nBuildArch: noarch\nBuildRequires: greeter\n%description\nSays hello.\n" +
		"%build\nfor i in you me; do greet $i; done > hello.txt\n%install\nmkdir -p %{buildroot}/usr/share/hello\ncp hello.txt %{buildroot}/usr/share/hello\n%files\n/usr/share/hello\n"
)

// An rpm package is built in an environment that dnf makes from a freeze, with the
// build dependencies of that freeze. When upstream has newer ones only, it is built
// again with equal bytes; with the newer ones it differs, and the difference is
// explained. Long because each step depends on the one before.
func TestRunRPM(t *testing.T) {
	if testing.Short() {
		t.Skip("builds root file systems")
	}
	needs.Programs(t, "dpkg-query")
	if err := buildenv.Check(t.Context()); err != nil {
		t.Skip(err)
	}
	f := newFedora(t)
	packages := debianPackages(t, []string{"bash", "coreutils", "libc-bin", "dnf", "dnf-plugins-core", "rpm", "tar", "gzip", "sed", "grep", "findutils", "diffutils"},
		"perl", "dpkg", "debconf", "install-info", "init-system-helpers", "dbus", "systemd", "tzdata", "media-types", "python3-dbus")
	rpm := packages["rpm"]
	for _, name := range []string{"tar", "gzip", "sed", "grep", "findutils", "diffutils"} { // which rpmbuild needs
		rpm.depends = append(rpm.depends, []string{name})
	}
	packages["rpm"] = rpm
	f.BuildSpec("filesystem", wrap(t, packages))
	f.BuildSpec("greeter", fmt.Sprintf(greeter, "1.0"))
	f.run("rpmbuild", "-bs", "--quiet", "--define", "_topdir "+filepath.Join(f.work, "top"), f.spec("hello", hello))
	if err := os.Rename(one(t, f.work, "top/SRPMS/hello-1.0-1.src.rpm"), filepath.Join(f.Dir, "Sources/hello-1.0-1.src.rpm")); err != nil {
		t.Fatal(err)
	}
	f.run("rpmsign", "--addsign", "--define", "_gpg_name packager@example.org", "--define", "__gpg "+needs.Program(t, "gpg"), filepath.Join(f.Dir, "Sources/hello-1.0-1.src.rpm"))
	now := time.Now().UTC().Truncate(time.Second)
	f.Publish(now.Add(-2 * time.Hour))

	s := start(t, head+fmt.Sprintf("[[mirror]]\nname = \"fedora\"\ntype = \"rpm\"\nurl = %q\narchitectures = [\"x86_64\"]\nkeyring = %q\nsources = true\n", f.URL, f.Key))
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--all")
	build := []string{
		"--package", "dnf-plugins-core", "--package", "rpm", "--package", "libc-bin", "--", "sh", "-c", `set -e
dnf -y -q download --source hello
dnf -y -q --disableplugin=local builddep hello-1.0-1.src.rpm
rpmbuild --quiet --rebuild --define "_topdir $PWD/top" hello-1.0-1.src.rpm
cp top/RPMS/noarch/*.rpm /output
`,
	}
	release, again, newer := filepath.Join(s.Dir, "release"), filepath.Join(s.Dir, "again"), filepath.Join(s.Dir, "newer")
	var r api.RunResult
	s.JSON(&r, append([]string{"run", "4.1", "--output", release, "--check"}, build...)...)
	if r.Check == nil || !r.Check.Equal || len(r.Outputs) != 1 || r.Outputs[0].Path != "hello-1.0-1.noarch.rpm" {
		t.Fatalf("the release: %+v", r)
	}
	record, err := os.ReadFile(filepath.Join(release, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`"pkg:rpm/bash@`, "/greeter-1.0-1.noarch.rpm", "/hello-1.0-1.src.rpm", `"dnf":"`} {
		if !bytes.Contains(record, []byte(text)) {
			t.Errorf("the record has no %s:\n%s", text, record)
		}
	}

	f.Remove("greeter")
	f.BuildSpec("greeter", fmt.Sprintf(greeter, "2.0"))
	f.Publish(now.Add(-time.Hour))
	s.Ctl("sync")
	s.Ctl("freeze", "4.2", "--all")
	s.Ctl(append([]string{"run", "4.1", "--output", again}, build...)...)
	s.Ctl("compare", filepath.Join(release, "hello-1.0-1.noarch.rpm"), filepath.Join(again, "hello-1.0-1.noarch.rpm"))
	if _, err := s.Try(append([]string{"run", "4.2", "--output", newer}, build...)...); err != nil {
		t.Fatal(err)
	}
	out, err := s.Try("compare", filepath.Join(release, "hello-1.0-1.noarch.rpm"), filepath.Join(newer, "hello-1.0-1.noarch.rpm"), "--explain", "/payload//usr/share/hello/hello.txt")
	if code(err) != api.ExitVerify || !strings.Contains(out, "greeter 2.0 says hello to you") {
		t.Errorf("compare with what the newer packages made: exit %d, expected %d: %v\n%s", code(err), api.ExitVerify, err, out)
	}
	if _, err := s.Try("run", "4.1", "--package", "greeter-2.0-1", "--", "true"); err == nil || !strings.Contains(err.Error(), "greeter-2.0-1: not in it: 4.1") {
		t.Errorf("a package of another freeze: %v", err)
	}
}

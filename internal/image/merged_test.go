package image

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// installed is a package of this machine.
type installed struct {
	name, version, arch string
	fields              map[string]string
}

// machinePackages returns the packages of this machine by name.
func machinePackages(t *testing.T) map[string]installed {
	t.Helper()
	out := map[string]installed{}
	status, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		t.Skipf("not a Debian machine: %v", err)
	}
	for stanza := range strings.SplitSeq(string(status), "\n\n") {
		p := installed{fields: map[string]string{}}
		good := false
		for line := range strings.Lines(stanza) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !ok || strings.HasPrefix(line, " ") {
				continue
			}
			switch name {
			case "Package":
				p.name = value
			case "Version":
				p.version = value
			case "Architecture":
				p.arch = value
			case "Status":
				good = value == "install ok installed"
			case "Essential", "Depends", "Pre-Depends", "Provides", "Multi-Arch", "Priority", "Section", "Breaks", "Conflicts", "Replaces":
				p.fields[name] = value
			}
		}
		if good {
			out[p.name] = p
		}
	}
	return out
}

// closure returns the names of the essential packages and of all their dependencies.
func closure(all map[string]installed) []string {
	provided := map[string]string{}
	for _, name := range slices.Sorted(mapKeys(all)) {
		for _, v := range strings.Split(all[name].fields["Provides"], ",") {
			v, _, _ = strings.Cut(strings.TrimSpace(v), " ")
			provided[v] = name
		}
	}
	var out []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		out = append(out, name)
		for _, group := range strings.Split(all[name].fields["Depends"]+","+all[name].fields["Pre-Depends"], ",") {
			for _, alternative := range strings.Split(group, "|") {
				dep := strings.TrimSpace(alternative)
				dep, _, _ = strings.Cut(dep, " ")
				dep, _, _ = strings.Cut(dep, ":")
				if _, ok := all[dep]; !ok {
					dep = provided[dep]
				}
				if dep != "" {
					visit(dep)
					break
				}
			}
		}
	}
	for _, name := range slices.Sorted(mapKeys(all)) {
		if all[name].fields["Essential"] == "yes" {
			visit(name)
		}
	}
	slices.Sort(out)
	return out
}

func mapKeys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// repack makes a .deb from the installed files of a package.
func repack(t *testing.T, p installed) []byte {
	t.Helper()
	dir := t.TempDir()
	tree, control := filepath.Join(dir, "tree"), filepath.Join(dir, "tree/DEBIAN")
	if err := os.MkdirAll(control, 0o755); err != nil {
		t.Fatal(err)
	}
	info := "/var/lib/dpkg/info/" + p.name
	if p.fields["Multi-Arch"] == "same" {
		info += ":" + p.arch
	}
	listed, err := os.ReadFile(info + ".list")
	if err != nil {
		t.Fatal(err)
	}
	var files bytes.Buffer
	for line := range strings.Lines(string(listed)) {
		name := strings.TrimSuffix(line, "\n")
		st, err := os.Lstat(name)
		if err != nil { // not installed on this machine
			continue
		}
		if to, err := os.Stat(name); st.IsDir() || err == nil && to.IsDir() && st.Mode()&os.ModeSymlink != 0 && filepath.Dir(name) == "/" {
			if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		files.WriteString("." + name + "\x00")
	}
	list := filepath.Join(dir, "list")
	if err := os.WriteFile(list, files.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	squashfstest.Run(t, "sh", "-c", `tar -C / --no-recursion --null -T "$1" -cf - | tar -C "$2" --keep-directory-symlink -xf -`, "sh", list, tree)
	var text strings.Builder
	fmt.Fprintf(&text, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: nobody <nobody@example.org>\n", p.name, p.version, p.arch)
	for _, name := range slices.Sorted(mapKeys(p.fields)) {
		fmt.Fprintf(&text, "%s: %s\n", name, p.fields[name])
	}
	text.WriteString("Description: repacked\n")
	if err := os.WriteFile(filepath.Join(control, "control"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm", "triggers", "shlibs"} {
		b, err := os.ReadFile(info + "." + name)
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(control, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, "package.deb")
	squashfstest.Run(t, "dpkg-deb", "-Znone", "--build", tree, deb)
	b, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(dir)
	return b
}

// TestBuildWithoutUsrmerge builds an image from the essential packages of this machine,
// which has a merged /usr. They include usr-is-merged and packages that depend on it,
// but not usrmerge, which would merge /usr in the image.
func TestBuildWithoutUsrmerge(t *testing.T) {
	needRoot(t)
	needs.Programs(t, "dpkg-deb", "tar")
	all := machinePackages(t)
	if _, ok := all["usr-is-merged"]; !ok {
		t.Skip("this machine has no package usr-is-merged")
	}
	if _, ok := all["usrmerge"]; ok {
		t.Skip("this machine has the package usrmerge")
	}
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	a := debtest.New(t)
	for _, name := range closure(all) {
		p := all[name]
		a.Add(debtest.Package{Name: p.name, Version: p.version, Arch: p.arch, Fields: p.fields, Body: repack(t, p)})
	}
	a.Publish(epoch)
	srv := httptest.NewServer(a.Handler())
	defer srv.Close()
	spec := Spec{Variant: "essential", Architecture: strings.TrimSpace(string(arch)), Epoch: epoch, Sources: sources(a, srv.URL)}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var image memory
	var log bytes.Buffer
	if err := Build(t.Context(), &image, spec, Options{TempDir: dir, Log: &log}); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	r, err := squashfs.Open(bytes.NewReader(image.b), int64(len(image.b)), squashfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib"} {
		n, err := r.Lookup(name)
		if err != nil || n.Type != squashfs.TypeSymlink || n.Target != target {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
	for _, name := range []string{"usr/bin/bash", "usr/bin/ls"} {
		if _, err := r.Lookup(name); err != nil {
			t.Error(err)
		}
	}
	n, err := r.Lookup("var/lib/dpkg/status")
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.File(n)
	if err != nil {
		t.Fatal(err)
	}
	status := make([]byte, n.Size)
	if _, err := f.ReadAt(status, 0); err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(status, []byte("Package: usr-is-merged\n"))
	if i < 0 || !bytes.Contains(status[i:min(i+600, len(status))], []byte("Status: install ok installed\n")) {
		t.Error("usr-is-merged is not installed")
	}
	if bytes.Contains(status, []byte("dummy")) {
		t.Error("a dummy package is left")
	}
}

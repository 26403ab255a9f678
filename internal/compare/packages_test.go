package compare

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
)

func TestDebs(t *testing.T) {
	needs.Programs(t, "dpkg-deb")
	dir := t.TempDir()
	build := func(name, comp, text string, epoch int) string {
		tree := filepath.Join(dir, name)
		put(t, tree, "DEBIAN/control", "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n")
		put(t, tree, "DEBIAN/md5sums", fmt.Sprintf("%032x  usr/share/hello/text\n%032x  usr/share/hello/same\n", len(name)*77, 5))
		put(t, tree, "usr/share/hello/text", text)
		put(t, tree, "usr/share/hello/same", "same")
		settle(t, tree, day)
		t.Setenv("SOURCE_DATE_EPOCH", fmt.Sprint(epoch))
		run(t, dir, "dpkg-deb", "--root-owner-group", "-Z"+comp, "-b", tree, name+".deb")
		return filepath.Join(dir, name+".deb")
	}
	epoch := int(day.Unix())
	a := build("a", "xz", "one", epoch)
	for _, c := range []struct {
		b    string
		want map[string]string
	}{
		{build("bb", "xz", "two", epoch), map[string]string{"/data.tar//usr/share/hello/text": codeContents, "/control.tar//md5sums": codeDigest}},
		{build("c", "gzip", "one", epoch), map[string]string{"/data.tar": codeCompression, "/control.tar": codeCompression}},
		{build("d", "xz", "one", epoch+60), map[string]string{"/data.tar": codeArTime, "/control.tar": codeArTime, "/debian-binary": codeArTime}},
	} {
		if d := cmp.Diff(c.want, codes(compare(t, a, c.b, Options{}))); d != "" {
			t.Errorf("%s (-expected +found):\n%s", c.b, d)
		}
	}
	r := compare(t, a, filepath.Join(dir, "bb.deb"), Options{Explain: "/data.tar//usr/share/hello/text"})
	if !strings.Contains(r.Explained.Text, "-one\n") || !strings.Contains(r.Explained.Text, "+two\n") {
		t.Errorf("%s", r.Explained.Text)
	}
}

func TestRPMs(t *testing.T) {
	needs.Programs(t, "rpmbuild")
	dir := t.TempDir()
	put(t, dir, "x.spec", "Name: hello\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n%install\nmkdir -p %{buildroot}/usr/share\nprintf '%{text}' >%{buildroot}/usr/share/hello\n%files\n/usr/share/hello\n")
	build := func(name, text, host string, at int64) string {
		t.Setenv("SOURCE_DATE_EPOCH", fmt.Sprint(at))
		run(t, dir, "rpmbuild", "--quiet", "-bb", "--define", "_topdir "+filepath.Join(dir, name), "--define", "text "+text, "--define", "_buildhost "+host,
			"--define", "use_source_date_epoch_as_buildtime 1", "--define", "clamp_mtime_to_source_date_epoch 1", "x.spec")
		found, _ := filepath.Glob(filepath.Join(dir, name, "RPMS/noarch/*.rpm"))
		if len(found) != 1 {
			t.Fatalf("rpmbuild made %q", found)
		}
		return found[0]
	}
	a := build("a", "one", "alpha", day.Unix())
	got := codes(compare(t, a, build("b", "one", "beta-02", day.Unix()), Options{}))
	if got["/header/BUILDHOST-1007"] != codeHostName || got["/payload"] != "" || got["/signature/SHA1-269"] != codeDigest {
		t.Errorf("another host: %q", got)
	}
	for path, code := range got {
		if code == codeContents {
			t.Errorf("another host: %s is not explained", path)
		}
	}
	got = codes(compare(t, a, build("c", "two", "alpha", day.Unix()), Options{}))
	if got["/payload//usr/share/hello"] != codeContents || got["/header/PAYLOADDIGEST-5092"] != codeDigest {
		t.Errorf("other contents: %q", got)
	}
}

// The packages of an image own the paths that differ.
func TestOwners(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for d, version := range map[string]string{a: "1", b: "2"} {
		put(t, d, "usr/bin/tool", "tool "+version)
		put(t, d, "usr/bin/other", "other "+version)
		put(t, d, "var/lib/dpkg/status", "Package: tools\nStatus: install ok installed\nVersion: "+version+"\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 9\n")
		put(t, d, "var/lib/dpkg/info/tools.list", "/.\n/bin/tool\n")
		settle(t, d, day)
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := compare(t, a, b, Options{})
	if len(r.Packages) != 1 || r.Packages[0].Package != "tools" || r.Packages[0].A != "1" || r.Packages[0].B != "2" || r.Packages[0].Paths != 1 {
		t.Errorf("%+v", r.Packages)
	}
}

// docs/COMPARE.md has the table of codes.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/COMPARE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Codes() {
		if row := fmt.Sprintf("| `%s` | %s | %s |\n", c.Name, c.Class, c.Meaning); !strings.Contains(string(page), row) {
			t.Errorf("docs/COMPARE.md lacks %s", row)
		}
	}
}

func TestHTML(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	put(t, a, "<b>", "1")
	put(t, b, "<b>", "2")
	r := compare(t, a, b, Options{})
	var pages [2]strings.Builder
	for i := range pages {
		if err := WriteHTML(&pages[i], r); err != nil {
			t.Fatal(err)
		}
	}
	text := pages[0].String()
	if text != pages[1].String() || !strings.Contains(text, "/&lt;b&gt;") || strings.Contains(text, "<b>") || strings.Contains(text, "<script") {
		t.Errorf("%s", text)
	}
}

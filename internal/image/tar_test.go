package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
)

// Tar and OCI images have the same bytes wherever they are built, and GNU tar and
// skopeo can read them. Long because it checks both results of one build.
func TestFormats(t *testing.T) {
	needRoot(t)
	needs.Programs(t, "tar", "skopeo")
	a := archive(t)
	srv := httptest.NewServer(a.Handler())
	defer srv.Close()
	spec := Spec{
		Variant: "extract", Include: []string{"hello"}, Architecture: "amd64", Epoch: epoch, Freeze: "4.1",
		Sources: sources(a, srv.URL),
	}
	dir := t.TempDir()
	build := func(format string) string {
		t.Helper()
		file := filepath.Join(dir, format)
		var first []byte
		for i := range 2 {
			if i == 1 {
				t.Setenv("TZ", "Asia/Tokyo")
				defer syscall.Umask(syscall.Umask(0o077))
			}
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			spec.Format = format
			if err := Build(t.Context(), f, spec, Options{}); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = data
			} else if !bytes.Equal(first, data) {
				t.Errorf("the second image as %s differs", format)
			}
		}
		return file
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v", name, args, err)
		}
		return string(out)
	}

	root := build("tar")
	if got := run("tar", "-xOf", root, "usr/share/hello/greeting"); got != "hello, world\n" {
		t.Errorf("a file of the archive: %q", got)
	}
	list := run("tar", "--numeric-owner", "--full-time", "-tvf", root)
	for line := range strings.Lines(list) {
		if when := strings.Join(strings.Fields(line)[3:5], " "); when > epoch.Format(time.DateTime) || strings.Contains(line, " ./.") {
			t.Errorf("entry %s", line)
		}
	}

	oci := build("oci")
	var shown struct {
		Created      time.Time
		Architecture string
		Os           string
		Layers       []string
		Env          []string
	}
	if err := json.Unmarshal([]byte(run("skopeo", "inspect", "oci-archive:"+oci+":4.1")), &shown); err != nil {
		t.Fatal(err)
	}
	layer := "sha256:" + strings.Fields(run("sha256sum", root))[0]
	if got, want := fmt.Sprint(shown), fmt.Sprint(epoch, " amd64 linux [", layer, "] [PATH=", toolPath, "]"); got != "{"+want+"}" {
		t.Errorf("skopeo shows %s, expected {%s}", got, want)
	}
	run("skopeo", "copy", "--quiet", "--insecure-policy", "oci-archive:"+oci+":4.1", "dir:"+filepath.Join(dir, "copied"))
	if got := run("tar", "-xOf", filepath.Join(dir, "copied", strings.TrimPrefix(layer, "sha256:")), "usr/share/hello/greeting"); got != "hello, world\n" {
		t.Errorf("a file of the copied layer: %q", got)
	}

	spec.Variant, spec.Include = "essential", nil
	for _, spec.Format = range []string{"tar", "oci"} {
		if err := Build(t.Context(), &memory{}, spec, Options{}); err == nil {
			t.Errorf("an image as %s without packages was made", spec.Format)
		}
	}
}

// Fields that depend on the machine are removed from a tar stream, and entries that no
// image can contain are refused.
func TestTarEntries(t *testing.T) {
	pack := func(entries ...tar.Header) (out []tar.Header, err error) {
		var in, packed bytes.Buffer
		w := tar.NewWriter(&in)
		for _, h := range entries {
			h.Format = tar.FormatPAX
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		in.WriteString(strings.Repeat("\x00", 10240))
		if err := packTar(t.Context(), &packed, &in, &Spec{Variant: "custom", Epoch: epoch}, Options{}); err != nil {
			return nil, err
		}
		for r := tar.NewReader(&packed); ; {
			h, err := r.Next()
			if err == io.EOF {
				return out, nil
			}
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, tar.Header{Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Mode: h.Mode, Uname: h.Uname, ModTime: h.ModTime.UTC(), Devmajor: h.Devmajor, PAXRecords: h.PAXRecords})
		}
	}
	later, earlier := epoch.Add(time.Hour+time.Millisecond), epoch.Add(-time.Hour)
	capability := "SCHILY.xattr.security.capability"
	got, err := pack(
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, Uname: "root", ModTime: later, AccessTime: later},
		tar.Header{Typeflag: tar.TypeReg, Name: "./a", Mode: 0o4755, ModTime: earlier, PAXRecords: map[string]string{capability: "x", "SCHILY.xattr.system.posix_acl_access": "y"}},
		tar.Header{Typeflag: tar.TypeLink, Name: "./b", Linkname: "./a", ModTime: earlier},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "./c", Linkname: "./a", ModTime: earlier},
		tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Devmajor: 1, Devminor: 3, ModTime: earlier},
	)
	want := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: epoch},
		{Typeflag: tar.TypeReg, Name: "a", Mode: 0o4755, ModTime: earlier, PAXRecords: map[string]string{capability: "x"}},
		{Typeflag: tar.TypeLink, Name: "b", Linkname: "a", ModTime: earlier},
		{Typeflag: tar.TypeSymlink, Name: "c", Linkname: "./a", ModTime: earlier},
		{Typeflag: tar.TypeChar, Name: "dev/null", Devmajor: 1, ModTime: earlier},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n-want +got\n%s", err, d)
	}
	if _, err := pack(tar.Header{Typeflag: tar.TypeCont, Name: "x"}); err == nil || err.Error() != `x: tar entry of type '7'` {
		t.Errorf("error %v", err)
	}
}

// The documents of an OCI image name the platform like those of other tools, and the
// freeze only if podman accepts its name.
func TestOCIDocuments(t *testing.T) {
	for _, c := range []struct{ freeze, arch, platform, ref string }{
		{"4.1", "amd64", `"architecture":"amd64","os":"linux"`, "4.1"},
		{"release-4_1.2", "i386", `"architecture":"386","os":"linux"`, "release-4_1.2"},
		{"4.1~rc1", "armhf", `"architecture":"arm","os":"linux","variant":"v7"`, ""},
		{"Release", "armel", `"architecture":"arm","os":"linux","variant":"v5"`, ""},
		{"4..1", "ppc64el", `"architecture":"ppc64le","os":"linux"`, ""},
	} {
		s := Spec{Variant: "custom", Architecture: c.arch, Epoch: epoch, Freeze: c.freeze}
		var out bytes.Buffer
		if err := packOCI(t.Context(), &out, strings.NewReader(""), &s, Options{}); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for r := tar.NewReader(&out); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name] = string(data)
		}
		if index := files["index.json"]; !strings.Contains(index, `"platform":{`+c.platform+"}") || strings.Contains(index, "ref.name") != (c.ref != "") || !strings.Contains(index, c.ref) {
			t.Errorf("%s %s: index %s", c.freeze, c.arch, index)
		}
		configs := 0
		for _, f := range files {
			if strings.Contains(f, `{"created":"2026-11-22T16:00:00Z",`+c.platform+`,"config":`) {
				configs++
			}
		}
		if configs != 1 {
			t.Errorf("%s: %q", c.arch, files)
		}
	}
}

package compare

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
)

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

var day = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

// put writes a file below a directory, with a time.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settle sets the time of every file in a tree.
func settle(t *testing.T, dir string, at time.Time) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		ts := unix.NsecToTimespec(at.UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// codes returns the codes of each path that differs.
func codes(r *api.CompareResult) map[string]string {
	out := map[string]string{}
	for _, d := range r.Differences {
		var list []string
		for _, k := range d.Causes {
			list = append(list, k.Code)
		}
		slices.Sort(list)
		out[d.Path] = strings.Join(slices.Compact(list), " ")
	}
	return out
}

func compare(t *testing.T, a, b string, o Options) *api.CompareResult {
	t.Helper()
	r, err := Compare(t.Context(), a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// plant writes two trees that differ at each path for one cause, and returns the
// expected codes. Long because it lists all causes.
func plant(t *testing.T, a, b string) map[string]string {
	t.Helper()
	want := map[string]string{}
	for _, f := range []struct{ name, a, b, code string }{
		{"etc/hostname", "alpha\n", "buildd-02\n", codeHostName},
		{"etc/hosts", "127.0.0.1 localhost\n127.0.1.1 alpha\n", "127.0.0.1 localhost\n127.0.1.1 buildd-02\n", codeHostName},
		{"etc/machine-id", strings.Repeat("0a", 16) + "\n", strings.Repeat("f3", 16) + "\n", codeRandomID},
		{"etc/fstab", "UUID=0b1c2d3e-0000-4000-8000-0123456789ab / ext4\n", "UUID=ffffffff-1111-4111-9111-0123456789ab / ext4\n", codeRandomID},
		{"etc/shadow", "root:*:20700:0:99999:7:::\na:!:1::::::\n", "root:*:20701:0:99999:7:::\na:!:1::::::\n", codeShadowDay},
		{"etc/ld.so.cache", "glibc-ld.so.cache1.1\x00\x01", "glibc-ld.so.cache1.1\x00\x02", codeCache},
		{"etc/lines", "b\na\nc\n", "c\nb\na\n", codeLineOrder},
		{"usr/share/date", "built on Sun Nov 22 16:00:00 UTC 2026\n", "built on Mon Nov 23 07:12:59 UTC 2026\n", codeDate},
		{"usr/share/iso", "Date: 2026-11-22T16:00:00Z, copyright 2026\n", "Date: 2026-11-23T16:00:00Z, copyright 2026\n", codeDate},
		{"usr/share/epoch", fmt.Sprintf("t=%d\n", day.Unix()), fmt.Sprintf("t=%d\n", day.Unix()+3600), codeDate},
		{"usr/share/number", "n=1234567890\n", "n=1234567891\n", codeContents},
		{"usr/share/path", "-I/build/tool-Xy12Za/tool-1.0/src/a.h\n", "-I/build/tool-PPqq77/tool-1.0/src/a.h\n", codeBuildPath},
		{"usr/share/otherpath", "-I/build/tool/a.h\n", "-I/build/tool/b.h\n", codeContents},
		{"usr/share/mac", "00:16:3e:12:34:56\n", "00:16:3e:12:34:57\n", codeContents},
		{"usr/share/kernel", "linux 6.1.0-18-amd64 here\n", "linux 6.1.0-21-amd64 here\n", codeKernel},
		{"usr/share/two", "6.1.0-18-amd64 2026-11-22\n", "6.1.0-21-amd64 2026-11-23\n", codeDate + " " + codeKernel},
		{"usr/share/digest", strings.Repeat("ab", 32) + "\n", strings.Repeat("cd", 32) + "\n", codeContents},
		{"usr/share/binary", "\x00\x01built 2026-11-22\x00\xff", "\x00\x01built 2026-11-23\x00\xff", codeDate},
		{"usr/share/secret", "built 2026-11-22\x00\x01", "built 2026-11-23\x00\x02", codeContents},
	} {
		put(t, a, f.name, f.a)
		put(t, b, f.name, f.b)
		want["/"+f.name] = f.code
	}
	for _, d := range []string{a, b} {
		put(t, d, "etc/same", "same")
		put(t, d, "bin/tool", "tool")
		put(t, d, "type/x", "x")
		put(t, d, "link/one", "1")
	}
	put(t, a, "gone", "a")
	put(t, b, "new", "b")
	put(t, b, "type/kind/x", "x")
	put(t, a, "type/kind", "x")
	want["/gone"], want["/new"], want["/type/kind"], want["/type/kind/x"] = codeMissing, codeAdded, codeType, codeAdded
	if err := os.Chmod(filepath.Join(b, "bin/tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	want["/bin/tool"] = codeMode
	if err := os.Link(filepath.Join(a, "link/one"), filepath.Join(a, "link/two")); err != nil {
		t.Fatal(err)
	}
	put(t, b, "link/two", "1")
	want["/link/two"] = codeHardLink
	for d, target := range map[string]string{a: "one", b: "two"} {
		if err := os.Symlink(target, filepath.Join(d, "link/s")); err != nil {
			t.Fatal(err)
		}
	}
	want["/link/s"] = codeTarget
	return want
}

// special adds files that programs write.
func special(t *testing.T, a, b string) map[string]string {
	t.Helper()
	needs.Programs(t, "gzip", "xz", "gcc", "ar", "python3")
	src := t.TempDir()
	for i, d := range []string{a, b} {
		at := day.Add(time.Duration(i) * time.Hour)
		work := filepath.Join(src, fmt.Sprint(i))
		put(t, work, "changelog", strings.Repeat("a line of a text\n", 100))
		put(t, work, "m.py", "x = 1\n")
		put(t, work, "m.c", "int f(void) { return 1; }\n")
		put(t, work, "main.c", "int main(void) { return 0; }\n")
		settle(t, work, at)
		os.MkdirAll(filepath.Join(d, "usr/lib"), 0o755)
		out := func(name string) string { return filepath.Join(d, "usr/lib", name) }
		run(t, work, "gzip", "-k", "changelog")
		run(t, work, "mv", "changelog.gz", out("changelog.gz"))
		run(t, work, "sh", "-c", fmt.Sprintf("xz -k -%d -c changelog >%s", []int{0, 9}[i], out("packed.xz")))
		run(t, work, "python3", "-c", "import py_compile, sys; py_compile.compile('m.py', cfile=sys.argv[1], doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)", out("m.pyc"))
		run(t, work, "python3", "-m", "zipfile", "-c", out("m.jar"), "m.py", "m.c")
		run(t, work, "gcc", "-c", "m.c")
		settle(t, work, at)
		run(t, work, "ar", "rcU", out("libm.a"), "m.o")
		run(t, work, "gcc", "-o", out("main"), fmt.Sprintf("-Wl,--build-id=0x%040x", i+1), "main.c")
		run(t, work, "tar", "--sort=name", "--owner=0", "--group=0", "-czf", out("t.tar.gz"), "--mtime=@"+fmt.Sprint(at.Unix()), "m.py", "m.c")
		put(t, d, "usr/lib/initrd", newc(at, "init", "hello")+string(gzipped(t, newc(at, "bin/sh", "shell"))))
	}
	return map[string]string{
		"/usr/lib/changelog.gz": codeGzipTime, "/usr/lib/packed.xz": codeCompression, "/usr/lib/m.pyc": codePycTime, "/usr/lib/m.jar": codeZipTime,
		"/usr/lib/libm.a": codeArTime, "/usr/lib/main": codeBuildID, "/usr/lib/t.tar.gz": codeTarTime, "/usr/lib/initrd": codeCpioTime,
	}
}

// gzipped compresses without a time.
func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "gzip", "-n")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// newc is a cpio archive of one file.
func newc(at time.Time, name, text string) string {
	pad := func(s string) string { return s + strings.Repeat("\x00", (4-len(s)%4)%4) }
	member := func(name, text string, mode int, mtime int64) string {
		h := "070701"
		for _, f := range []int64{1, int64(mode), 0, 0, 1, mtime, int64(len(text)), 0, 0, 0, 0, int64(len(name)) + 1, 0} {
			h += fmt.Sprintf("%08X", f)
		}
		return pad(h+name+"\x00") + pad(text)
	}
	return member(name, text, 0o100644, at.Unix()) + member("TRAILER!!!", "", 0, 0)
}

func TestImages(t *testing.T) {
	needs.Programs(t, "mksquashfs", "xorriso", "tar")
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	want := plant(t, a, b)
	maps.Copy(want, special(t, a, b))
	settle(t, a, day)
	settle(t, b, day)
	os.Chtimes(filepath.Join(b, "etc/same"), day, day.Add(time.Minute))
	want["/etc/same"] = codeMtime
	for i, d := range []string{"a", "b"} {
		run(t, dir, "mksquashfs", d, d+".squashfs", "-all-root", "-no-progress", "-quiet", "-mkfs-time", "0", "-comp", "gzip")
		run(t, dir, "tar", "--sort=name", "-cf", d+".tar", "-C", d, ".")
		run(t, dir, "sh", "-c", "xz -1 -k "+d+".tar")
		run(t, dir, "xorriso", "-as", "mkisofs", "-quiet", "-R", fmt.Sprintf("--modification-date=202611221600%02d00", i), "-o", d+".iso", d)
	}
	for _, c := range []struct{ what, a, b string }{
		{"directories", "a", "b"}, {"squashfs", "a.squashfs", "b.squashfs"}, {"tar", "a.tar", "b.tar"}, {"tar, compressed", "a.tar", "b.tar.xz"}, {"iso", "a.iso", "b.iso"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := compare(t, filepath.Join(dir, c.a), filepath.Join(dir, c.b), Options{})
			got := codes(r)
			want := maps.Clone(want)
			switch c.what {
			case "tar, compressed":
				want["."] = codeCompression
			case "iso":
				want["."] = codeMtime
				delete(want, "/link/two") // xorriso writes it as two files
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("codes (-expected +found):\n%s", d)
			}
			if r.Verdict != "contents" || r.Exit != api.ExitVerify || r.Hint == "" {
				t.Errorf("verdict %s, exit %d, hint %q", r.Verdict, r.Exit, r.Hint)
			}
			same := compare(t, filepath.Join(dir, c.a), filepath.Join(dir, c.a), Options{})
			if same.Verdict != "equal" || same.Exit != 0 || len(same.Differences) != 0 {
				t.Errorf("the same twice: %+v", same)
			}
		})
	}
}

// The root file system of a live system is a SquashFS image in an ISO image. Its files
// are compared and explained like those of a separate image.
func TestImageInImage(t *testing.T) {
	needs.Programs(t, "mksquashfs", "xorriso")
	dir := t.TempDir()
	files := map[string][2]string{
		"etc/hostname":                    {"alpha\n", "beta-02\n"},
		"etc/motd":                        {"welcome to alpha\n", "welcome to beta-02\n"},
		"usr/bin/tool":                    {"one\n", "two\n"},
		"usr/share/date":                  {"2026-11-22\n", "2026-11-23\n"},
		"var/lib/dpkg/status":             {"Package: tool\nStatus: install ok installed\nVersion: 1\n", "Package: tool\nStatus: install ok installed\nVersion: 2\n"},
		"var/lib/dpkg/info/tool.list":     {"/.\n/bin/tool\n/usr/share/date\n", "/.\n/bin/tool\n/usr/share/date\n"},
		"var/lib/dpkg/info/tool.md5sums":  {"same", "same"},
		"var/lib/dpkg/info/other.md5sums": {"same", "same"},
	}
	for i, d := range []string{"a", "b"} {
		for name, text := range files {
			put(t, dir, "root-"+d+"/"+name, text[i])
		}
		settle(t, filepath.Join(dir, "root-"+d), day)
		put(t, dir, d+"/live/vmlinuz", "kernel")
		run(t, dir, "mksquashfs", "root-"+d, d+"/live/filesystem.squashfs", "-all-root", "-no-progress", "-quiet", "-mkfs-time", "0", "-comp", "gzip")
		settle(t, filepath.Join(dir, d), day)
		run(t, dir, "xorriso", "-as", "mkisofs", "-quiet", "-R", "--modification-date=2026112216000000", "-o", d+".iso", d)
	}
	const inner = "/live/filesystem.squashfs/"
	r := compare(t, filepath.Join(dir, "a.iso"), filepath.Join(dir, "b.iso"), Options{Explain: inner + "/usr/bin/tool"})
	want := map[string]string{
		inner + "/etc/hostname": codeHostName, inner + "/etc/motd": codeHostName, inner + "/usr/bin/tool": codeContents, inner + "/usr/share/date": codeDate,
		inner + "/var/lib/dpkg/status": codeContents,
	}
	if d := cmp.Diff(want, codes(r)); d != "" {
		t.Errorf("codes (-expected +found):\n%s", d)
	}
	if d := cmp.Diff([]api.ComparePackage{{Package: "tool", A: "1", B: "2", Paths: 2, Codes: []string{codeContents, codeDate}}}, r.Packages); d != "" {
		t.Errorf("packages (-expected +found):\n%s", d)
	}
	if r.Explained == nil || !strings.Contains(r.Explained.Text, "-one\n+two\n") {
		t.Errorf("explained: %+v", r.Explained)
	}
}

func TestLayout(t *testing.T) {
	needs.Programs(t, "mksquashfs")
	dir := t.TempDir()
	for i := range 30 {
		put(t, dir, fmt.Sprintf("tree/f%02d", i), strings.Repeat(fmt.Sprint(i, " text "), 2000*(i+1)))
	}
	settle(t, filepath.Join(dir, "tree"), day)
	image := func(name string, args ...string) string {
		run(t, dir, "mksquashfs", append([]string{"tree", name, "-all-root", "-no-progress", "-quiet", "-no-exports"}, args...)...)
		return filepath.Join(dir, name)
	}
	base := image("base", "-mkfs-time", "0", "-comp", "gzip")
	for _, c := range []struct {
		name   string
		args   []string
		code   string
		detail string
	}{
		{"time", []string{"-mkfs-time", "1", "-comp", "gzip"}, codeMtime, "superblock: modification time"},
		{"xz", []string{"-mkfs-time", "0", "-comp", "xz"}, codeCompression, "superblock: compressor"},
		{"level", []string{"-mkfs-time", "0", "-comp", "gzip", "-Xcompression-level", "1"}, codeCompression, "compressor options"},
		{"block", []string{"-mkfs-time", "0", "-comp", "gzip", "-b", "65536"}, codeLayout, "superblock: block size"},
		{"fragments", []string{"-mkfs-time", "0", "-comp", "gzip", "-no-fragments"}, codeLayout, "superblock: flags"},
	} {
		r := compare(t, base, image(c.name, c.args...), Options{})
		if r.Verdict != "layout" || len(r.Differences) != 1 || r.Exit != api.ExitVerify {
			t.Errorf("%s: %+v", c.name, r)
			continue
		}
		if !slices.ContainsFunc(r.Differences[0].Causes, func(k api.CompareCause) bool { return k.Code == c.code && k.Detail == c.detail }) {
			t.Errorf("%s: expected %s %s, found %+v", c.name, c.code, c.detail, r.Differences[0].Causes)
		}
	}
}

// tarOf is a tar archive of regular files with their names as content.
func tarOf(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Size, h.ModTime, h.Typeflag = int64(len(h.Name)), day, tar.TypeReg
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(h.Name))
	}
	w.Close()
	name := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTarMetadata(t *testing.T) {
	base := []tar.Header{{Name: "a", Mode: 0o644}, {Name: "b", Mode: 0o644}, {Name: "c", Mode: 0o755}}
	edit := func(fn func(h []tar.Header)) []tar.Header {
		h := slices.Clone(base)
		fn(h)
		return h
	}
	for _, c := range []struct {
		what string
		h    []tar.Header
		want map[string]string
	}{
		{"owner", edit(func(h []tar.Header) { h[1].Uid = 7 }), map[string]string{"/b": codeOwner}},
		{"name of the owner", edit(func(h []tar.Header) { h[1].Uname = "x" }), map[string]string{"/b": codeOwner}},
		{"xattr", edit(func(h []tar.Header) { h[0].PAXRecords = map[string]string{"SCHILY.xattr.user.x": "1"} }), map[string]string{"/a": codeXattr}},
		{"order", edit(func(h []tar.Header) { h[0], h[1] = h[1], h[0] }), map[string]string{".": codeInodeOrder}},
		{"umask", edit(func(h []tar.Header) { h[0].Mode, h[1].Mode, h[2].Mode = 0o600, 0o600, 0o700 }), map[string]string{"/a": codeUmask, "/b": codeUmask, "/c": codeUmask}},
		{"mode", edit(func(h []tar.Header) { h[0].Mode = 0o600 }), map[string]string{"/a": codeMode}},
	} {
		r := compare(t, tarOf(t, base...), tarOf(t, c.h...), Options{})
		if d := cmp.Diff(c.want, codes(r)); d != "" {
			t.Errorf("%s (-expected +found):\n%s", c.what, d)
		}
	}
}

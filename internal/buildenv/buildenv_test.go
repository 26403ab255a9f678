package buildenv

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/needs"
)

func TestMain(m *testing.M) {
	Helper()
	code := m.Run()
	if rootFile != "" {
		os.Remove(rootFile)
	}
	os.Exit(code)
}

// rootFile is the root that testRoot made.
var rootFile string

var epoch = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

// programs are the programs of this machine in the root of the tests.
var programs = []string{"bash", "cat", "chmod", "chown", "date", "id", "ln", "ls", "mkdir", "mkfifo", "nproc", "sleep", "touch", "unshare", "mount", "umount"}

var libraryPath = regexp.MustCompile(`/\S+`)

// testRoot makes a root from programs of this machine and their libraries, only once.
func testRoot(t *testing.T) string {
	t.Helper()
	if rootFile != "" {
		return rootFile
	}
	files := map[string]string{} // in the root: on this machine
	for _, p := range programs {
		path := needs.Program(t, p)
		files["bin/"+p] = path
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			needs.Missing(t, "ldd %s: %v", path, err)
		}
		for _, lib := range libraryPath.FindAllString(string(out), -1) {
			files[lib[1:]] = lib
		}
	}
	f, err := os.CreateTemp("", "root-*.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, d := range []string{"proc/", "dev/", "tmp/", "etc/", "etc/apt/"} {
		w.WriteHeader(&tar.Header{Name: "./" + d, Typeflag: tar.TypeDir, Mode: 0o755})
	}
	add := func(name string, text []byte) {
		w.WriteHeader(&tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text)), Uid: 7})
		w.Write(text)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(files[name])
		if err != nil {
			t.Fatal(err)
		}
		add(name, text)
	}
	add("etc/passwd", []byte("root:x:0:0:root:/root:/bin/bash\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rootFile = f.Name()
	return rootFile
}

// run is an environment of a test.
type run struct {
	Config
	out, errs bytes.Buffer // bash warns on errs if the locale does not exist
}

func newRun(t *testing.T, s Settings, script string) *run {
	t.Helper()
	if err := Check(t.Context()); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	r := &run{}
	r.Config = Config{
		Root: testRoot(t), WorkDir: filepath.Join(dir, "work"), Output: filepath.Join(dir, "output"), Sources: "Types: deb\n",
		Command: []string{"bash", "-c", script}, Settings: s, Stdout: &r.out, Stderr: &r.errs, Handler: http.NotFoundHandler(),
	}
	for _, d := range []string{r.WorkDir, r.Output} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := Remove(r.WorkDir); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(r.WorkDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %s, %v", r.WorkDir, err)
		}
	})
	return r
}

// do runs it and checks its exit status.
func (r *run) do(t *testing.T, want int) string {
	t.Helper()
	got, err := Run(t.Context(), r.Config)
	if err != nil || got != want {
		t.Fatalf("exit status %d, expected %d: %v\n%s%s", got, want, err, r.out.String(), r.errs.String())
	}
	return r.out.String()
}

const describe = `set -e
echo "$(umask) $(< /proc/sys/kernel/hostname) $(id -un) $(id -u) $(id -G) $(nproc) $PWD $(pwd -P) $HOME $TZ $LC_ALL $SOURCE_DATE_EPOCH"
cd /build; pwd -P
[ -w . ]; [ ! -e /sys/class ]; [ "$(< /etc/hostname)" = "$(< /proc/sys/kernel/hostname)" ]
ls /proc | while read p; do case $p in [0-9]*) [ "$p" -lt 100 ] || echo "process $p of the machine";; esac; done
read x && echo "input $x"
ls -n /bin/bash | { read m l u g rest; echo $u; }
echo x > /dev/null; [ -c /dev/urandom ]; [ -d /proc/self/fd ]
echo "$(< /etc/apt/sources.list.d/snapd.sources)"`

// The command sees the same settings on every machine, and varied ones in the second
// run of a check.
func TestSettings(t *testing.T) {
	first := NewSettings(epoch, 1, false)
	want := "0022 localhost root 0 0 1 /build /build /root UTC C.UTF-8 1795363200\n/build\n7\nTypes: deb\n"
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("SECRET", "x")
	if d := cmp.Diff(want, newRun(t, first, describe).do(t, 0)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	second, varied, same := first.Vary(Machine{CPUs: 1, Forward: errors.New("no FUSE here")})
	want = "0002 other-host other 0 0 1 /other/path/of/the/build /other/path/of/the/build /home/other GMT-14 C 1795363200\n/other/path/of/the/build\n7\nTypes: deb\n"
	if d := cmp.Diff(want, newRun(t, second, describe).do(t, 0)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if len(varied) < 8 || len(same) != 2 || same[1] != "order of directories: no FUSE here" {
		t.Errorf("varied %v, not %v", varied, same)
	}
	for _, v := range varied {
		if v.First == v.Second {
			t.Errorf("%+v", v)
		}
	}
}

func TestExitStatus(t *testing.T) {
	s := NewSettings(epoch, 1, false)
	newRun(t, s, "exit 7").do(t, 7)
	newRun(t, s, "kill -TERM $$").do(t, 128+15)
	// Run returns even if processes of the command still run.
	newRun(t, s, "sleep 100001 & exit 3").do(t, 3)
	r := newRun(t, s, "")
	r.Command = []string{"no-such-command"}
	r.do(t, NotFound)
	if got, want := r.errs.String(), "no-such-command: not found in the environment\n"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
	r = newRun(t, s, "")
	r.Command = []string{"/etc"}
	r.do(t, NotExecutable)
}

// The command can only reach the server through the forwarder.
func TestNetwork(t *testing.T) {
	var mu = make(chan struct{}, 1)
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu <- struct{}{}
		asked = append(asked, r.Method+" "+r.URL.Path)
		<-mu
		io.WriteString(w, "package")
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := NewForwarder(u, []string{"/frozen/4.1"})
	script := `ask() { exec 3<>/dev/tcp/127.0.0.1/8080 && printf '%s HTTP/1.0\r\n\r\n' "$1" >&3 && read -r -u 3 line && echo "$1: ${line:9:3}"; exec 3<&-; }
ask "GET /frozen/4.1/debian/hello.deb"
ask "HEAD /frozen/4.1/debian/hello.deb"
ask "POST /frozen/4.1/debian/hello.deb"
ask "GET /frozen/4.0/debian/hello.deb"
ask "GET /frozen/4.1/../4.0/hello.deb"
ask "GET /frozen/4.1/%2e%2e/4.0/hello.deb"
ask "GET /archive/debian/latest/"
ask "GET /api/v1/status"
ask "GET http://mirror.example.org/frozen/4.1/x"
(exec 3<>/dev/tcp/127.0.0.1/` + u.Port() + `) 2>/dev/null || echo no machine
(exec 3<>/dev/tcp/192.0.2.1/80) 2>/dev/null || echo no network`
	r := newRun(t, NewSettings(epoch, 1, false), script)
	r.Handler = f
	want := `GET /frozen/4.1/debian/hello.deb: 200
HEAD /frozen/4.1/debian/hello.deb: 200
POST /frozen/4.1/debian/hello.deb: 405
GET /frozen/4.0/debian/hello.deb: 403
GET /frozen/4.1/../4.0/hello.deb: 403
GET /frozen/4.1/%2e%2e/4.0/hello.deb: 403
GET /archive/debian/latest/: 403
GET /api/v1/status: 403
GET http://mirror.example.org/frozen/4.1/x: 403
no machine
no network
`
	if d := cmp.Diff(want, r.do(t, 0)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"GET /frozen/4.1/debian/hello.deb", "HEAD /frozen/4.1/debian/hello.deb"}, asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"/frozen/4.1/debian/hello.deb": "bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a"}, f.Fetched()); d != "" {
		t.Errorf("fetched (-want +got):\n%s", d)
	}
}

// A package is always fetched whole, so that its digest can be recorded; an index may
// be fetched in parts.
func TestForwardParts(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", epoch, strings.NewReader("package"))
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := NewForwarder(u, []string{"/frozen/4.1"})
	sum := "bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a" // of "package"
	want := map[string]string{}
	for p, status := range map[string]int{
		"/frozen/4.1/debian/pool/h/hello.deb": 200, "/frozen/4.1/debian/pool/h/hello.tar.xz": 200, "/frozen/4.1/flat/hello.udeb": 200, "/frozen/4.1/flat/hello.dsc": 200,
		"/frozen/4.1/debian/dists/sid/Release": 206, "/frozen/4.1/debian/pool/": 206,
	} {
		r := httptest.NewRequest("GET", p, nil)
		r.URL.Host = ""
		r.Header.Set("Range", "bytes=3-")
		r.Header.Set("If-Range", epoch.Format(http.TimeFormat))
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if w.Code != status || (status == 200) != (w.Body.String() == "package") {
			t.Errorf("%s: %d %q, expected %d", p, w.Code, w.Body, status)
		}
		if status == 200 {
			want[p] = sum
		}
	}
	if d := cmp.Diff(want, f.Fetched()); d != "" {
		t.Errorf("fetched (-want +got):\n%s", d)
	}
}

// The last fetched file is recorded before Run returns.
func TestLastAnswer(t *testing.T) {
	r := newRun(t, NewSettings(epoch, 1, false), `exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && read -r -u 3 line`)
	var ended atomic.Bool
	r.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "answer")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		time.Sleep(100 * time.Millisecond)
		ended.Store(true)
	})
	r.do(t, 0)
	if !ended.Load() {
		t.Error("the answer has not ended")
	}
}

// The command cannot change the directory of the sources. It can write outputs, which
// belong to the user.
func TestDirectories(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "a"), []byte("source"), 0o666); err != nil {
		t.Fatal(err)
	}
	r := newRun(t, NewSettings(epoch, 1, false), `set -e
cat /src/a > /output/a
! touch /src/b 2>/dev/null
! mount -o remount,bind,rw /src 2>/dev/null
! unshare --user --map-root-user --mount bash -c 'mount -o remount,bind,rw /src' 2>/dev/null
mkdir -p /output/dir/sub; echo x > /output/dir/sub/x; chmod 755 /output/dir/sub/x; ln -s ../a /output/dir/link
chown -R 7:8 /output/dir; chmod 0 /output/dir/sub/x /output/dir/sub
echo x > /output/set; chmod 6755 /output/set; chmod 7777 /output/dir; chmod 3755 /output`)
	r.Bind = src
	r.do(t, 0)
	got, err := Outputs(r.Output, OutputDir)
	if err != nil {
		t.Fatal(err)
	}
	sum := "41cf6794ba4200b839c53531555f0f3998df4cbb01a4d5cb0b94e3ca5e23947d" // of "source"
	x := "73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac"   // of "x\n"
	want := []Output{
		{Path: "a", Kind: File, Size: 6, SHA256: sum},
		{Path: "dir", Kind: Directory}, {Path: "dir/link", Kind: Link, Target: "../a"}, {Path: "dir/sub", Kind: Directory},
		{Path: "dir/sub/x", Kind: File, Size: 2, SHA256: x},
		{Path: "set", Kind: File, Executable: true, Size: 2, SHA256: x},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// Outside, programs do not run with another user's rights.
	for p, want := range map[string]os.FileMode{"set": 0o755, "dir": os.ModeDir | 0o777, ".": os.ModeDir | 0o755} {
		if st, err := os.Lstat(filepath.Join(r.Output, p)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v, expected %v", p, st.Mode(), err, want)
		}
	}
	if entries, _ := os.ReadDir(src); len(entries) != 1 {
		t.Errorf("%v in the sources", entries)
	}
	fifo := newRun(t, NewSettings(epoch, 1, false), "mkfifo /output/p")
	fifo.do(t, 0)
	if _, err := Outputs(fifo.Output, OutputDir); !errors.Is(err, ErrOutput) || !strings.HasPrefix(err.Error(), "/output/p: ") {
		t.Errorf("%v", err)
	}
}

// If user 0 of the environment is user 0 of the machine, capabilities that a program
// gets would also be valid on the machine.
func TestCapabilities(t *testing.T) {
	needs.Root(t, "to give a program capabilities")
	p := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(p, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	const name = "security.capability"
	if err := unix.Setxattr(p, name, append([]byte{1, 0, 0, 2, 0xff}, make([]byte, 15)...), 0); err != nil {
		needs.Missing(t, "set capabilities: %v", err)
	}
	if err := giveOutputs(filepath.Dir(p)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Getxattr(p, name, nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("it has capabilities: %v", err)
	}
}

// Even user 0 of the machine cannot change the machine's settings in an environment,
// also not through new namespaces. The test writes nothing if that is possible.
func TestMachine(t *testing.T) {
	script := `for f in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger; do
	[ ! -e $f ] || [ ! -w $f ] && ! (: > $f) 2>/dev/null || echo "$f can be written"
done
[ -e /proc/sys/kernel/core_pattern ] || echo no settings
try() { unshare --user --map-root-user --mount --pid --fork "$@" 2>/dev/null; }
try mount -t tmpfs tmpfs /tmp || echo no namespaces
! try mount -t proc proc /proc || echo proc is mounted
! try mount -t proc proc /tmp || echo proc is mounted elsewhere
! try mount --bind /proc /tmp || echo proc is shown elsewhere
! try umount /proc/sys || echo proc is uncovered
! try mount -o remount,bind,rw /proc/sys || echo settings are writable`
	if got := newRun(t, NewSettings(epoch, 1, false), script).do(t, 0); got != "" {
		t.Error(got)
	}
}

// An interrupt ends all processes.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sleep := fmt.Sprint("sleep 1", os.Getpid(), "000") // unique to this test
	r := newRun(t, NewSettings(epoch, 1, false), `trap "" TERM; `+sleep+` & touch /build/busy; chown -R 7 /build; chmod 700 /build; echo started; while :; do sleep 1; done`)
	started := make(chan struct{}, 1)
	r.Stdout = writerFunc(func(p []byte) (int, error) {
		select {
		case started <- struct{}{}:
		default:
		}
		return len(p), nil
	})
	go func() {
		<-started
		cancel()
	}()
	if _, err := Run(ctx, r.Config); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	out, err := exec.Command("ps", "-eo", "args").Output()
	if err == nil && bytes.Contains(out, []byte(sleep)) {
		t.Errorf("processes are left:\n%s", out)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil || bytes.Contains(mounts, []byte(r.WorkDir)) {
		t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCompare(t *testing.T) {
	file := func(p, sum string, x bool) Output {
		return Output{Path: p, Kind: File, SHA256: sum, Executable: x}
	}
	a := []Output{file("a", "1", false), file("b", "1", false), file("c", "1", false), {Path: "d", Kind: Directory}, {Path: "l", Kind: Link, Target: "a"}}
	b := []Output{file("a", "1", false), file("b", "2", false), file("c", "1", true), file("e", "1", false), {Path: "l", Kind: Link, Target: "b"}}
	want := []Difference{
		{"b", "sha256:1", "sha256:2"}, {"c", "sha256:1", "executable sha256:1"}, {"d", "directory", ""}, {"e", "", "sha256:1"}, {"l", "link to a", "link to b"},
	}
	if d := cmp.Diff(want, Compare(a, b)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := Compare(a, a); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// Equal runs have equal records.
func TestStatement(t *testing.T) {
	r := Record{
		Ref: "stable", Name: "4.1", Digests: []Input{{Name: "freeze 4.1", SHA256: "ab"}}, Command: []string{"make"}, Jobs: 1,
		Installed: []Input{{Name: "bash_5_amd64", URI: "pkg:deb/debian/bash@5?arch=amd64", SHA256: "cd"}},
		Fetched:   map[string]string{"/frozen/4.1/b.deb": "2", "/frozen/4.1/a.deb": "1"},
		Settings:  NewSettings(epoch, 1, true), Outputs: []Output{{Path: "hello", Kind: File, SHA256: "ef"}, {Path: "d", Kind: Directory}},
		Tools: map[string]string{"apt": "2.6.1"}, Check: true, Reproducible: true,
	}
	first, err := r.Statement()
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Statement()
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("%v\n%s\n%s", err, first, again)
	}
	for _, want := range []string{
		`"_type":"https://in-toto.io/Statement/v1"`, `"predicateType":"https://slsa.dev/provenance/v1"`,
		`"subject":[{"digest":{"sha256":"ef"},"name":"hello"}]`, `{"digest":{"sha256":"1"},"name":"/frozen/4.1/a.deb"},{"digest":{"sha256":"2"},"name":"/frozen/4.1/b.deb"}`,
		`"annotations":{"exit":0,"reproducible":true}`, `"clock":"2026-11-22T16:00:00Z"`, `"SOURCE_DATE_EPOCH":"1795363200"`,
	} {
		if !strings.Contains(string(first), want) {
			t.Errorf("no %s in\n%s", want, first)
		}
	}
}

// The lack of user namespaces is reported before anything is made.
func TestNoNamespaces(t *testing.T) {
	if os.Getenv("BUILDENV_CHECK") != "" {
		err := Check(t.Context())
		fmt.Println("found:", err, errors.Is(err, ErrNamespaces))
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"`, "sh", self, "-test.run=^TestNoNamespaces$")
	cmd.Env = append(os.Environ(), "BUILDENV_CHECK=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("%v: %s", err, out)
	}
	if text := string(out); !strings.Contains(text, "the kernel's setting user.max_user_namespaces is 0, expected more") || !strings.Contains(text, "true") {
		t.Errorf("%s", text)
	}
}

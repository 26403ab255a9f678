package story

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/needs"
)

// A command runs in an environment made from a freeze. In it, apt installs from the
// freeze, and nothing else can be reached. Two runs give the same bytes, --check finds
// output that depends on the environment, and no files or mounts are left behind. Long
// because each step depends on the one before.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds root file systems")
	}
	needs.Programs(t, "mmdebstrap", "apt-get", "gpgv")
	if err := buildenv.Check(t.Context()); err != nil {
		t.Skip(err)
	}
	m := thisMachine(t)
	s := start(t, m.Config)
	s.Ctl("sync")
	s.record(t, "4.1", false, "?essential", "apt", "hello")
	s.Ctl("freeze", "4.1", "--no-sources")
	m.Gone.Store(true)
	tmp, src := t.TempDir(), t.TempDir()
	for _, d := range []string{tmp, src, filepath.Dir(tmp)} {
		os.Chmod(d, 0o755)
	}
	t.Setenv("TMPDIR", tmp)
	if err := os.WriteFile(filepath.Join(src, "greeting"), []byte("hello from /src\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(s.Addr, ":")
	write := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "/src/" + name
	}
	clean := write("clean", `set -e
apt-get update -qq
apt-get install -qq hello > /dev/null
hello > /output/hello
cp /src/greeting /output
tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner --mode=go=rX -cf /output/files.tar -C /src greeting
ask() { exec 3<>/dev/tcp/127.0.0.1/8080; printf '%s HTTP/1.0\r\n\r\n' "$1" >&3; read -r -u 3 line; echo "$1: ${line:9:3}"; exec 3<&-; }
{
	ask "GET /frozen/4.1/manifest.json"
	ask "POST /frozen/4.1/manifest.json"
	ask "GET /frozen/4.0/manifest.json"
	ask "GET /archive/debian/latest/dists/"
	ask "GET /"
	(exec 3<>/dev/tcp/127.0.0.1/`+port+`) 2>/dev/null || echo the server itself cannot be reached
} > /output/network
`)
	one := filepath.Join(s.Dir, "one")
	var r api.RunResult
	s.JSON(&r, "run", "4.1", "--bind", src, "--output", one, "--check", "--", "bash", clean)
	if r.Check == nil || !r.Check.Equal || r.Status != 0 || len(r.Outputs) != 4 || len(r.Check.Varied) < 8 {
		t.Errorf("a clean build: %+v", r)
	}
	want := "GET /frozen/4.1/manifest.json: 200\nPOST /frozen/4.1/manifest.json: 405\nGET /frozen/4.0/manifest.json: 403\n" +
		"GET /archive/debian/latest/dists/: 403\nGET /: 403\nthe server itself cannot be reached\n"
	if b, err := os.ReadFile(filepath.Join(one, "network")); err != nil || string(b) != want {
		t.Errorf("%v\n%s\nexpected\n%s", err, b, want)
	}
	var frozen api.ShowResult
	s.JSON(&frozen, "show", "4.1")
	record, err := os.ReadFile(filepath.Join(one, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`{"digest":{"sha256":"` + frozen.Frozen.Manifest + `"},"name":"freeze 4.1"}`, `"name":"files.tar"`, "pkg:deb/debian/bash@", "/hello_", fmt.Sprintf(`"SOURCE_DATE_EPOCH":"%d"`, frozen.Frozen.Date.Unix()),
	} {
		if !bytes.Contains(record, []byte(text)) {
			t.Errorf("the record has no %s:\n%s", text, record)
		}
	}
	for _, text := range []string{s.Dir, tmp, src, s.Addr} {
		if bytes.Contains(record, []byte(text)) {
			t.Errorf("the record has %s", text)
		}
	}

	// A command whose output depends on the environment.
	three := filepath.Join(s.Dir, "three")
	for i := range 20 { // in reverse, because some file systems list the newest file first
		write(fmt.Sprintf("file%02d", 19-i), "")
	}
	_, err = s.Try("run", "4.1", "--bind", src, "--output", three, "--check", "--", "bash", "-c", `cd /output
ls -U /src > order
date +%N > date; umask > umask; cat /proc/sys/kernel/hostname > hostname; pwd -P > cwd; (cd /build; pwd -P > /output/path); date -d @0 > zone; whoami > user; echo same > same`)
	if code(err) != api.ExitVerify {
		t.Fatalf("planted differences: exit %d, expected %d: %v", code(err), api.ExitVerify, err)
	}
	var differ []string
	entries, err := os.ReadDir(filepath.Join(three, buildenv.SecondName))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		differ = append(differ, e.Name())
	}
	ordered := ""
	if err := buildenv.DirectoryOrder(); err != nil {
		t.Logf("the order of directories is not varied: %v", err)
	} else {
		ordered = "order "
		want := []string{"greeting", "clean"}
		for i := range 20 {
			want = append(want, fmt.Sprintf("file%02d", i))
		}
		slices.Sort(want)
		slices.Reverse(want)
		b, err := os.ReadFile(filepath.Join(three, buildenv.SecondName, "order"))
		if got := strings.Fields(string(b)); err != nil || !slices.Equal(got, want) {
			t.Errorf("order of a directory in the second run: %q, %v, expected %q", got, err, want)
		}
	}
	if got := strings.Join(differ, " "); got != "date hostname "+ordered+"path umask user zone" {
		t.Errorf("differences in %s", got)
	}

	// Refused arguments, and the exit status of the command.
	for want, args := range map[string][]string{
		"no-such-package: not in it: 4.1": {"run", "4.1", "--package", "no-such-package", "--output", filepath.Join(s.Dir, "four"), "--", "true"},
		"5.0":                             {"run", "5.0", "--", "true"},
		"expected a new or empty":         {"run", "4.1", "--output", one, "--", "true"},
	} {
		if _, err := s.Try(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("snapctl %s: %v, expected %s", strings.Join(args, " "), err, want)
		}
	}

	// Interrupt snapctl while the command runs.
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	four := filepath.Join(s.Dir, "four")
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "snapctl"), "run", "4.1", "--output", four, "--", "sh", "-c", "touch /output/x; echo started; sleep 100002")
	cmd.Env = append(os.Environ(), "SNAPCTL_SOCKET="+filepath.Join(s.Dir, "data/snapd.sock"))
	cmd.Stdout = interruptor{cmd}
	if err := cmd.Run(); code(err) != api.ExitInterrupted {
		t.Errorf("interrupted: %v, expected exit %d", err, api.ExitInterrupted)
	}
	if _, err := os.Lstat(four); err == nil {
		t.Errorf("%s is left", four)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in TMPDIR: %v, %v", left, err)
	}
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || bytes.Contains(mounts, []byte(tmp)) {
		t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
}

// interruptor is the standard output of a program. It sends SIGINT to the program when
// the program prints something.
type interruptor struct{ cmd *exec.Cmd }

func (i interruptor) Write(p []byte) (int, error) {
	i.cmd.Process.Signal(syscall.SIGINT)
	return len(p), nil
}

package story

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/iuk"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// A kit between two releases of this machine's distribution. The first is recorded,
// frozen and built from the distribution's initial release, the second from the same
// with updates and other packages. The kit has the same bytes regardless of who makes it
// and where. The kernel shows the new image if the kit is mounted over the old one, the
// files that advertise it are signed, and it can be applied to a stick. Long because each
// step depends on the one before.
func TestKitsBetweenReleases(t *testing.T) {
	if testing.Short() {
		t.Skip("builds root file systems")
	}
	needs.Programs(t, "mmdebstrap", "apt-get", "gpgv", "gpg")
	m := thisMachine(t)
	s := start(t, m.Config)
	s.Ctl("sync")
	s.record(t, "4.0", false, "?essential", "openssl", "hello")
	s.record(t, "4.1", true, "?essential", "openssl", "iputils-ping")
	m.Gone.Store(true)

	// The images are in a directory that another user can read.
	dir, err := os.MkdirTemp("", "snapd-kits-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for version, include := range map[string]string{"4.0": "openssl,hello", "4.1": "openssl,iputils-ping"} {
		s.Ctl("freeze", version, "--no-sources")
		s.Ctl("image", "build", version, "--variant", "essential", "--include", include, "--output", at(version+".squashfs"))
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	// The directory of the compiled programs is readable only by its owner.
	snapctl := at("snapctl")
	squashfstest.Run(t, "cp", filepath.Join(bin, "snapctl"), snapctl)

	// Create needs no external program, so PATH is empty in all of them.
	type surroundings struct {
		name, output, umask string
		env, args           []string
		user                uint32
	}
	create := func(t *testing.T, c surroundings) string {
		t.Helper()
		if c.umask == "" {
			c.umask = "022"
		}
		if c.output == "" {
			c.output = t.TempDir()
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `umask "$1"; shift; exec "$@"`, "sh", c.umask, snapctl, "iuk", "create", "--output", c.output}, c.args...)...)
		cmd.Env = append([]string{"PATH=/nonexistent", "SNAPCTL_SOCKET=" + filepath.Join(s.Dir, "data/snapd.sock")}, c.env...)
		cmd.Dir = dir
		if c.user != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.user, Gid: c.user}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.name, err, out)
		}
		return digestOf(t, filepath.Join(c.output, "Tails_amd64_4.0_to_4.1.iuk"))
	}
	named := []string{"--from", "4.0", "--to", "4.1"}
	filed := []string{"--old", at("4.0.squashfs"), "--new", at("4.1.squashfs"), "--from-version", "4.0", "--to-version", "4.1"}
	kit := at("Tails_amd64_4.0_to_4.1.iuk")

	t.Run("same bytes everywhere", func(t *testing.T) {
		tmp := t.TempDir()
		cases := []surroundings{
			{name: "plain", output: dir, args: named},
			{name: "TMPDIR, TZ, locale", args: named, env: []string{"TMPDIR=" + tmp, "TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8"}},
			{name: "umask, one core", args: named, umask: "077", env: []string{"GOMAXPROCS=1"}},
			{name: "many cores, little memory", args: named, env: []string{"GOMAXPROCS=7", "GOMEMLIMIT=20MiB"}},
		}
		for _, other := range []string{"/dev/shm", "/var/tmp"} { // in memory and, mostly, on a disk
			if output, err := os.MkdirTemp(other, "snapd-kits-"); err == nil {
				t.Cleanup(func() { os.RemoveAll(output) })
				cases = append(cases, surroundings{name: other, args: named, output: output})
			}
		}
		var want string
		for _, c := range cases {
			got := create(t, c)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%s: SHA-256 %s, expected %s", c.name, got, want)
			}
		}
		if left, _ := os.ReadDir(tmp); len(left) > 0 {
			t.Errorf("left in TMPDIR: %v", left)
		}
		// A kit made from files does not contain the provenance of the snapshots.
		files := create(t, surroundings{name: "from files", args: filed})
		if os.Getuid() == 0 {
			theirs, err := os.MkdirTemp("", "snapd-kits-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(theirs) })
			if err := os.Chown(theirs, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			if got := create(t, surroundings{name: "another user", args: filed, output: theirs, user: 65534}); got != files {
				t.Errorf("another user: SHA-256 %s, expected %s", got, files)
			}
		}
	})

	t.Run("verify", func(t *testing.T) {
		var rep iuk.VerifyReport
		s.JSON(&rep, "iuk", "verify", kit, "--old", at("4.0.squashfs"), "--new", at("4.1.squashfs"))
		if rep.Names == 0 || rep.FromKit == 0 || rep.FromKit >= rep.Names || rep.Whiteouts == 0 || rep.Ignored != 0 {
			t.Errorf("%+v", rep)
		}
		if _, err := s.Try("iuk", "verify", kit, "--old", at("4.1.squashfs"), "--new", at("4.1.squashfs")); code(err) != api.ExitVerify {
			t.Errorf("a wrong base: exit %d, expected %d: %v", code(err), api.ExitVerify, err)
		}
		if _, err := s.Try("iuk", "verify", kit, "--old", at("4.0.squashfs"), "--new", at("4.0.squashfs")); code(err) != api.ExitVerify {
			t.Errorf("a wrong new image: exit %d, expected %d: %v", code(err), api.ExitVerify, err)
		}
	})

	t.Run("inspect", func(t *testing.T) {
		var in iuk.Inspection
		s.JSON(&in, "iuk", "inspect", kit)
		if in.Format != "2" || in.Provenance == nil || len(in.Diffs) != 1 {
			t.Fatalf("%+v", in)
		}
		d, p := in.Diffs[0], in.Provenance
		if d.Path != "overlay/live/4.1.squashfs" || !d.Known || len(d.Added) == 0 || len(d.Changed) == 0 {
			t.Errorf("%+v", d)
		}
		if !strings.Contains(strings.Join(d.Removed, "\n"), "usr/bin/hello") {
			t.Errorf("hello is not removed: %v", d.Removed)
		}
		for version, rec := range map[string]iuk.ImageRecord{"4.0": p.Base, "4.1": p.New} {
			var shown api.ShowResult
			s.JSON(&shown, "show", version)
			want := iuk.ImageRecord{Version: version, SHA256: rec.SHA256, Size: rec.Size, Manifest: shown.Frozen.Manifest}
			if rec != want || rec.SHA256.String() != digestOf(t, at(version+".squashfs")) {
				t.Errorf("provenance of %s: %+v, expected %+v", version, rec, want)
			}
			if version == "4.1" && p.Epoch != shown.Frozen.Date.Unix() {
				t.Errorf("epoch %d, frozen at %v", p.Epoch, shown.Frozen.Date)
			}
		}
	})

	t.Run("the kernel's overlay is the new image", func(t *testing.T) {
		lower, next := squashfstest.Mount(t, at("4.0.squashfs")), squashfstest.Mount(t, at("4.1.squashfs"))
		upper := squashfstest.Mount(t, filepath.Join(squashfstest.Mount(t, kit), "overlay/live/4.1.squashfs"))
		want := squashfstest.Dir(t, next)
		got := squashfstest.Dir(t, squashfstest.Overlay(t, upper, lower))
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("overlay and new image differ (-new +overlay):\n%s", d)
		}
		held := squashfstest.Dir(t, upper)
		ping := false
		for name, f := range held {
			if strings.Contains(f.Xattrs, "trusted.overlay") {
				t.Errorf("%s: %s", name, f.Xattrs)
			}
			if strings.HasSuffix(name, "/bin/ping") {
				ping = true
				if !strings.Contains(f.Xattrs, "security.capability=") {
					t.Errorf("%s has no capability in the kit: %+v", name, f)
				}
			}
		}
		if !ping {
			t.Error("ping is not in the kit")
		}
		if len(held) >= len(want) {
			t.Errorf("%d names in the kit, %d in the new image", len(held), len(want))
		}
	})

	t.Run("published", func(t *testing.T) {
		var kits api.KitList
		s.JSON(&kits, "iuk", "create", "--from", "4.0", "--to", "4.1", "--output", t.TempDir(), "--publish")
		if len(kits.Kits) != 1 || kits.Kits[0].URL != "/iuk/Tails_amd64_4.0_to_4.1.iuk" || kits.Kits[0].SHA256 != digestOf(t, kit) {
			t.Fatalf("%+v", kits)
		}
		udfs := t.TempDir()
		s.Ctl("iuk", "udf", "--config", s.Config, "--to", "4.1", "--from", "4.0", "--next", "4.2",
			"--product", "Tails", "--build-target", "amd64", "--channel", "stable", "--iuk-url", "http://"+s.Addr+"/iuk",
			"--image-url", "http://"+s.Addr+"/4.1.img", "--iuks", dir, "--image", at("4.1.squashfs"), "--output", udfs, "--publish")
		status, body := get(t, "http://"+s.Addr+kits.Kits[0].URL)
		if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(body))); status != 200 || sum != kits.Kits[0].SHA256 {
			t.Errorf("the kit served: status %d, SHA-256 %s", status, sum)
		}
		ring := filepath.Join(udfs, "ring.gpg")
		cmd := exec.Command("gpg", "--dearmor", "--output", ring)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+t.TempDir())
		cmd.Stdin = strings.NewReader(s.Ctl("key", "export"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gpg: %v: %s", err, out)
		}
		for version, offered := range map[string]bool{"4.0": true, "4.1": false, "4.2": false} {
			name := "v2/Tails/" + version + "/amd64/stable/upgrades.yml"
			status, text := get(t, "http://"+s.Addr+"/iuk/"+name)
			if status != 200 || strings.Contains(text, "Tails_amd64_4.0_to_4.1.iuk") != offered {
				t.Errorf("%s: status %d:\n%s", name, status, text)
			}
			if b, err := os.ReadFile(filepath.Join(udfs, name)); err != nil || string(b) != text {
				t.Errorf("%s on disk is not what is served: %v", name, err)
			}
			_, sig := get(t, "http://"+s.Addr+"/iuk/"+name+".pgp")
			sigFile := filepath.Join(udfs, "sig")
			if err := os.WriteFile(sigFile, []byte(sig), 0o644); err != nil {
				t.Fatal(err)
			}
			squashfstest.Run(t, "gpgv", "--keyring", ring, sigFile, filepath.Join(udfs, name))
			if offered && !strings.Contains(text, kits.Kits[0].SHA256) {
				t.Errorf("%s does not name the kit's digest:\n%s", name, text)
			}
		}
	})

	t.Run("apply", func(t *testing.T) {
		stick := t.TempDir()
		if err := os.Mkdir(filepath.Join(stick, "live"), 0o755); err != nil {
			t.Fatal(err)
		}
		base, module := filepath.Join(stick, "live/filesystem.squashfs"), filepath.Join(stick, "live/Tails.module")
		if err := os.WriteFile(module, []byte("filesystem.squashfs\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		squashfstest.Run(t, "cp", at("4.1.squashfs"), base)
		if _, err := s.Try("iuk", "apply", kit, "--target", stick); code(err) != api.ExitVerify {
			t.Errorf("a stick of 4.1: exit %d, expected %d: %v", code(err), api.ExitVerify, err)
		}
		squashfstest.Run(t, "cp", at("4.0.squashfs"), base)
		var res iuk.ApplyResult
		s.JSON(&res, "iuk", "apply", kit, "--target", stick)
		if d := cmp.Diff([]string{"live/4.1.squashfs"}, res.Added); d != "" {
			t.Errorf("added (-want +got):\n%s", d)
		}
		if b, err := os.ReadFile(module); string(b) != "filesystem.squashfs\n4.1.squashfs\n" {
			t.Errorf("Tails.module: %q, %v", b, err)
		}
		if got := digestOf(t, base); got != digestOf(t, at("4.0.squashfs")) {
			t.Errorf("the base image changed: SHA-256 %s", got)
		}
		// The kit is applied already, so applying it again does nothing.
		var again iuk.ApplyResult
		s.JSON(&again, "iuk", "apply", kit, "--target", stick)
		if len(again.Added)+len(again.Replaced)+len(again.Deleted) != 0 {
			t.Errorf("applied again: %+v", again)
		}
	})
}

// record starts a recording and builds a root file system with packages from this
// machine's Debian release through its proxy, with or without updates.
func (s *server) record(t *testing.T, name string, updates bool, include ...string) {
	t.Helper()
	s.Ctl("record", "start", name)
	var mirrors api.MirrorList
	s.JSON(&mirrors, "mirror", "list")
	var text bytes.Buffer
	for _, mi := range mirrors.Mirrors {
		var d api.MirrorDetail
		s.JSON(&d, "mirror", "show", mi.Name)
		if d.Type != "deb" {
			continue
		}
		var suites []string
		for _, su := range d.Suites {
			if updates || !strings.Contains(su.Suite, "-") {
				suites = append(suites, su.Suite)
			}
		}
		if len(suites) > 0 {
			fmt.Fprintf(&text, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n",
				d.URLs[0], strings.Join(suites, " "), strings.Join(d.Components, " "), strings.Join(d.Keyring, " "))
		}
	}
	mode := "root"
	if os.Getuid() != 0 {
		mode = "unshare"
	}
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", "--quiet", "--mode="+mode, "--variant=extract",
		"--format=null", fmt.Sprintf(`--aptopt=Acquire::http::Proxy "http://%s@%s/"`, name, s.Addr))
	for _, p := range include { // patterns cannot be in a list
		cmd.Args = append(cmd.Args, "--include="+p)
	}
	cmd.Args = append(cmd.Args, "", "/dev/null", "-")
	cmd.Stdin = &text
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s\n%s", err, out, s.Log())
	}
	var rec api.Recording
	s.JSON(&rec, "record", "show", name)
	if rec.Files == 0 {
		t.Fatalf("the recording %s is empty", name)
	}
	s.Ctl("record", "stop", name)
}

func digestOf(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

package story

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// snapd runs a command of snapd, such as backup, with the server's configuration.
func (s *server) snapd(args ...string) (string, error) {
	s.t.Helper()
	cmd := s.command(args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), &ctlError{err, errs.String()}
	}
	return out.String(), nil
}

func (s *server) command(args ...string) *exec.Cmd {
	s.t.Helper()
	bin, err := build()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "snapd"), append([]string{"--config", s.Config}, args...)...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// elsewhere returns a server with a configuration and no data, which is not running.
func elsewhere(t *testing.T, config string) *server {
	t.Helper()
	s := &server{t: t, Dir: t.TempDir(), Addr: "127.0.0.1:" + freePort(t)}
	s.Config = filepath.Join(s.Dir, "config.toml")
	config = strings.NewReplacer("%ADDR%", s.Addr, "%DATA%", filepath.Join(s.Dir, "data")).Replace(config)
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// begin starts a server that elsewhere returned.
func (s *server) begin() {
	s.t.Helper()
	bin, err := build()
	if err != nil {
		s.t.Fatal(err)
	}
	s.run(bin)
}

// proveAll verifies every freeze, among which must be want, and checks that fsck finds no
// damage and that status has no warnings.
func (s *server) proveAll(want ...string) {
	s.t.Helper()
	var list api.SnapshotList
	s.JSON(&list, "list", "--frozen")
	var names []string
	for _, f := range list.Frozen {
		names = append(names, f.Name)
		s.Ctl("verify", f.Name, "--deep")
	}
	for _, w := range want {
		if !slices.Contains(names, w) {
			s.t.Errorf("freezes %v, expected %s among them", names, w)
		}
	}
	s.Ctl("fsck")
	var st api.Status
	s.JSON(&st, "status")
	for _, w := range st.Warnings {
		// A backup may be made between a freeze's entry in the log and its publication.
		if !strings.HasSuffix(w, " was announced in the transparency log and not finished: the log now says so, and the name is not used for anything else") {
			s.t.Errorf("status warns: %q", w)
		}
	}
}

// installs checks that apt can install a version of a package from a freeze.
func (s *server) installs(freeze, pkg, version string) {
	s.t.Helper()
	// The name in a public_url has no address here.
	apt := debtest.NewApt(s.t, strings.ReplaceAll(s.Ctl("sources", freeze), "http://packages.example.org", "http://"+s.Addr))
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", pkg)
	if !slices.ContainsFunc(apt.Installed(), func(l string) bool { return strings.Contains(l, pkg) && strings.Contains(l, version) }) {
		s.t.Errorf("installed %v, expected %s %s", apt.Installed(), pkg, version)
	}
}

// busy syncs, freezes, removes freezes and collects garbage until stop is called.
func (s *server) busy(a *debtest.Archive, published time.Time) (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	// A command may fail because another one removes what it needs.
	run := func(f func(n int)) {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(50 * time.Millisecond): // all of its freezes are verified later
					f(n)
				}
			}
		})
	}
	run(func(n int) {
		a.Add(debtest.Package{Name: "app", Version: fmt.Sprintf("2.%d", n)})
		a.Publish(published.Add(time.Duration(n+1) * time.Second))
		if _, err := s.Try("sync"); err != nil {
			s.t.Errorf("sync: %v", err)
		}
	})
	run(func(n int) {
		name := fmt.Sprintf("loop-%d", n)
		// keep = "1s": its snapshot may be collected while it is made.
		if _, err := s.Try("freeze", name, "--package", "app", "--no-sources"); err != nil && !strings.Contains(err.Error(), " of suite stable of debian: removed\n") {
			s.t.Errorf("freeze %s: %v", name, err)
		}
		if n%3 > 0 {
			s.Try("rm", name, "--yes")
		}
	})
	run(func(int) {
		if _, err := s.Try("gc"); err != nil {
			s.t.Errorf("gc: %v", err)
		}
	})
	return func() {
		close(done)
		all.Wait()
	}
}

// A backup of a busy server is restored on another one: every freeze verifies, and apt
// installs from it. The backup can be repeated, and can be taken of a stopped server.
func TestBackupAndRestore(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a, config := upstream(t)
	published := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	a.Add(debtest.Package{Name: "lib", Version: "1"}, debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.AddSource(debtest.Source{Name: "lib", Version: "1"}, debtest.Source{Name: "app", Version: "1"})
	a.Publish(published)
	config = strings.Replace(config, "sources = true", "sources = true\nkeep = \"1s\"", 1)
	config = strings.Replace(config, "[store]", "[signing]\nkey_file = \"keys/release.asc\"\n[store]\nquarantine_time = \"1s\"", 1)
	s := elsewhere(t, config)
	if err := os.Mkdir(filepath.Join(s.Dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.begin()
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--package", "lib", "--no-sources")

	dir := filepath.Join(s.Dir, "backup")
	stop := s.busy(a, published)
	for range 3 {
		if out, err := s.snapd("backup", "backup"); err != nil { // relative to the working directory
			stop()
			t.Fatalf("backup: %v\n%s", err, out)
		}
		time.Sleep(500 * time.Millisecond)
	}
	out, err := s.snapd("backup", "--json", dir)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var res api.BackupResult
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &res); err != nil || res.Exit != 0 || res.Dir != dir || res.Blobs == 0 || !strings.HasPrefix(lines[0], `{"progress":{"task":"backup"`) {
		t.Fatalf("%v: %s", err, out)
	}

	other := elsewhere(t, config)
	if out, err := other.snapd("restore", dir); err != nil || !strings.Contains(out, ": restored ") {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	other.begin()
	other.proveAll("4.1")
	other.installs("4.1", "app", "1")
	key := func(s *server) string {
		line, _, _ := strings.Cut(s.Ctl("key", "show"), "\n")
		return line
	}
	if a, b := key(s), key(other); a != b || !strings.HasPrefix(a, "Fingerprint:") {
		t.Errorf("the key was %s, is %s", a, b)
	}
	other.Ctl("sync")
	other.Ctl("gc")
	if _, err := other.snapd("restore", dir); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "is not empty: ") {
		t.Errorf("restore into a directory in use: %v", err)
	}

	// The restored server is the same installation, so it can use the same backup directory.
	other.Stop()
	if out, err := other.snapd("backup", dir); err != nil {
		t.Fatalf("backup of a stopped server: %v\n%s", err, out)
	}
	third := elsewhere(t, config)
	if out, err := third.snapd("restore", dir); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	third.begin()
	third.proveAll("4.1")
	third.installs("4.1", "app", "1")
	other.begin()
	other.proveAll("4.1")
}

// A backup or restore that is killed at any moment succeeds when it is repeated. snapd
// does not start on a partly restored directory. Long because each step depends on the
// one before.
func TestKilledBackup(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a, config := upstream(t)
	for i := range 40 {
		a.Add(debtest.Package{Name: fmt.Sprintf("app%d", i), Version: "1"})
	}
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	s := start(t, config)
	s.Ctl("sync")
	var packages []string
	for i := range 40 {
		packages = append(packages, "--package", fmt.Sprintf("app%d", i))
	}
	s.Ctl(append([]string{"freeze", "4.1", "--no-sources"}, packages...)...)

	// kill runs a command and sends it a signal after a while. ended is true if the command
	// succeeded before that.
	kill := func(cmd *exec.Cmd, after time.Duration, sig syscall.Signal) (ended bool) {
		t.Helper()
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after, func() { cmd.Process.Signal(sig) })
		defer timer.Stop()
		err := cmd.Wait()
		exit := new(exec.ExitError)
		switch {
		case err == nil:
			return true
		case errors.As(err, &exit) && (exit.ExitCode() == -1 || exit.ExitCode() == api.ExitInterrupted):
			return false
		}
		t.Fatalf("%v: %v\n%s", cmd.Args, err, errs.String())
		return false
	}
	sequence := func(run func(after time.Duration, sig syscall.Signal) bool) {
		for n := 1; ; n++ {
			sig := syscall.SIGKILL
			if n%3 == 0 {
				sig = syscall.SIGINT
			}
			if run(time.Duration(n)*2*time.Millisecond, sig) {
				t.Logf("ended after %d kills", n-1)
				return
			}
		}
	}

	// The daemon is killed while it copies.
	dir := filepath.Join(s.Dir, "of the running one")
	cmd := s.command("backup", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
	cmd.Wait()
	s.begin()
	if out, err := s.snapd("backup", dir); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	s.Stop()

	// The command itself is killed.
	dir = filepath.Join(s.Dir, "of the stopped one")
	sequence(func(after time.Duration, sig syscall.Signal) bool { return kill(s.command("backup", dir), after, sig) })
	other := elsewhere(t, config)
	sequence(func(after time.Duration, sig syscall.Signal) bool {
		if kill(other.command("restore", dir), after, sig) {
			return true
		}
		names, _ := filepath.Glob(filepath.Join(other.Dir, "data", "*"))
		if len(names) == 0 {
			return false
		}
		if !slices.Contains(names, filepath.Join(other.Dir, "data", "restoring")) {
			return true // it was killed after it had finished
		}
		if out, err := other.snapd(); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "a restore was not completed") {
			t.Fatalf("snapd on a partly restored directory: %v\n%s", err, out)
		}
		return false
	})
	other.begin()
	other.proveAll("4.1")
	other.installs("4.1", "app7", "1")
}

// Errors say what is wrong and have the right exit code. Long because of its table.
func TestBackupRefuses(t *testing.T) {
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	s := start(t, config)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--no-sources")
	dir := filepath.Join(s.Dir, "backup")
	if out, err := s.snapd("backup", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	busy := t.TempDir()
	if err := os.WriteFile(filepath.Join(busy, "diary"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := elsewhere(t, config)
	for _, c := range []struct {
		s    *server
		args []string
		exit int
		want string
	}{
		{s, []string{"backup"}, api.ExitUsage, "snapd: error: backup: expected one directory, found 0 arguments\n"},
		{s, []string{"backup", "a", "b"}, api.ExitUsage, "found 2 arguments"},
		{s, []string{"backup", "a", "--frobnicate"}, api.ExitUsage, "frobnicate"},
		{s, []string{"backup", busy}, api.ExitFailed, "back up to " + busy + ": directory refused: it contains other files: diary\nsnapd: hint: choose an empty directory\n"},
		{s, []string{"backup", filepath.Join(s.Dir, "data", "x")}, api.ExitFailed, "is inside the data directory"},
		{other, []string{"backup", dir}, api.ExitFailed, "meta.db does not exist, and nothing shows that snapd has run with this data directory: check data_dir"},
		{other, []string{"salvage"}, api.ExitFailed, "meta.db does not exist, and nothing shows that snapd has run with this data directory: check data_dir"},
		{other, []string{"restore", busy}, api.ExitFailed, "no backup in " + busy},
		{other, []string{"restore", busy + "x"}, api.ExitFailed, "no such file or directory"},
		{s, []string{"restore", dir}, api.ExitFailed, "is not empty: "},
	} {
		_, err := c.s.snapd(c.args...)
		if code(err) != c.exit || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: exit %d, expected %d: %v\nexpected: %s", c.args, code(err), c.exit, err, c.want)
		}
	}

	// Damage a blob, first of the installation and then of the backup.
	blobs, err := filepath.Glob(filepath.Join(s.Dir, "data/blobs/*/*"))
	if err != nil || len(blobs) == 0 {
		t.Fatal(blobs, err)
	}
	spoil := func(name string) {
		data, err := os.ReadFile(name)
		if err == nil {
			data[len(data)/2] ^= 1
			err = errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, data, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	deb := func(dir string) string {
		t.Helper()
		names, _ := filepath.Glob(filepath.Join(dir, "blobs/*/*"))
		for _, n := range names {
			if b, _ := os.ReadFile(n); strings.HasPrefix(string(b), "!<arch>") {
				return n
			}
		}
		t.Fatal("no package")
		return ""
	}
	spoil(deb(dir))
	out, err := other.snapd("restore", dir)
	name := filepath.Base(deb(dir))
	if code(err) != api.ExitVerify || !strings.Contains(out, "fault: blob "+name+": its content has SHA-256 ") || !strings.Contains(err.Error(), "--allow-damaged DIR") {
		t.Errorf("restore of a damaged backup: %v\n%s", err, out)
	}
	out, err = other.snapd("restore", "--json", dir)
	var e struct{ Error api.Error }
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if jerr := json.Unmarshal([]byte(lines[len(lines)-1]), &e); jerr != nil || e.Error.Exit != api.ExitVerify || e.Error.Code != api.CodeVerify || code(err) != api.ExitVerify {
		t.Errorf("%v: %s", jerr, out)
	}
	if out, err = other.snapd("restore", dir, "--allow-damaged"); code(err) != api.ExitPartial || !strings.Contains(out, ": restored ") {
		t.Errorf("restore without it: %v\n%s", err, out)
	}
	other.begin()
	other.Ctl("fsck", "--repair")
	other.Ctl("verify", "4.1", "--deep")

	spoil(deb(filepath.Join(s.Dir, "data")))
	again := filepath.Join(s.Dir, "again")
	out, err = s.snapd("backup", again)
	if code(err) != api.ExitVerify || !strings.Contains(out, "fault: blob "+name+": ") || !strings.Contains(err.Error(), "snapd: hint: get them again with: snapctl fsck --repair; then back up again") {
		t.Errorf("backup of a damaged installation: %v\n%s", err, out)
	}
	s.Ctl("fsck", "--repair")
	if out, err := s.snapd("backup", again); err != nil {
		t.Errorf("backup after the repair: %v\n%s", err, out)
	}
	// A backup notices that a blob of the earlier backup is missing, and fsck restores it
	// from there.
	if err := os.Remove(deb(filepath.Join(s.Dir, "data"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err = s.snapd("backup", again)
		if code(err) != api.ExitVerify || !strings.Contains(out, "fault: blob "+name+": is missing; the backup has an intact earlier copy") || !strings.Contains(err.Error(), "snapd: hint: take them from it with: snapctl fsck --repair --from "+again+"; then back up again") {
			t.Errorf("backup of an installation that lost a blob: %v\n%s", err, out)
		}
	}
	a.DeleteMatching("pool/*")
	if out := s.Ctl("fsck", "--repair", "--from", "again"); !strings.Contains(out, "repaired: "+name+"\nno faults remain\n") {
		t.Errorf("repair from the backup:\n%s", out)
	}
	if out, err := s.snapd("backup", again); err != nil {
		t.Errorf("backup after the repair from it: %v\n%s", err, out)
	}
}

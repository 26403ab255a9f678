package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// booted is this machine's system with the packaged unit and the programs in it, booted by
// systemd in separate namespaces. Its changes to files are lost when it ends.
type booted struct {
	t    *testing.T
	dir  string
	pid  string // of its systemd, here
	addr string // of the listener
}

// bootScript becomes the systemd of the system. The memory that holds the changes is
// mounted in its mount namespace only, and its control groups are below one that the test
// made: mounted anew, their root is that one.
const bootScript = `set -eu
dir=$1 src=$2
for h in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
	[ ! -f $h/cgroup.procs ] || { mkdir -p $h/$3; echo $$ >$h/$3/cgroup.procs; }
done
mount --make-rprivate /
mount -t tmpfs tmpfs $dir
mkdir $dir/upper $dir/work $dir/root
mount -t overlay overlay -o lowerdir=/,upperdir=$dir/upper,workdir=$dir/work $dir/root
cd $dir/root
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs tmpfs dev
for n in null zero full random urandom tty; do touch dev/$n; mount --bind /dev/$n dev/$n; done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console dev/kvm
mount --bind $src/console dev/console
for d in run tmp root etc/systemd/system usr/lib/systemd/system-generators; do mount -t tmpfs tmpfs $d; done
cp $src/bin/snapd usr/sbin/snapd
cp $src/bin/snapctl usr/bin/snapctl
mkdir -p etc/frozen-snapd
cp $src/config.toml $src/upstream.asc etc/frozen-snapd/
cp $src/systemd/frozen-snapd.service $src/systemd/frozen-snapd.socket etc/systemd/system/
cp $src/systemd/frozen-snapd.sysusers usr/lib/sysusers.d/frozen-snapd.conf
cp $src/systemd/frozen-snapd.tmpfiles usr/lib/tmpfiles.d/frozen-snapd.conf
mkdir etc/systemd/system/frozen-snapd.service.d
printf '[Service]\nStandardOutput=append:/run/frozen-snapd.log\nStandardError=append:/run/frozen-snapd.log\n' >etc/systemd/system/frozen-snapd.service.d/log.conf
echo secret >root/secret
echo secret >tmp/secret
printf '[Unit]\nDefaultDependencies=no\n' >etc/systemd/system/bare.target
for u in tmp.mount systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket systemd-udevd.service network-online.target; do
	ln -s /dev/null etc/systemd/system/$u
done
mkdir old
pivot_root . old
umount -l old
systemd-sysusers /usr/lib/sysusers.d/frozen-snapd.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/frozen-snapd.conf
exec unshare -C sh -euc '
if [ -f /sys/fs/cgroup/cgroup.procs ]; then
	umount -l /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
	umount -R -l /sys/fs/cgroup
	mount -t tmpfs cgroup /sys/fs/cgroup
	mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
	mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
	mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
echo booting >/dev/console
exec env -i container=snapd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=bare.target --log-target=console --show-status=no'
`

// boot starts the system with a configuration.
func boot(t *testing.T, conf string, upstream *debtest.Archive) *booted {
	t.Helper()
	b := &booted{t: t, dir: t.TempDir()}
	for _, d := range []string{"bin", "root"} {
		if err := os.Mkdir(filepath.Join(b.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", filepath.Join(b.dir, "bin"), "./cmd/snapd", "./cmd/snapctl")
	build.Dir, build.Env = checkout, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.CopyFS(filepath.Join(b.dir, "systemd"), os.DirFS(filepath.Join(checkout, "contrib/systemd"))); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(upstream.KeyringFile())
	if err != nil {
		t.Fatal(err)
	}
	b.addr = freeAddress(t)
	for name, data := range map[string]string{"config.toml": strings.ReplaceAll(conf, "127.0.0.1:8080", b.addr), "upstream.asc": string(key), "console": ""} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(b.dir, "systemd/frozen-snapd.socket")
	text, err := os.ReadFile(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, bytes.ReplaceAll(text, []byte("127.0.0.1:8080"), []byte(b.addr)), 0o644); err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprintf("snapd-test-%d-%s", os.Getpid(), t.Name())
	cmd := exec.Command("bash", "-c", bootScript, "boot", filepath.Join(b.dir, "root"), b.dir, group)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		needs.Refused(t, err)
	}
	t.Cleanup(func() {
		ours, _ := b.try("cat /run/frozen-snapd.log")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		// The kernel removes its processes a moment later.
		for _, h := range []string{"", "/systemd", "/unified"} {
			for range 100 {
				dir := filepath.Join("/sys/fs/cgroup"+h, group)
				if err := exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run(); err != nil {
					break // it is not there
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		if t.Failed() {
			console, _ := os.ReadFile(filepath.Join(b.dir, "console"))
			t.Logf("boot: %s\nconsole:\n%s\nlog: %s", log.String(), console, ours)
		}
	})
	b.pid = fmt.Sprint(cmd.Process.Pid)
	for range 300 {
		if _, err := b.try("systemctl show -P Version && test -S /run/systemd/private"); err == nil {
			return b
		}
		time.Sleep(50 * time.Millisecond)
	}
	if console, _ := os.ReadFile(filepath.Join(b.dir, "console")); !bytes.Contains(console, []byte("booting\n")) {
		t.Skipf("this machine's kernel refuses what a system in namespaces needs:\n%s", log.String())
	}
	t.Fatalf("systemd does not answer:\n%s", log.String())
	return nil
}

// try runs a shell script in the system.
func (b *booted) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", b.pid, "-m", "-p", "-u", "-i", "-C", "-r", "-w", "sh", "-euc", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try for a script that succeeds.
func (b *booted) run(script string) string {
	b.t.Helper()
	out, err := b.try(script)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// inside runs a shell script where the daemon is, with its user, as far as files go.
func (b *booted) inside(script string) (string, error) {
	return b.try(`exec nsenter -t $(systemctl show -P MainPID frozen-snapd.service) -m -r -w setpriv --reuid _frozen-snapd --regid _frozen-snapd --clear-groups sh -c '` + script + `'`)
}

// ctl is snapctl on the socket of the unit.
const ctl = "snapctl --socket /run/frozen-snapd/snapd.sock "

// systemd runs the packaged unit unchanged. The daemon reports that it is ready once it
// serves; it syncs and freezes, cannot do what the unit forbids, reloads its configuration,
// is restarted when it hangs, and takes its listener from the socket unit. Long because all
// of this needs one booted system.
func TestUnitRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a system")
	}
	t.Parallel()
	needs.Root(t, "to boot a system")
	needs.Programs(t, "nsenter", "unshare", "setpriv", "systemctl", "systemd-sysusers", "systemd-tmpfiles")
	needs.File(t, "/lib/systemd/systemd")
	a := debtest.New(t)
	a.Suite("bookworm").Add(debtest.Package{Name: "hello", Version: "1.0"})
	a.Publish(time.Now().Add(-time.Hour))
	upstream := httptest.NewServer(a.Handler())
	defer upstream.Close()
	b := boot(t, packagedConfig(t, upstream.URL), a)
	mainPID := func() string { return b.run("systemctl show -P MainPID frozen-snapd.service") }

	// Started is ready: the next command finds the control socket and the listener.
	b.run("systemctl start frozen-snapd.service && " + ctl + "status")
	if got := b.run("systemctl show -p Type,ActiveState,WatchdogUSec,NRestarts frozen-snapd.service"); !strings.Contains(got, "Type=notify") || !strings.Contains(got, "ActiveState=active") || !strings.Contains(got, "WatchdogUSec=2min") {
		t.Errorf("the unit: %s", got)
	}
	status := b.run("cat /proc/" + mainPID() + "/status")
	for _, want := range []string{`CapEff:\s0+\n`, `CapBnd:\s0+\n`, `NoNewPrivs:\s1\n`, `Seccomp:\s2\n`} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("no %s in the status of the process:\n%s", want, status)
		}
	}
	if out, err := b.inside("touch /var/lib/frozen-snapd/x && rm /var/lib/frozen-snapd/x && touch /tmp/x && ls /tmp"); err != nil || out != "x" {
		t.Errorf("its own directories: %q, %v", out, err)
	}
	for _, refused := range []string{
		"touch /usr/x", "touch /var/lib/x", "touch /etc/frozen-snapd/x", "ls /root/secret", "cat /tmp/secret", "ls /dev/kvm", "ls /proc/1", "touch /sys/x", "touch /proc/sys/kernel/hostname",
	} {
		if out, err := b.inside(refused); err == nil {
			t.Errorf("%s works inside the unit: %s", refused, out)
		}
	}

	// It does its work there: bytes come from outside, are signed and served.
	b.run(ctl + "sync && " + ctl + "freeze 1.0 --all && " + ctl + "verify 1.0 --deep && " + ctl + "gc")
	get := func(path string) (int, error) {
		resp, err := http.Get("http://" + b.addr + path)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	if code, err := get("/frozen/1.0/debian/dists/bookworm/InRelease"); code != http.StatusOK {
		t.Errorf("the frozen repository: status %d, %v", code, err)
	}

	// Reloaded, by the unit's own command: the process stays, and a broken file changes nothing.
	pid := mainPID()
	b.run(`printf '[[mirror]]\nname = "own"\ntype = "deb"\nlocal = true\nsuites = ["own"]\ncomponents = ["main"]\narchitectures = ["amd64"]\n' >>/etc/frozen-snapd/config.toml; systemctl reload frozen-snapd.service`)
	b.within("the new mirror is listed", func() error { _, err := b.try(ctl + "mirror show own"); return err })
	b.run(`cp /etc/frozen-snapd/config.toml /tmp/good; echo 'nonsense = [' >>/etc/frozen-snapd/config.toml; systemctl reload frozen-snapd.service`)
	b.within("the broken file is named", func() error {
		_, err := b.try("grep -q 'was not reloaded.*config.toml:' /run/frozen-snapd.log")
		return err
	})
	b.run(ctl + "mirror show own; cp /tmp/good /etc/frozen-snapd/config.toml")
	if again := mainPID(); again != pid {
		t.Errorf("process %s became %s by a reload", pid, again)
	}

	// One that hangs is restarted.
	b.run(`printf '[Service]\nWatchdogSec=4\nRestartSec=100ms\n' >/etc/systemd/system/frozen-snapd.service.d/fast.conf; systemctl daemon-reload; systemctl restart frozen-snapd.service`)
	pid = mainPID()
	time.Sleep(5 * time.Second)
	if again := mainPID(); again != pid {
		t.Errorf("process %s became %s without a fault: the watchdog is not served", pid, again)
	}
	b.run("kill -STOP " + pid)
	b.within("it is restarted", func() error {
		if now := b.run("systemctl show -P NRestarts frozen-snapd.service"); now == "0" {
			return errors.New("not restarted yet")
		}
		_, err := b.try(ctl + "status")
		return err
	})
	if mainPID() == pid {
		t.Error("the process that hangs is still there")
	}

	// With the socket unit, a request starts it, and none is refused while it restarts.
	b.run("systemctl stop frozen-snapd.service && systemctl start frozen-snapd.socket")
	if code, err := get("/frozen/1.0/debian/dists/bookworm/InRelease"); code != http.StatusOK {
		t.Errorf("with the socket unit: status %d, %v", code, err)
	}
	pid = mainPID()
	done := make(chan error, 1)
	go func() {
		out, err := b.try("systemctl restart frozen-snapd.service")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	for n, running := 0, true; running; n++ {
		if code, err := get("/healthz"); code != http.StatusOK {
			t.Errorf("request %d during the restart: status %d, %v", n, code, err)
		}
		select {
		case err := <-done:
			if running = false; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	if mainPID() == pid {
		t.Error("it was not restarted")
	}
	b.run("systemctl stop frozen-snapd.socket frozen-snapd.service")
	if got := b.run("systemctl show -P Result frozen-snapd.service"); got != "success" {
		t.Errorf("stopped with %s", got)
	}
}

// within waits until f returns nil.
func (b *booted) within(what string, f func() error) {
	b.t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	b.t.Errorf("%s: %v", what, err)
}

// packagedConfig is the packaged configuration for a mirror of an upstream in a booted
// system.
func packagedConfig(t *testing.T, upstream string) string {
	t.Helper()
	packaged, err := os.ReadFile(filepath.Join(checkout, "contrib/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	conf := string(packaged)
	for _, c := range [][2]string{{`(?m)^url = .*$`, `url = "` + upstream + `"`}, {`(?m)^suites = .*$`, `suites = ["bookworm"]`}, {`(?m)^keyring = .*$`, `keyring = "/etc/frozen-snapd/upstream.asc"`}} {
		again := regexp.MustCompile(c[0]).ReplaceAllString(conf, c[1])
		if again == conf {
			t.Fatalf("the packaged configuration has no %s", c[0])
		}
		conf = again
	}
	return conf
}

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/api"
)

// hostileEntries makes a file of each kind except regular ones, and a sparse file of 20
// GiB, and returns their paths by kind.
func hostileEntries(t *testing.T) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hostile") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, err := range []error{
		unix.Mkfifo(at("fifo"), 0o600),
		os.Symlink("fifo", at("link-to-fifo")),
		os.Symlink("/dev/zero", at("device")),
		os.Symlink("absent", at("dangling")),
		os.Mkdir(at("directory"), 0o700),
		os.WriteFile(at("giant"), nil, 0o600),
		os.Truncate(at("giant"), 20<<30),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]string{}
	for _, kind := range []string{"fifo", "link-to-fifo", "device", "dangling", "directory", "socket", "giant"} {
		out[kind] = at(kind)
	}
	return out
}

// Each command that reads a file immediately refuses, by name, one that is not a
// regular file or is larger than any real one.
func TestHostileFiles(t *testing.T) {
	entries := hostileEntries(t)
	dir := t.TempDir()
	img := filepath.Join(dir, "image.squashfs")
	writeImage(t, img, map[string]string{"a": "1"}, day)
	if err := os.Mkdir(filepath.Join(dir, "target"), 0o755); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "private.asc")
	if err := os.WriteFile(key, testKey.Armored(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  string // FILE stands for the entry
		giant bool   // a large regular file is valid
	}{
		{args: "freeze 4.1 --manifest FILE"},
		{args: "record show x --status FILE"},
		{args: "verify 4.1 --key FILE"},
		{args: "verify 4.1 --upstream-key FILE"},
		{args: "import . --key FILE"},
		{args: "key show --key-file FILE"},
		{args: "image add 4.1 FILE", giant: true},
		{args: "iuk inspect FILE"},
		{args: "iuk verify FILE --old IMAGE --new IMAGE"},
		{args: "iuk verify IMAGE --old FILE --new IMAGE"},
		{args: "iuk verify IMAGE --old IMAGE --new FILE"},
		{args: "iuk create --old FILE --new IMAGE --from-version 1 --to-version 2 --output out.iuk"},
		{args: "iuk create --old IMAGE --new FILE --from-version 1 --to-version 2 --output out.iuk"},
		{args: "iuk apply FILE --target target"},
		{args: "init --from-apt=FILE --output -"},
		{args: "init --from-dnf=FILE --output -"},
		{args: "iuk udf --to 2 --from 1 --product P --build-target amd64 --channel stable --iuk-url https://kits.example.org --image-url https://kits.example.org/i --iuks . --image FILE --output out --key-file FILE", giant: true},
		{args: "iuk udf --to 2 --from 1 --product P --build-target amd64 --channel stable --iuk-url https://kits.example.org --image-url https://kits.example.org/i --iuks . --image FILE --output out --key-file KEY", giant: true},
	} {
		for kind, file := range entries {
			if kind == "giant" && c.giant {
				continue
			}
			t.Run(c.args+" "+kind, func(t *testing.T) {
				t.Parallel()
				x := newTester(t)
				var args []string
				for _, a := range strings.Fields(c.args) {
					args = append(args, strings.NewReplacer("FILE", file, "IMAGE", img, "KEY", key).Replace(a))
				}
				cmd := snapctl(t, x, args...)
				cmd.Dir = dir
				cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=1000000000")
				var stderr strings.Builder
				cmd.Stderr = &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
				defer kill.Stop()
				cmd.Wait()
				code := cmd.ProcessState.ExitCode()
				if code != api.ExitFailed && code != api.ExitVerify {
					t.Errorf("exit %d (-1: no end after 20 s): %s", code, stderr.String())
				}
				if !strings.Contains(stderr.String(), file) {
					t.Errorf("the error does not name %s: %s", file, stderr.String())
				}
			})
		}
	}
}

// giantExport is a directory whose manifest lists a package of 1 TiB, which exists as a
// sparse file. Hashing it takes minutes.
func giantExport(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const size = 1 << 40
	write(t, filepath.Join(dir, "manifest.json"), fmt.Sprintf(`{"date":"2026-11-22T16:00:00Z","format":1,"mirrors":[{"kind":"exact","name":"debian","packages":[{"architecture":"amd64","component":"main","index":"main/binary-amd64/Packages","name":"a","paragraph":"00","path":"pool/a.deb","sha256":"%064x","size":%d,"source":"a","source_version":"1","suite":"stable","version":"1"}],"sources":[],"suites":[],"trust":"openpgp","type":"deb"}],"missing":[],"name":"4.1"}`, 1, size))
	write(t, filepath.Join(dir, "manifest.json.asc"), "")
	write(t, filepath.Join(dir, "key.asc"), string(testKey.Keyring().ExportArmored()))
	write(t, filepath.Join(dir, "debian/pool/a.deb"), "")
	if err := os.Truncate(filepath.Join(dir, "debian/pool/a.deb"), size); err != nil {
		t.Skip("the file system has no files of 1 TiB: ", err)
	}
	return dir
}

// Interrupted commands end at once with 130: in the middle of a large file, and
// while they wait for a pipe.
func TestInterruptReads(t *testing.T) {
	dir := giantExport(t)
	key := filepath.Join(t.TempDir(), "key.asc")
	write(t, key, string(testKey.Keyring().ExportArmored()))
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for _, args := range [][]string{
			{"verify", dir, "--key", key},
			{"verify", dir, "--key", key, "--deep"},
			{"freeze", "4.1", "--manifest", "-"},
			{"freeze", "4.1", "--manifest", "/dev/stdin"},
			{"record", "show", "x", "--status", "-"},
			{"import", dir, "--key", "/dev/stdin"},
		} {
			t.Run(fmt.Sprint(sig, args), func(t *testing.T) {
				t.Parallel()
				x := newTester(t)
				cmd := snapctl(t, x, args...)
				in, err := cmd.StdinPipe() // stays open and empty
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				var stdout, stderr strings.Builder
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
				defer kill.Stop()
				time.Sleep(500 * time.Millisecond)
				asked := time.Now()
				cmd.Process.Signal(sig)
				cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != api.ExitInterrupted {
					t.Errorf("exit %d, expected %d: %s%s", code, api.ExitInterrupted, stdout.String(), stderr.String())
				}
				if d := time.Since(asked); d > 5*time.Second {
					t.Errorf("it took %s to end", d)
				}
			})
		}
	}
}

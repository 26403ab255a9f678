package story

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
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

// litewitness builds torchwood's witness, unmodified, with go install and keeps the
// program for later runs. It skips the test if the module cannot be downloaded.
func litewitness(t *testing.T) string {
	t.Helper()
	const version = "v0.6.1"
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "snapd-tools")
	name := filepath.Join(dir, "litewitness-"+version)
	if _, err := os.Stat(name); err == nil {
		return name
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Concurrent test runs build separate copies.
	tmp, err := os.MkdirTemp(dir, ".litewitness-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // where the network drops packets
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "filippo.io/torchwood/cmd/litewitness@"+version)
	cmd.Dir, cmd.WaitDelay = tmp, time.Second
	cmd.Env = append(os.Environ(), "GOBIN="+tmp, "GOFLAGS=", "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("litewitness %s cannot be built: %v\n%s", version, err, out)
	}
	if err := os.Rename(filepath.Join(tmp, "litewitness"), name); err != nil {
		t.Fatal(err)
	}
	return name
}

// An independent implementation of a witness, litewitness v0.6.1, cosigns our log. Long
// because each step depends on the one before.
func TestLitewitness(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program the first time")
	}
	needs.Programs(t, "ssh-agent", "ssh-keygen", "ssh-add", "sqlite3")
	lite := litewitness(t)
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	alone := head + "[log]\norigin = \"" + logOrigin + "\"\n" + a.stanza("debian", "")
	s := start(t, alone)
	_, key := get(t, "http://"+s.Addr+"/log.vkey")

	dir := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+filepath.Join(dir, "agent"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	background := func(name string, args ...string) (log func() string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		out, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return func() string { b, _ := os.ReadFile(out.Name()); return string(b) }
	}
	wait := func(network, addr string) {
		t.Helper()
		for range 200 {
			if c, err := net.Dial(network, addr); err == nil {
				c.Close()
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("%s does not answer", addr)
	}
	run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key"))
	background("ssh-agent", "-D", "-a", filepath.Join(dir, "agent"))
	wait("unix", filepath.Join(dir, "agent"))
	run("ssh-add", filepath.Join(dir, "key"))
	fingerprint := strings.Fields(run("ssh-keygen", "-l", "-f", filepath.Join(dir, "key.pub")))[1]
	addr := "127.0.0.1:" + freePort(t)
	db := filepath.Join(dir, "witness.db")
	log := background(lite, "-name", "lite.example.org", "-db", db, "-ssh-agent", filepath.Join(dir, "agent"), "-listen", addr, "-key", fingerprint)
	wait("tcp", addr)
	vkey := regexp.MustCompile(`vkey="?([^"\s]+)`).FindStringSubmatch(log())
	if vkey == nil {
		t.Fatalf("litewitness names no key:\n%s", log())
	}
	// This is what witnessctl add-log and add-key write.
	empty := base64.StdEncoding.EncodeToString(mustHex(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
	run("sqlite3", db, fmt.Sprintf("INSERT INTO log (origin, tree_size, tree_hash) VALUES ('%s', 0, '%s'); INSERT INTO key (origin, key) VALUES ('%s', '%s');", logOrigin, empty, logOrigin, strings.TrimSpace(key)))

	policy := filepath.Join(dir, "policy")
	if err := os.WriteFile(policy, []byte("log "+key+"witness lite "+vkey[1]+" http://"+addr+"\nquorum lite\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.again(strings.Replace(alone, "[log]\n", "[log]\npolicy = \""+policy+"\"\n", 1))
	s.Ctl("sync")
	if out := s.Ctl("freeze", "4.1", "--package", "a"); !strings.Contains(out, "witnessed: 1/1") {
		t.Errorf("freeze: %s\n%s\n%s", out, log(), s.Log())
	}
	export := filepath.Join(dir, "export")
	s.Ctl("export", "4.1", export)
	s.Ctl("verify", export, "--policy", policy)
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

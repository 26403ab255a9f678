package story

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog/monitor"
)

const logOrigin = "mirror.example.org/log"

// witnessed starts a witness of a log and returns its line for a policy.
func witnessed(t *testing.T, name, vkey string) (line string, stop func()) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "snapctl"), "witness", "serve", "--name", "witness.example.org/"+name, "--dir", t.TempDir(), "--log", vkey, "--listen", "127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }
	t.Cleanup(stop)
	text, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(text)
	if len(f) != 4 {
		t.Fatalf("witness: %q", text)
	}
	return fmt.Sprintf("witness %s %s %s\n", name, f[2], f[3]), stop
}

// again stops a server and starts it with another configuration.
func (s *server) again(config string) {
	s.t.Helper()
	s.Stop()
	bin, err := build()
	if err != nil {
		s.t.Fatal(err)
	}
	config = strings.NewReplacer("%ADDR%", s.Addr, "%DATA%", filepath.Join(s.Dir, "data")).Replace(config)
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run(bin)
}

// copyOf returns a stopped server with a copy of the data of another server.
func copyOf(t *testing.T, s *server) *server {
	t.Helper()
	c := &server{t: t, Dir: t.TempDir(), Addr: "127.0.0.1:" + freePort(t), env: s.env}
	c.Config = filepath.Join(c.Dir, "config.toml")
	if out, err := exec.Command("cp", "-a", filepath.Join(s.Dir, "data"), c.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(c.Stop)
	return c
}

// A server cannot rewrite its history unnoticed. Its releases are in a log that
// witnesses cosign, and exports contain the proof. If a copy of the server publishes
// something else under the same name, the witnesses refuse it and a monitor reports it.
// Long because each step depends on the one before.
func TestTransparencyLog(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	a.publish()
	alone := head + "[log]\norigin = \"" + logOrigin + "\"\n" + a.stanza("debian", "")
	s := startWith(t, alone, nil, "XDG_STATE_HOME="+t.TempDir())
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	_, key := get(t, "http://"+s.Addr+"/log.vkey")
	_, signature := get(t, "http://"+s.Addr+"/log.vkey.asc")
	_, public := get(t, "http://"+s.Addr+"/key.asc")
	ring, err := sign.ParseKeyring([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.VerifyDetached([]byte(key), []byte(signature), sign.VerifyOptions{Keyring: ring}); err != nil {
		t.Errorf("the key of the log: %v", err)
	}
	vkey := file("log.vkey", key)
	one, _ := witnessed(t, "one", vkey)
	two, _ := witnessed(t, "two", vkey)
	three, stop := witnessed(t, "three", vkey)
	policy := file("policy", "log "+key+one+two+three+"group most 2 one two three\nquorum most\n")
	with := strings.Replace(alone, "[log]\n", "[log]\npolicy = \""+policy+"\"\n", 1)
	s.again(with)

	// A release, its proof, and an export that can be verified without a server.
	s.Ctl("sync")
	if out := s.Ctl("freeze", "4.1", "--package", "a"); !strings.Contains(out, "witnessed: ") {
		t.Errorf("freeze does not mention the witnesses:\n%s", out)
	}
	export := filepath.Join(dir, "export")
	s.Ctl("export", "4.1", export)
	var proven api.VerifyResult
	if s.JSON(&proven, "verify", export, "--policy", policy); proven.Log == nil || proven.Log.Origin != logOrigin || len(proven.Log.Witnesses) < 2 || !proven.Log.Given ||
		proven.Log.States != 1 || proven.Log.StatesAll != 1 {
		t.Errorf("offline: %+v", proven.Log)
	}
	s.Ctl("verify", export, "--log-key", vkey)
	s.Ctl("verify", "4.1", "--policy", policy)
	if out := s.Ctl("verify", export); !strings.Contains(out, "was remembered in") || !strings.Contains(out, "proves nothing against the operator of the server") {
		t.Errorf("at first use:\n%s", out)
	}
	if out := s.Ctl("verify", export); !strings.Contains(out, "the one remembered in") {
		t.Errorf("at second use:\n%s", out)
	}
	for p, second := range map[string]string{"/frozen/4.1/manifest.json": "index ", "/archive/debian/latest/dists/stable/InRelease": "extra "} {
		url := "http://" + s.Addr + p
		if strings.Contains(p, "latest") {
			var list api.SnapshotList
			s.JSON(&list, "list")
			url = strings.Replace(url, "latest", strings.SplitN(list.Snapshots[0].ID, "@", 2)[1], 1)
		}
		if status, body := get(t, url+".tlog-proof"); status != 200 || !strings.HasPrefix(body, "c2sp.org/tlog-proof@v1\n"+second) || !strings.Contains(body, logOrigin) {
			t.Errorf("%s.tlog-proof: %d\n%s", p, status, body)
		}
	}
	// Flip one bit, in the checkpoint, in the entry and in the signature of a proof.
	states, err := filepath.Glob(filepath.Join(export, "_proof", "debian", "*.tlog-proof"))
	if err != nil || len(states) != 1 {
		t.Fatalf("proofs of snapshots: %q, %v", states, err)
	}
	for _, c := range []struct{ file, after string }{
		{filepath.Join(export, "manifest.json.tlog-proof"), "\n" + logOrigin + "\n"}, {states[0], "\n" + logOrigin + "\n"}, {states[0], "\nextra "}, {states[0], "— " + logOrigin + " "},
	} {
		proof, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		broken := append([]byte{}, proof...)
		broken[strings.Index(string(proof), c.after)+len(c.after)+9] ^= 1
		if err := os.WriteFile(c.file, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		s.Refuse(4, []string{"verify", export, "--policy", policy})
		s.Refuse(4, []string{"import", export})
		if err := os.WriteFile(c.file, proof, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	other := strings.Replace(key, logOrigin, "other.example.org/log", 1)
	s.Refuse(1, []string{"verify", export, "--log-key", file("other.vkey", other)}, "its hash is")

	// A monitor reads all entries, and verifies upstream's signatures.
	state := filepath.Join(dir, "monitor.state")
	url := "http://" + s.Addr + "/log"
	watch := []string{"log", "monitor", url, "--state", state, "--mirror", filepath.Join(dir, "copy"), "--policy", policy, "--upstream-key", a.KeyringFile()}
	var seen monitor.Report
	if s.JSON(&seen, watch...); !seen.First || seen.Size < 4 || len(seen.Entries) != int(seen.Size) || len(seen.Alarms) != 0 {
		t.Errorf("monitor: %+v", seen)
	}

	// The third witness stops; the log continues.
	stop()
	s.Stop()
	fork, old := copyOf(t, s), copyOf(t, s)
	s.again(with)
	if out := s.Ctl("freeze", "4.2", "--package", "a"); !strings.Contains(out, "witnessed: 2/3") {
		t.Errorf("two witnesses of three:\n%s", out)
	}
	if s.JSON(&seen, watch...); seen.First || len(seen.Alarms) != 0 {
		t.Errorf("monitor: %+v", seen)
	}

	// A copy of the server without 4.2, like an old backup.
	old.again(with)
	before, _ := os.ReadFile(filepath.Join(old.Dir, "data", "log-key"))
	old.Refuse(4, args("freeze 4.2 --package b"), "differs from the one that witnesses have seen", "restore the newest backup, or begin a new log")
	if out := old.Ctl("status"); !strings.Contains(out, "nothing is signed") {
		t.Errorf("status of an old copy:\n%s", out)
	}
	old.Ctl("verify", "4.1") // its existing freezes are still served
	old.Stop()
	if err := os.Rename(filepath.Join(old.Dir, "data", "log-key"), filepath.Join(old.Dir, "old-log-key")); err != nil {
		t.Fatal(err)
	}
	old.again(strings.Replace(alone, logOrigin, logOrigin+"-2", 1))
	old.Ctl("freeze", "4.2", "--package", "b")
	if after, _ := os.ReadFile(filepath.Join(old.Dir, "data", "log-key")); string(after) == string(before) {
		t.Error("a new log has the old key")
	}
	// Clients that know the old log notice.
	moved := filepath.Join(dir, "moved")
	old.Ctl("export", "4.1", moved)
	old.Refuse(4, []string{"verify", moved, "--policy", policy})

	// A forger who has the key freezes a different 4.2 without the witnesses.
	fork.again(alone)
	fork.Ctl("freeze", "4.2", "--package", "b")
	fork.Ctl("freeze", "4.3", "--package", "b")
	forged := filepath.Join(dir, "forged")
	fork.Ctl("export", "4.2", forged)
	fork.Refuse(4, []string{"verify", forged, "--policy", policy}, "1 check failed")
	fork.Ctl("verify", forged, "--log-key", vkey) // the key alone does not reveal the forgery
	out, err := s.Try("log", "monitor", "http://"+fork.Addr+"/log", "--state", state, "--log-key", vkey, "--json")
	var report monitor.Report
	if json.Unmarshal([]byte(out), &report); code(err) != 4 || len(report.Alarms) != 1 || len(report.Alarms[0].Checkpoints) != 2 || !strings.Contains(report.Alarms[0].What, "rewritten") {
		t.Errorf("monitor of a forged history: exit %d, %+v", code(err), report)
	}
	fork.again(with)
	fork.Refuse(4, args("freeze 4.4 --package b"), "differs from the one that witnesses have seen")
	// The monitor's state is unchanged: the original log still matches it.
	s.Ctl(watch...)
	s.Ctl("log", "verify")
	if lines := strings.Count(s.Ctl("log", "export"), "\n"); lines != int(seen.Size) {
		t.Errorf("%d entries exported, expected %d", lines, seen.Size)
	}
}

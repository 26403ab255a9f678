// Package story runs what users do, with the real programs: the README's tour,
// and the stories that the product promises.
package story

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// top is the repository.
const top = "../.."

// tour returns the README's commands: its blocks marked "sh tour".
func tour(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	in, blocks := false, 0
	for line := range strings.Lines(string(data)) {
		switch {
		case strings.TrimSpace(line) == "```sh tour":
			in = true
			blocks++
		case strings.HasPrefix(line, "```"):
			in = false
		case in:
			b.WriteString(line)
		}
	}
	if blocks < 5 {
		t.Fatalf("the README's tour has %d blocks", blocks)
	}
	return b.String()
}

// freePort finds a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// The commands of the README's tour do what it says, in a copy of the tree.
func TestTour(t *testing.T) {
	if testing.Short() {
		t.Skip("fetches this machine's package indices")
	}
	dir := t.TempDir()
	// The tour's user stands in a checkout; bin/ and tour/ are made there.
	if out, err := exec.Command("cp", "-r", filepath.Join(top, "Makefile"), filepath.Join(top, "go.mod"), filepath.Join(top, "go.sum"), filepath.Join(top, "cmd"), filepath.Join(top, "internal"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script := tour(t)
	// Another snapd may run on this machine.
	init := "snapctl init --from-apt --data-dir data --output config.toml\n"
	if !strings.Contains(script, init) {
		t.Fatal("the tour has no init")
	}
	script = strings.Replace(script, init, init+"sed -i 's/127.0.0.1:8080/127.0.0.1:"+freePort(t)+"/' config.toml\n", 1)
	cmd := exec.CommandContext(t.Context(), "bash", "-euxmo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	_ = exec.Command("pkill", "-f", filepath.Join(dir, "bin/snapd")).Run()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "tour/snapd.log"))
		t.Fatalf("%v\n%s\nsnapd:\n%s", err, out, log)
	}
	for _, want := range []string{"everything holds", "hello_", "added"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the tour's output has no %q", want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "tour/export-4.1/manifest.json")); err != nil {
		t.Error(err)
	}
	if testing.Verbose() {
		fmt.Println(string(out))
	}
}

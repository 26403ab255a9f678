// Package story tests user stories with the real programs, among them the tour in the
// README.
package story

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
)

// top is the root of the source tree.
const top = "../.."

// tour returns the commands of the README's tour, from its blocks marked
// "sh tour", and the lines of their output, from the blocks marked "text tour".
func tour(t *testing.T) (script string, output []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	block, blocks := "", 0
	for line := range strings.Lines(string(data)) {
		if mark, ok := strings.CutPrefix(line, "```"); ok {
			block = strings.TrimSpace(mark)
			blocks++
			continue
		}
		switch block {
		case "sh tour":
			b.WriteString(line)
		case "text tour":
			output = append(output, line)
		}
	}
	if blocks < 20 || len(output) < 20 {
		t.Fatalf("the README's tour has %d blocks and %d lines of output", blocks, len(output))
	}
	return b.String(), output
}

// comparable removes from a line of output what differs between runs and machines:
// numbers, versions, times, digests, URLs, and the width of columns.
func comparable(line string) string {
	words := strings.Fields(line)
	for i, w := range words {
		switch {
		case strings.Contains(w, "://"):
			words[i] = "URL"
		case strings.ContainsAny(w, "0123456789"):
			words[i] = "#"
		}
	}
	return strings.Join(words, " ")
}

// checkOutput checks that the output of the tour contains the README's lines in their
// order.
func checkOutput(t *testing.T, want []string, output string) {
	t.Helper()
	lines := strings.Split(output, "\n")
	for _, w := range want {
		i := slices.IndexFunc(lines, func(l string) bool { return comparable(l) == comparable(w) })
		if i < 0 {
			t.Errorf("the tour did not print the README's line %q, or not in this place", w)
			continue
		}
		lines = lines[i+1:]
	}
}

// freePort finds an unused port.
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
	needs.Programs(t, "apt-get", "mmdebstrap")
	dir := t.TempDir()
	// The tour runs in a checkout, in which it creates bin/ and tour/.
	if out, err := exec.Command("cp", "-r", filepath.Join(top, "Makefile"), filepath.Join(top, ".ci"), filepath.Join(top, "go.mod"), filepath.Join(top, "go.sum"), filepath.Join(top, "example.go"), filepath.Join(top, "config.example.toml"), filepath.Join(top, "client"), filepath.Join(top, "cmd"), filepath.Join(top, "internal"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script, output := tour(t)
	// Use another port, because another snapd may be running on this machine.
	init := "snapctl init --from-apt --data-dir data --output config.toml || [ $? = 3 ]  # 3: some sources were skipped, and named\n"
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
	config, err := os.ReadFile(filepath.Join(dir, "tour/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	// The README shows the output on a machine with these sources.
	if bytes.Contains(config, []byte(`["bookworm", "bookworm-updates"]`)) && bytes.Contains(config, []byte(`["bookworm-security"]`)) {
		checkOutput(t, output, string(out))
	} else {
		t.Log("this machine has other apt sources than the README's: its output is not compared")
	}
	if !strings.Contains(string(out), "Example_") {
		t.Error("the tour's output has no kit")
	}
	if _, err := os.Stat(filepath.Join(dir, "tour/export-4.1/manifest.json")); err != nil {
		t.Error(err)
	}
	if testing.Verbose() {
		fmt.Println(string(out))
	}
}

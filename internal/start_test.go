package internal_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Each call of snapctl is a new process: before main, our packages do almost nothing.
func TestStart(t *testing.T) {
	snapctl := filepath.Join(t.TempDir(), "snapctl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", snapctl, "../cmd/snapctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), snapctl, "--version")
	cmd.Env = append(cmd.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const most = 60 // allocations; one regular expression takes about 100, some a thousand
	found := regexp.MustCompile(`(?m)^init (main|`+module+`\S+) @.* ([0-9]+) allocs$`).FindAllStringSubmatch(string(out), -1)
	if len(found) < 5 {
		t.Fatalf("only %d packages in the trace:\n%s", len(found), out)
	}
	for _, m := range found {
		if n, err := strconv.Atoi(m[2]); err != nil || n > most {
			t.Errorf("%s: %d allocations before main, expected at most %d; is a regular expression or a template compiled by a package variable?", strings.TrimPrefix(m[1], module), n, most)
		}
	}
}

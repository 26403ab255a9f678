package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeGo writes down in which directory it was to keep temporary files.
const fakeGo = `#!/bin/sh
case "$1 $2" in
"list ./...") printf '%s\n' snapd/internal/story snapd/other snapd/raced ;;
"list "*) echo snapd/raced ;;
*) echo "${TMPDIR:-}:$(stat -f -c %T "${TMPDIR:-/tmp}"):$*" >>"$LOG" ;;
esac
`

// The tests keep their temporary files where TMPDIR says, and without it in memory that
// only they see, if anywhere but on the disk. Those with the race detector alone are never
// in memory.
func TestTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	fake := filepath.Join(dir, "go")
	if err := os.WriteFile(fake, []byte(fakeGo), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tmp := range []string{"", filepath.Join(dir, "tmp")} {
		log := filepath.Join(dir, "log"+filepath.Base(tmp))
		cmd := exec.CommandContext(t.Context(), "../.ci/test")
		cmd.Env = append(os.Environ(), "GO="+fake, "LOG="+log, "TMPDIR="+tmp)
		if tmp != "" {
			if err := os.Mkdir(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("TMPDIR=%s: %v\n%s", tmp, err, out)
		}
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		runs := map[string]bool{}
		for line := range strings.Lines(string(data)) {
			where := strings.SplitN(strings.TrimSpace(line), ":", 3)
			raced := strings.HasSuffix(where[2], "./internal/sign")
			runs[where[2]] = true
			switch {
			case where[0] == tmp:
			case tmp != "" || raced || where[1] != "tmpfs":
				t.Errorf("TMPDIR=%s: %s on %s, of go %s", tmp, where[0], where[1], where[2])
			default:
				if entries, err := os.ReadDir(where[0]); err != nil || len(entries) > 0 {
					t.Errorf("%s afterwards: %v, %v", where[0], entries, err)
				}
			}
		}
		if len(runs) != 4 {
			t.Errorf("TMPDIR=%s: runs of go test: %v, expected four", tmp, runs)
		}
	}
}

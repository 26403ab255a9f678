package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// make fuzz goes on after a target that fails, and after a package that does not
// build, tells the executions of each and all that failed.
func TestFuzzGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and fuzzes three packages")
	}
	script, err := filepath.Abs("../.ci/fuzz")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":         "module example.org/fuzzed\n\ngo 1.21\n",
		"a/a_test.go":    "package a\n\nimport \"testing\"\n\nfunc FuzzBad(f *testing.F) {\n\tf.Add(1)\n\tf.Fuzz(func(t *testing.T, n int) { t.Fatal(n) })\n}\n\nfunc FuzzGood(f *testing.F) {\n\tf.Fuzz(func(t *testing.T, n int) {})\n}\n",
		"b/b_test.go":    "package b\n\nfunc broken( {\n",
		"c/c_test.go":    "package c\n\nimport \"testing\"\n\nfunc FuzzLast(f *testing.F) {\n\tf.Fuzz(func(t *testing.T, n int) {})\n}\n",
		"d/d.go":         "package d\n",
		"c/fine/fine.go": "package fine\n",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "FUZZTIME=100x", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit %d (%v), expected 1", code, err)
	}
	text := string(out)
	const failed = "\nfailed:\n  example.org/fuzzed/a FuzzBad\n  example.org/fuzzed/b: its tests do not build\n"
	if !strings.HasSuffix(text, failed) || !strings.Contains(text, "executions of 3 targets\n") || !strings.Contains(text, "  example.org/fuzzed/c FuzzLast\n") {
		t.Errorf("expected the executions of 3 targets, then %s\nfound %s", failed, text)
	}
}

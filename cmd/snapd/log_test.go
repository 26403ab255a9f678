package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runLogged starts snapd on a data directory that it refuses only after its log
// is open, and returns what it wrote to standard error.
func runLogged(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "c.toml")
	text := "data_dir = \"" + filepath.Join(dir, "data") + "\"\n[server]\nlisten = \"127.0.0.1:1\"\nsocket = \"" + filepath.Join(dir, "not-a-socket") + "\"\n"
	for name, content := range map[string]string{config: text, filepath.Join(dir, "not-a-socket"): ""} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = w
	defer func() { os.Stderr = old }()
	code = run(t.Context(), append([]string{"snapd", "--config", config}, args...))
	w.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return code, string(data)
}

func TestLog(t *testing.T) {
	_, text := runLogged(t)
	if !strings.Contains(text, "level=INFO") || strings.Contains(text, "level=DEBUG") {
		t.Errorf("text: %q", text)
	}
	_, lines := runLogged(t, "--log-format", "json")
	for _, l := range strings.Split(strings.TrimSpace(lines), "\n") {
		if strings.HasPrefix(l, "snapd: ") {
			continue
		}
		var event struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(l), &event); err != nil || event.Level == "" || event.Msg == "" {
			t.Errorf("json: %q: %v", l, err)
		}
	}
	if !strings.Contains(lines, `"level":"INFO"`) {
		t.Errorf("json: %q", lines)
	}
	if _, quiet := runLogged(t, "--log-level=error"); strings.Contains(quiet, "level=INFO") {
		t.Errorf("error: %q", quiet)
	}
	for _, args := range [][]string{{"--log-format", "xml"}, {"--log-level", "loud"}} {
		if code, said := runLogged(t, args...); code != 2 || !strings.Contains(said, args[0]+` "`+args[1]+`": expected`) {
			t.Errorf("%v: %d %q", args, code, said)
		}
	}
}

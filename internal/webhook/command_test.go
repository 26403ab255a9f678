package webhook

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
)

// script writes a program for a webhook.
func script(t *testing.T, text string, args ...string) config.Webhook {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return config.Webhook{Name: "hook", Command: append([]string{file}, args...), Events: config.WebhookEvents(), Timeout: config.Duration(30 * time.Second)}
}

// A command gets the event on standard input, its arguments as they are, and nothing of
// the environment.
func TestCommand(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	st := openBolt(t, t.TempDir())
	defer st.Close()
	out := filepath.Join(t.TempDir(), "out")
	w := start(t, st, script(t, `cat > "$1"; { echo; echo "$2"; env; } >> "$1"`, out, "$(id) `id` *"))
	w.fails(1)
	d := w.states("hook", meta.DeliveryDelivered)[0]
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	body, rest, _ := strings.Cut(string(text), "\n")
	var e api.Event
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.ID != d.Event.ID || e.Type != api.TypeFailure || e.Server != "https://mirror.example.org" {
		t.Errorf("standard input: %s, %v", body, err)
	}
	if !strings.HasPrefix(rest, "$(id) `id` *\n") || strings.Contains(rest, "hunter2") || !strings.Contains(rest, "SNAPD_EVENT_TYPE=failure\n") || !strings.Contains(rest, "SNAPD_EVENT_ID="+e.ID+"\n") {
		t.Errorf("arguments and environment: %s", rest)
	}
}

// A command that fails is repeated; its first line of messages is recorded. One that does
// not end is killed with its children.
func TestCommandFails(t *testing.T) {
	st := openBolt(t, t.TempDir())
	defer st.Close()
	pid := filepath.Join(t.TempDir(), "pid")
	fails, hangs, missing := script(t, "echo no room >&2; echo more >&2; exit 3"), script(t, `sleep 600 & echo $! > "$1"; sleep 600`, pid), script(t, "")
	fails.Name, hangs.Name, missing.Name = "fails", "hangs", "missing"
	hangs.Timeout = config.Duration(time.Second)
	missing.Command = []string{"/nonexistent/hook"}
	loud := script(t, "head -c 10000000 /dev/zero >&2; sleep 600 2>/dev/null >/dev/null & exit 0")
	loud.Name = "loud"
	w := startWith(t, st, func(c *Config) { c.Backoff = []time.Duration{time.Millisecond} }, fails, hangs, missing, loud)
	w.fails(1)
	if d := w.states("fails", meta.DeliveryFailed)[0]; d.Attempts != 2 || d.Status != 3 || d.Error != fmt.Sprintf("%s: exit status 3: no room", fails.Command[0]) {
		t.Errorf("fails: %+v", d)
	}
	if d := w.states("missing", meta.DeliveryFailed)[0]; !strings.Contains(d.Error, "no such file or directory") {
		t.Errorf("missing: %+v", d)
	}
	w.states("loud", meta.DeliveryDelivered)
	if d := w.states("hangs", meta.DeliveryFailed)[0]; d.Attempts != 2 || !strings.HasSuffix(d.Error, "killed after 1s") || d.Took < time.Second || d.Took > 20*time.Second {
		t.Errorf("hangs: %+v", d)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); alive(child); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the child %d of a killed command goes on", child)
		}
	}
}

// alive reports whether a process runs, and is no zombie.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(state, "Z")
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
)

// What is wrong with a call of run is said before anything is made, and nothing is
// left behind.
func TestRunRefuses(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	rpm := api.ShowResult{Frozen: &api.Frozen{Name: "4.1", Date: day, Mirrors: []api.FrozenMirror{{Mirror: "fedora", Type: "rpm"}}}}
	for _, c := range []struct {
		args   string
		change func()
		exit   int
		err    string
	}{
		{args: "4.1", exit: 2, err: "run needs COMMAND..."},
		{args: "4.1 --jobs 0 make", exit: 2, err: `--jobs "0": expected a number from 1 to 4, the CPUs of this machine`},
		{args: "4.1 --jobs 5 make", exit: 2, err: `--jobs "5": expected a number from 1 to 4, the CPUs of this machine`},
		{args: "4.1 --package ../x make", exit: 2, err: `image cannot be built: package "../x": expected NAME, NAME:ARCH or NAME=VERSION`},
		{args: "4.1 --bind DIR/absent make", exit: 2, err: "--bind DIR/absent: expected a directory: no such file or directory"},
		{args: "4.1 --bind DIR/key.asc make", exit: 2, err: "--bind DIR/key.asc: expected a directory, found a file"},
		{args: "4.1 --output DIR/target make", exit: 2, err: "--output DIR/target: expected a new or empty directory, found EFI in it"},
		{args: "4.1 --output DIR/key.asc make", exit: 2, err: "--output DIR/key.asc: expected a new or empty directory: not a directory"},
		{args: "4.1 --key DIR/key.asc make", exit: 2, err: "--key needs --output: it signs the record there"},
		{args: "4.1 --package bash=1 --package dash --output DIR/new make", exit: 1, err: "--package bash=1, dash: not in it: 4.1\nsnapctl: hint: list what it has with: snapctl packages 4.1"},
		{
			args: "4.1 --output DIR/new make", exit: 1, err: "run 4.1: the freeze has no Debian mirror: environments are made of Debian packages only",
			change: func() { x.fake.answers["show"] = rpm },
		},
		{
			args: "5.0 --output DIR/new make", exit: 1, err: "no snapshot or freeze 5.0\nsnapctl: hint: snapctl list",
			change: func() {
				x.fake.answers["show"] = &api.Error{Code: api.CodeNotFound, Message: "no snapshot or freeze 5.0", Exit: 1}
			},
		},
	} {
		if c.change != nil {
			x.fake.set(c.change)
		}
		args := strings.Fields("run " + strings.ReplaceAll(c.args, "DIR", dir))
		o := x.run(dir, args...)
		if want := "snapctl: error: " + c.err + "\n"; o.Exit != c.exit || !strings.HasPrefix(o.Err, want) {
			t.Errorf("%s: exit %d, errors %q, expected %d, %q", c.args, o.Exit, o.Err, c.exit, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
			t.Errorf("%s: the output is left behind", c.args)
		}
		if left, _ := os.ReadDir(tmp); len(left) > 0 {
			t.Errorf("%s: left behind: %v", c.args, left)
		}
	}
}

// The exit status of the command is that of snapctl, and 4 if a check finds
// differences.
func TestRunExit(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	for i, c := range []struct {
		args   string
		exit   int
		status int // of the command
		err    string
	}{
		{"make --check", 0, 0, ""},
		{"false", 7, 7, "snapctl: error: false ended with exit status 7\n"},
		{"false --check", 7, 7, "snapctl: error: false ended with exit status 7\n"},
		{"date --check", 4, 0, "snapctl: error: run 4.1: the outputs of two runs differ\n"},
	} {
		kept := filepath.Join(dir, "kept", string(rune('a'+i)))
		o := x.run("", append([]string{"run", "4.1", "--output", kept}, strings.Fields(c.args)...)...)
		if o.Exit != c.exit || o.Err != c.err {
			t.Errorf("%s: exit %d, errors %q, expected %d, %q", c.args, o.Exit, o.Err, c.exit, c.err)
		}
		text, err := os.ReadFile(filepath.Join(kept, "run.json"))
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Subject   []struct{ Name string }
			Predicate struct {
				RunDetails struct {
					Byproducts []struct{ Annotations map[string]any }
				}
			}
		}
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		result := s.Predicate.RunDetails.Byproducts[0].Annotations
		if (c.status == 0) != (len(s.Subject) == 1) || result["exit"] != float64(c.status) {
			t.Errorf("%s: recorded %s", c.args, text)
		}
		if _, err := os.Stat(filepath.Join(kept, "run.second/settings")); (err == nil) != (c.exit == 4) {
			t.Errorf("%s: the second run's output: %v", c.args, err)
		}
	}
}

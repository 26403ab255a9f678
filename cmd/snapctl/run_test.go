package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
)

// run reports errors in its arguments before it makes anything, and leaves no files
// behind.
func TestRunRefuses(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, d := range []string{"src", "busy/.snapctl-run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "src"), link); err != nil {
		t.Fatal(err)
	}
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
		{args: "4.1 --output DIR/busy make", exit: 2, err: "--output DIR/busy: expected a new or empty directory, found .snapctl-run, of a run that goes on or was killed, in it"},
		{args: "4.1 --bind DIR/src --output DIR/src make", exit: 2, err: "--output DIR/src: expected a directory outside of that of --bind, found it in DIR/src"},
		{args: "4.1 --bind DIR/src --output LINK/new/new make", exit: 2, err: "--output LINK/new/new: expected a directory outside of that of --bind, found it in DIR/src"},
		{args: "4.1 --bind DIR --output DIR/new make", exit: 2, err: "--output DIR/new: expected a directory outside of that of --bind, found it in DIR"},
		{args: "4.1 --output DIR/key.asc make", exit: 2, err: "--output DIR/key.asc: expected a new or empty directory: not a directory"},
		{args: "4.1 --key DIR/key.asc make", exit: 2, err: "--key needs --output: it signs the record there"},
		{args: "4.1 --package bash=1 --package dash --output DIR/new make", exit: 1, err: "--package bash=1, dash: not in it: 4.1\nsnapctl: hint: list what it has with: snapctl packages 4.1"},
		{
			args: "4.1 --output DIR/new make", exit: 1, err: "run 4.1: it has none of bash, coreutils and dnf: choose the packages of the root with --package",
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
		args := strings.Fields("run " + strings.NewReplacer("DIR", dir, "LINK", link).Replace(c.args))
		o := x.run(dir, args...)
		if want := "snapctl: error: " + strings.ReplaceAll(c.err, "LINK", link) + "\n"; o.Exit != c.exit || !strings.HasPrefix(o.Err, want) {
			t.Errorf("%s: exit %d, errors %q, expected %d, %q", c.args, o.Exit, o.Err, c.exit, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "busy/.snapctl-run")); err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
			t.Errorf("%s: the output is left behind", c.args)
		}
		if left, _ := os.ReadDir(tmp); len(left) > 0 {
			t.Errorf("%s: left behind: %v", c.args, left)
		}
	}
}

// Only one run uses an output directory, and removes only the files that it made there.
// Other users cannot access its working files.
func TestRunOutput(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	outer := filepath.Join(dir, "outer")
	output := filepath.Join(outer, "output")
	args := []string{"run", "4.1", "--output", output, "make"}
	fake := x.envs.run
	for _, other := range []string{"", "other"} {
		x.envs.run = func(ctx context.Context, c buildenv.Config) (int, error) {
			for _, d := range []string{c.WorkDir, filepath.Dir(c.Output)} {
				if st, err := os.Stat(d); err != nil || st.Mode().Perm() != 0o700 {
					t.Errorf("%s: %v, %v", d, st, err)
				}
			}
			x.envs.run = fake
			if o := x.run("", args...); o.Exit != 2 || !strings.Contains(o.Err, "found .snapctl-run, of a run that goes on") {
				t.Errorf("a second run: exit %d, %q", o.Exit, o.Err)
			}
			if _, err := os.Stat(c.Output); err != nil {
				t.Error(err)
			}
			if other != "" {
				if err := os.WriteFile(filepath.Join(output, other), nil, 0o666); err != nil {
					t.Error(err)
				}
			}
			return 0, errors.New("no luck")
		}
		if o := x.run("", args...); o.Exit != 1 || !strings.Contains(o.Err, "no luck") {
			t.Errorf("exit %d, %q", o.Exit, o.Err)
		}
		entries, err := os.ReadDir(output)
		switch {
		case other == "":
			if _, err := os.Lstat(outer); err == nil {
				t.Error("the directory is left behind")
			}
		case err != nil || len(entries) != 1 || entries[0].Name() != other:
			t.Errorf("left: %v, %v", entries, err)
		}
	}
	// An output that would replace a file is an error, and the outputs are removed
	// again.
	if err := os.RemoveAll(outer); err != nil {
		t.Fatal(err)
	}
	x.envs.run = func(ctx context.Context, c buildenv.Config) (int, error) {
		if err := os.WriteFile(filepath.Join(output, "settings"), []byte("other"), 0o666); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(c.Output, "a"), nil, 0o666); err != nil {
			t.Error(err)
		}
		return fake(ctx, c)
	}
	o := x.run("", args...)
	if want := "snapctl: error: " + output + ": it cannot be kept: expected an empty directory, found settings in it\n"; o.Exit != 1 || o.Err != want {
		t.Errorf("exit %d, %q, expected %q", o.Exit, o.Err, want)
	}
	if entries, err := os.ReadDir(output); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if b, err := os.ReadFile(filepath.Join(output, "settings")); err != nil || string(b) != "other" {
		t.Errorf("%q, %v", b, err)
	}
}

// snapctl ends with the exit status of the command, or 4 if a check finds differences.
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

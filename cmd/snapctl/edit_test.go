package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.org/snapd/internal/api"
)

// editFile is a configuration file with a comment.
const editFile = "# Ours.\n[[mirror]]\nname = \"fedora\" # do not touch\ntype = \"rpm\"\nurl = \"https://mirror.example.org/fedora\"\ngpgcheck = false\n"

// editor is a tester whose snapd reads a file with these permissions.
func editor(t *testing.T, text string) (*tester, string) {
	t.Helper()
	x := newTester(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	x.fake.set(func() {
		x.fake.answers["status"] = api.Status{ConfigFile: file}
		x.fake.answers["reload"] = api.ReloadResult{Changed: []string{"fedora"}}
		x.fake.answers["record/list"] = api.RecordList{}
	})
	return x, file
}

func content(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An edit shows its lines, keeps the file's mode, and follows a link.
func TestEditMirror(t *testing.T) {
	x, file := editor(t, editFile)
	link := filepath.Join(t.TempDir(), "link.toml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	x.fake.set(func() { x.fake.answers["status"] = api.Status{ConfigFile: link} })
	o := x.run(t.TempDir(), "mirror", "set", "fedora", "interval=6h")
	if want := "fedora: changed in " + file + ", and in effect\n+interval = \"6h\"\n"; o.Exit != 0 || o.Out != want {
		t.Errorf("exit %d, %q, expected %q\n%s", o.Exit, o.Out, want, o.Err)
	}
	if got := content(t, file); got != editFile+"interval = \"6h\"\n" {
		t.Errorf("file:\n%s", got)
	}
	if st, err := os.Lstat(file); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is replaced: %v, %v", st.Mode(), err)
	}
	if o := x.run(t.TempDir(), "mirror", "set", "fedora", "interval=6h"); !strings.HasPrefix(o.Out, "fedora: nothing to change in ") {
		t.Errorf("the same again: %q", o.Out)
	}
}

// A remote server cannot choose a file of this machine, so no request is sent to it.
func TestEditElsewhere(t *testing.T) {
	x, file := editor(t, editFile)
	for _, args := range [][]string{
		{"mirror", "add", "x", "type=rpm"}, {"mirror", "set", "fedora", "interval=6h"}, {"mirror", "rename", "fedora", "f"}, {"mirror", "rm", "fedora", "--snapshots", "--yes"},
	} {
		x.env = map[string]string{"SNAPCTL_SERVER": "http://127.0.0.1:1", "SNAPCTL_TOKEN_FILE": file}
		o := x.run(t.TempDir(), args...)
		if want := "snapctl: error: mirror " + args[1] + " changes the configuration file of snapd, which is on the server: use it there, without --server\n"; o.Exit != 2 || !strings.HasPrefix(o.Err, want) {
			t.Errorf("%s: exit %d, %s", args, o.Exit, o.Err)
		}
	}
	if got := content(t, file); got != editFile {
		t.Errorf("file:\n%s", got)
	}
}

// A change that snapd refuses leaves the file as it was.
func TestEditRefusedBySnapd(t *testing.T) {
	x, file := editor(t, editFile)
	x.fake.set(func() {
		x.fake.answers["reload"] = &api.Error{Code: api.CodeUsage, Message: "mirror 4.1: the name is already that of a freeze", Exit: api.ExitFailed}
	})
	o := x.run(t.TempDir(), "mirror", "rename", "fedora", "4.1")
	if o.Exit != 1 || !strings.Contains(o.Err, "snapd refused the change, and "+file+" has its earlier content: mirror 4.1: the name is already that of a freeze") {
		t.Errorf("exit %d, %s", o.Exit, o.Err)
	}
	if got := content(t, file); got != editFile {
		t.Errorf("file:\n%s", got)
	}
}

// If snapd does not answer a reload, it may use the new file, which is therefore kept.
func TestEditWithoutAnswer(t *testing.T) {
	x, file := editor(t, editFile)
	x.fake.set(func() { x.fake.answers["reload"] = errHangUp })
	o := x.run(t.TempDir(), "mirror", "set", "fedora", "interval=6h")
	if o.Exit != 1 || !strings.Contains(o.Err, file+" is changed, but snapd did not confirm that it uses it") {
		t.Errorf("exit %d, %s", o.Exit, o.Err)
	}
	if got := content(t, file); !strings.Contains(got, "interval = \"6h\"") {
		t.Errorf("file:\n%s", got)
	}
}

// Two concurrent edits both succeed, and neither is lost.
func TestEditTwice(t *testing.T) {
	for range 20 {
		file := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(file, []byte(editFile), 0o600); err != nil {
			t.Fatal(err)
		}
		settings := []string{"interval=6h", "keep=90d", "max_age=10d"}
		var wait sync.WaitGroup
		for _, setting := range settings {
			x := newTester(t)
			wait.Go(func() {
				if o := x.run(t.TempDir(), "--socket", "/nowhere/snapd.sock", "--config", file, "mirror", "set", "fedora", setting); o.Exit != 0 {
					t.Errorf("%s: exit %d, %s", setting, o.Exit, o.Err)
				}
			})
		}
		wait.Wait()
		for _, setting := range settings {
			key, value, _ := strings.Cut(setting, "=")
			if got := content(t, file); !strings.Contains(got, key+" = \""+value+"\"") {
				t.Errorf("%s is lost:\n%s", setting, got)
			}
		}
	}
}

// If the file cannot be written or found, the lines to write are printed.
func TestEditByHand(t *testing.T) {
	x, file := editor(t, editFile)
	x.fake.set(func() { x.fake.answers["status"] = api.Status{ConfigFile: "/nowhere/config.toml"} })
	o := x.run(t.TempDir(), "mirror", "add", "more", "type=rpm", "url=https://mirror.example.org/more", "gpgcheck=false")
	if want := "[[mirror]]\nname = \"more\"\ntype = \"rpm\"\nurl = \"https://mirror.example.org/more\"\ngpgcheck = false\n"; o.Exit != 1 || o.Out != want {
		t.Errorf("exit %d, %q, expected %q", o.Exit, o.Out, want)
	}
	if !strings.Contains(o.Err, "hint: make this change in /nowhere/config.toml by hand, then run: systemctl reload frozen-snapd") {
		t.Errorf("%s", o.Err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may write everything")
	}
	x.fake.set(func() { x.fake.answers["status"] = api.Status{ConfigFile: file} })
	if err := os.Chmod(filepath.Dir(file), 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Dir(file), 0o700)
	o = x.run(t.TempDir(), "mirror", "set", "fedora", "interval=6h")
	if o.Exit != 1 || o.Out != "+interval = \"6h\"\n" || content(t, file) != editFile {
		t.Errorf("exit %d, %q, %s", o.Exit, o.Out, o.Err)
	}
}

// Without a running snapd, --config names the file.
func TestEditStopped(t *testing.T) {
	x, file := editor(t, editFile)
	link := filepath.Join(t.TempDir(), "link.toml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	o := x.run(t.TempDir(), "--socket", "/nowhere/snapd.sock", "--config", link, "mirror", "rm", "fedora")
	if to, err := os.Readlink(link); err != nil || to != file {
		t.Errorf("the link to the configuration: %q, %v", to, err)
	}
	if o.Exit != 0 || !strings.Contains(o.Out, "takes effect when snapd starts") || content(t, file) != "" {
		t.Errorf("exit %d, %q, %s, file %q", o.Exit, o.Out, o.Err, content(t, file))
	}
	if o := x.run(t.TempDir(), "--socket", "/nowhere/snapd.sock", "mirror", "rm", "fedora"); o.Exit != 1 {
		t.Errorf("without --config: exit %d", o.Exit)
	}
	if o := x.run(t.TempDir(), "--config", file, "mirror", "rm", "fedora"); o.Exit != 2 && o.Exit != 1 {
		t.Errorf("a mirror that is gone: exit %d, %s", o.Exit, o.Err)
	}
	// A file that snapd does not use is not changed.
	other := filepath.Join(t.TempDir(), "other.toml")
	if err := os.WriteFile(other, []byte(editFile), 0o600); err != nil {
		t.Fatal(err)
	}
	o = x.run(t.TempDir(), "--socket", x.fake.socket, "--config", other, "mirror", "rm", "fedora")
	if o.Exit != 2 || !strings.Contains(o.Err, "snapd reads "+file) || content(t, other) != editFile {
		t.Errorf("another file: exit %d, %s", o.Exit, o.Err)
	}
}

// A mirror that a running recording uses is not removed.
func TestEditRecording(t *testing.T) {
	x, file := editor(t, editFile)
	x.fake.set(func() {
		x.fake.answers["record/list"] = api.RecordList{Recordings: []api.Recording{{Name: "4.2", Mirrors: []api.RecordMirror{{Mirror: "fedora"}}}}}
	})
	for _, args := range [][]string{{"mirror", "rm", "fedora"}, {"mirror", "rename", "fedora", "f"}} {
		o := x.run(t.TempDir(), args...)
		if o.Exit != 1 || !strings.Contains(o.Err, "recording 4.2 is running") || !strings.Contains(o.Err, "snapctl record stop 4.2") || content(t, file) != editFile {
			t.Errorf("%v: exit %d, %s", args, o.Exit, o.Err)
		}
	}
}

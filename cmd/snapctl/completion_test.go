package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
)

func TestComplete(t *testing.T) {
	x := newTester(t)
	world(t, x)
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"so"}, "sources"},
		{[]string{"record", ""}, "start stop show list rm"},
		{[]string{"--json", "record", "st"}, "start stop"},
		{[]string{"sources", "--f"}, "--format --for"},
		{[]string{"sources", "4.1", "--format", ""}, "deb822 list repo mmdebstrap repro-env rules-distroless rules-distroless-v1 rpms-lock sha256sums"},
		{[]string{"sources", "--format=repo"}, "--format=repo"},
		{[]string{"sources", "--format", "repo", "--f"}, "--for"},
		{[]string{"freeze", "x", "--package", "a", "--pa"}, "--package"},
		{[]string{"show", ""}, "4.1 stable debian@latest debian@20261122T160000Z"},
		{[]string{"diff", "4.1", "debian@l"}, "debian@latest"},
		{[]string{"diff", "4.1", "4.1", ""}, ""},
		{[]string{"sync", ""}, "debian"},
		{[]string{"freeze", "x", "--mirror", ""}, "debian"},
		{[]string{"freeze", "x", "--manifest", "a"}, ":files"},
		{[]string{"freeze", "x", "--base="}, "--base=4.1"},
		{[]string{"record", "stop", ""}, "4.2"},
		{[]string{"rebuild", ""}, "4.1"},
		{[]string{"channel", "rm", ""}, "stable"},
		{[]string{"channel", "set", "stable", ""}, "4.1 stable"},
		{[]string{"webhook", "test", ""}, "ci.example.org announce"},
		{[]string{"webhook", "log", "--state", "f"}, "failed"},
		{[]string{"verify", ""}, "4.1 stable debian@latest debian@20261122T160000Z :dirs"},
		{[]string{"help", "ml"}, ""},
		{[]string{"help", "record", "s"}, "start stop show"},
		{[]string{"completion", "z"}, "zsh"},
		{[]string{"frob", ""}, ""},
		{[]string{"show", "--", "-"}, ""},
		{nil, "init status mirror sync add remove list show packages find diff freeze label sources verify export import sbom record channel pin unpin rm gc fsck key token audit jobs webhook log witness image rebuild compare run attest iuk help completion man"},
	} {
		o := x.run("", append([]string{"__complete", "--"}, c.words...)...)
		var got []string
		for l := range strings.Lines(o.Out) {
			word, _, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
			got = append(got, word)
		}
		if o.Exit != 0 || o.Err != "" || strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, expected %q (exit %d, %s)", c.words, got, c.want, o.Exit, o.Err)
		}
	}
	// Without a daemon, there are no candidates and no error.
	x.env["SNAPCTL_SOCKET"] = "/nonexistent/socket"
	if o := x.run("", "__complete", "--", "show", ""); o.Exit != 0 || o.Out != "" || o.Err != "" {
		t.Errorf("%+v", o)
	}
}

// TestShells tests the scripts with real shells. Long because it has a driver for each
// shell.
func TestShells(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	bin := filepath.Dir(programPath(t))
	work := t.TempDir()
	for _, f := range []string{"one.manifest", "two words.manifest"} {
		write(t, filepath.Join(work, f), "")
	}
	shell := func(t *testing.T, name string, args ...string) []string {
		t.Helper()
		needs.Program(t, name)
		script := filepath.Join(dir, "completion."+name)
		write(t, script, x.run("", "completion", name).Out)
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SCRIPT="+script, "SNAPCTL_SOCKET="+x.fake.socket, "HOME="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := strings.Split(strings.TrimSpace(string(out)), "\n")
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], "\t")
		}
		slices.Sort(got)
		return slices.Compact(got)
	}
	t.Run("bash", func(t *testing.T) {
		for line, want := range map[string][]string{
			"snapctl rec":                    {"record"},
			"snapctl record sto":             {"stop"},
			"snapctl show debian@l":          {"latest"}, // bash replaces the text after the @
			"snapctl sources --format=re":    {"repo", "repro-env"},
			"snapctl freeze x --manifest o":  {"one.manifest"},
			"snapctl freeze x --manifest tw": {"two words.manifest"},
			"snapctl diff 4.1 ":              {"4.1", "debian@20261122T160000Z", "debian@latest", "stable"},
		} {
			script := `source "$SCRIPT"; COMP_LINE=$1; COMP_POINT=${#1}; COMP_WORDS=(); COMP_CWORD=0; _snapctl; printf '%s\n' "${COMPREPLY[@]}"`
			got := shell(t, "bash", "--norc", "-c", script, "bash", line)
			slices.Sort(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", line, d)
			}
		}
	})
	t.Run("fish", func(t *testing.T) {
		for line, want := range map[string][]string{
			"snapctl rec":                   {"record"},
			"snapctl record sto":            {"stop"},
			"snapctl show debian@l":         {"debian@latest"},
			"snapctl record ":               {"list", "rm", "show", "start", "stop"},
			"snapctl freeze x --manifest o": {"one.manifest"},
		} {
			got := shell(t, "fish", "--no-config", "-c", `source $SCRIPT; complete -C "$argv[1]"`, line)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", line, d)
			}
		}
	})
	t.Run("zsh", func(t *testing.T) {
		// Replace the widgets that receive candidates by functions that print them.
		for line, want := range map[string][]string{
			"snapctl rec":                   {"record"},
			"snapctl show debian@l":         {"debian@latest"},
			"snapctl record ":               {"list", "rm", "show", "start", "stop"},
			"snapctl freeze x --manifest o": {"FILES"},
		} {
			script := `compdef() { : }; _files() { print FILES }; _describe() { local c; for c in ${(P)@[-1]}; do print -r -- "${c%%:*}"; done }
source "$SCRIPT"
words=("${(@s: :)1}"); CURRENT=$#words; _snapctl`
			got := shell(t, "zsh", "-f", "-c", script, "zsh", line)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", line, d)
			}
		}
	})
}

// TestMan checks every page with groff and all its warnings.
func TestMan(t *testing.T) {
	x := newTester(t)
	dir := t.TempDir()
	if o := x.run(dir, "man", "--output", dir); o.Exit != 0 || !strings.Contains(o.Files["snapctl-freeze.1"], `\-\-with\-deps`) {
		t.Fatal(o.Err)
	}
	write(t, filepath.Join(dir, "whole.1"), x.run("", "man").Out)
	needs.Program(t, "groff")
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 20 {
		t.Fatal(pages, err)
	}
	for _, p := range pages {
		cmd := exec.CommandContext(t.Context(), "groff", "-ww", "-man", "-Tascii", p)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil || said.Len() > 0 || len(out) < 500 {
			t.Errorf("%s: %v\n%s", filepath.Base(p), err, said.String())
		}
	}
	// The page is the same every time.
	if a, b := x.run("", "man"), x.run("", "man"); a.Out != b.Out || strings.Contains(a.Out, "2026-11-22 ") {
		t.Error("the page depends on when it was made")
	}
}

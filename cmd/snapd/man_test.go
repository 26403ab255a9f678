package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
)

// The pages name every option, command and key, and groff finds no fault.
func TestMan(t *testing.T) {
	dir := t.TempDir()
	if code := run(t.Context(), []string{"snapd", "man", "--output", dir}); code != 0 {
		t.Fatal(code)
	}
	for name, want := range map[string][]string{
		"snapd.8":             {`\-\-config FILE`, ".SS backup DIR", `\-\-allow\-damaged`, ".SS salvage", ".SS migrate", `\-\-to CONFIG`},
		"frozen-snapd.toml.5": {".SH [server]", ".B data_dir = ", ".B contents = false\nlists of files in packages", ".SH [[mirror]]", ".B repo_gpgcheck = true"},
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(data), w) {
				t.Errorf("%s: no %q", name, w)
			}
		}
		if _, err := exec.LookPath("groff"); err != nil {
			if needs.InCI() {
				t.Fatal(err)
			}
			continue
		}
		cmd := exec.CommandContext(t.Context(), "groff", "-ww", "-man", "-Tutf8", filepath.Join(dir, name))
		var said strings.Builder
		cmd.Stderr = &said
		if out, err := cmd.Output(); err != nil || said.Len() > 0 || len(out) < 1000 {
			t.Errorf("%s: %v %s", name, err, said.String())
		}
	}
}

package buildlist

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
)

// tool runs a command in the C locale and returns what it prints.
func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	needs.Program(t, name)
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "COLUMNS=300")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.Bytes())
	}
	return out
}

// The packages of this machine are the same in every format in which dpkg and apt list
// them, and each format is recognised.
func TestThisMachine(t *testing.T) {
	// dpkg's own list of installed packages is the oracle.
	want := make(map[string]string)
	for line := range strings.Lines(string(tool(t, "dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n"))) {
		if f := strings.Fields(line); len(f) == 4 && strings.ContainsAny(f[0][1:2], "iUFWt") {
			want[f[1]+":"+f[3]] = f[2]
		}
	}
	if len(want) == 0 {
		t.Skip("dpkg knows no packages")
	}
	status, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		format Format
		data   []byte
	}{
		{"status", DpkgStatus, status},
		{"dpkg -l", DpkgQuery, tool(t, "dpkg", "-l")},
		{"apt list", AptList, tool(t, "apt", "list", "--installed")},
	} {
		m, err := Parse(tt.name, bytes.NewReader(tt.data), "")
		if err != nil {
			t.Error(err)
			continue
		}
		if m.Format != tt.format {
			t.Errorf("%s: recognised as %s", tt.name, m.Format)
		}
		got := make(map[string]string)
		for _, e := range m.Entries {
			got[e.Name+":"+e.Arch] = e.Version
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-dpkg +read):\n%s", tt.name, d)
		}
	}
	for _, columns := range []string{
		"${Package} ${Version} ${Architecture}\n", "${Package},${Version},${Architecture}\n", "${Package}\t${Version}\t${Architecture}\t${Status}\n",
		"${binary:Package}|${Version}|${db:Status-Status}\n",
	} {
		m, err := Parse("columns", bytes.NewReader(tool(t, "dpkg-query", "-W", "-f", columns)), "")
		if err != nil || m.Format != Mmdebstrap && m.Format != DpkgQuery {
			t.Errorf("dpkg-query -W -f %q: %v", columns, err)
		}
	}
	selected, err := Parse("dpkg --get-selections", bytes.NewReader(tool(t, "dpkg", "--get-selections")), "")
	if err != nil || selected.Format != DpkgSelections {
		t.Fatalf("dpkg --get-selections: %v", err)
	}
	names := make(map[string]bool)
	for _, e := range selected.Entries {
		names[e.Name] = true
	}
	for name := range want {
		if name, _, _ = strings.Cut(name, ":"); !names[name] {
			t.Errorf("dpkg --get-selections: %s is installed and was not read", name)
		}
	}
	m, err := Parse("dpkg-query -W", bytes.NewReader(tool(t, "dpkg-query", "-W")), "")
	if err != nil || m.Format != DpkgQuery {
		t.Errorf("dpkg-query -W: %v", err)
	}
}

package nevra

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
)

// TestVercmpAgainstRPM compares random pairs with rpm's own comparison.
func TestVercmpAgainstRPM(t *testing.T) {
	needs.Program(t, "rpm")
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{"0", "1", "2", "10", "010", "a", "b", "rc", "RC", "fc41", ".", "..", "_", "+", "~", "^", "~rc", "^git", "é", "9999999999999999999999", "00"}
	word := func() string {
		var b strings.Builder
		for range 1 + rng.IntN(5) {
			b.WriteString(parts[rng.IntN(len(parts))])
		}
		return b.String()
	}
	var pairs [][2]string
	for range 6000 {
		a := word()
		b := word()
		if rng.IntN(2) == 0 {
			b = a + parts[rng.IntN(len(parts))]
		}
		pairs = append(pairs, [2]string{a, b})
	}
	// Compare all pairs in one rpm process, which reads them from a file.
	dir := t.TempDir()
	in := dir + "/pairs"
	var sb strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&sb, "%s\n%s\n", p[0], p[1])
	}
	if err := os.WriteFile(in, []byte(sb.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `%{lua: local f = io.open("` + in + `"); while true do local a = f:read("L"); if not a then break end; local b = f:read("L"); ` +
		`print(rpm.vercmp(a:sub(1,-2), b:sub(1,-2)) .. "\n") end}`
	out, err := exec.CommandContext(t.Context(), "rpm", "--eval", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	i := 0
	for sc.Scan() {
		if sc.Text() == "" {
			continue
		}
		want, err := strconv.Atoi(sc.Text())
		if err != nil {
			t.Fatalf("rpm printed %q", sc.Text())
		}
		p := pairs[i]
		if got := Vercmp(p[0], p[1]); got != want {
			t.Errorf("Vercmp(%q, %q) = %d, rpm says %d", p[0], p[1], got, want)
		}
		i++
	}
	if i != len(pairs) {
		t.Fatalf("rpm answered %d of %d pairs", i, len(pairs))
	}
}

func TestCompareEVR(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1:1.0-1", "2.0-1", 1},
		{"0:1.0-1", "1.0-1", 0},
		{"1.0-1", "1.0-2", -1},
		{"1.0", "1.0-2", 0},
		{"1.0~rc1-1", "1.0-1", -1},
		{"1.0^git1-1", "1.0-1", 1},
		{"1.0^git1-1", "1.0.1-1", -1},
	} {
		a, err := ParseEVR(c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseEVR(c.b)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Compare(b); got != c.want {
			t.Errorf("%s against %s: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := b.Compare(a); got != -c.want {
			t.Errorf("%s against %s: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

func TestParse(t *testing.T) {
	bash := NEVRA{Name: "bash", EVR: EVR{Version: "5.2.15", Release: "3.fc38"}, Arch: "x86_64"}
	perl := NEVRA{Name: "perl-Module-Load", EVR: EVR{Epoch: 1, Version: "0.36", Release: "500.fc40"}, Arch: "noarch"}
	noArch := bash
	noArch.Arch = ""
	for in, want := range map[string]NEVRA{
		"bash-5.2.15-3.fc38.x86_64":                      bash,
		"bash-5.2.15-3.fc38.x86_64.rpm":                  bash,
		"Packages/b/bash-5.2.15-3.fc38.x86_64.rpm":       bash,
		"bash-0:5.2.15-3.fc38.x86_64":                    bash,
		"bash-(none):5.2.15-3.fc38.x86_64":               bash,
		"0:bash-5.2.15-3.fc38.x86_64":                    bash,
		"bash-5.2.15-3.fc38":                             noArch,
		"perl-Module-Load-1:0.36-500.fc40.noarch":        perl,
		"1:perl-Module-Load-0.36-500.fc40.noarch":        perl,
		"gpg-pubkey-a15b79cc-63d04c2c.(none)":            {Name: "gpg-pubkey", EVR: EVR{Version: "a15b79cc", Release: "63d04c2c"}},
		"kernel-6.9.0~rc1^git2+x-0.1_a.src":              {Name: "kernel", EVR: EVR{Version: "6.9.0~rc1^git2+x", Release: "0.1_a"}, Arch: "src"},
		"java-1.8.0-openjdk-1:1.8.0.402.b06-1.el9.ppc64": {Name: "java-1.8.0-openjdk", EVR: EVR{Epoch: 1, Version: "1.8.0.402.b06", Release: "1.el9"}, Arch: "ppc64"},
	} {
		got, err := Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", in, d)
		}
	}
	for in, want := range map[string]string{
		"":                      `package "": not an rpm package name: no release`,
		"bash":                  `package "bash": not an rpm package name: no release`,
		"bash-5":                `package "bash-5": not an rpm package name: no version`,
		"-5-3":                  `package "-5-3": not an rpm package name: name ""`,
		"bash-x:5-3.x86_64":     `package "bash-x:5-3.x86_64": not an rpm package name: epoch "x"`,
		"1:bash-1:5-3.x86_64":   `package "1:bash-1:5-3.x86_64": not an rpm package name: epoch "1"`,
		"bash--3.x86_64":        `package "bash--3.x86_64": not an rpm package name: version ""`,
		"bash-5 6-3.x86_64":     `package "bash-5 6-3.x86_64": not an rpm package name: version "5 6"`,
		"bash-5-.x86_64":        `package "bash-5-.x86_64": not an rpm package name: release ""`,
		"bash-99999999999:5-3":  `package "bash-99999999999:5-3": not an rpm package name: epoch "99999999999"`,
		"ba\x00sh-5-3.x86_64":   `package "ba\x00sh-5-3.x86_64": not an rpm package name: name "ba\x00sh"`,
		"ba\nsh-5-3.x86_64.rpm": `package "ba\nsh-5-3.x86_64.rpm": not an rpm package name: name "ba\nsh"`,
	} {
		_, err := Parse(in)
		if err == nil || err.Error() != want {
			t.Errorf("Parse(%q): %v, want %s", in, err, want)
		}
	}
}

func TestParseLine(t *testing.T) {
	bash := NEVRA{Name: "bash", EVR: EVR{Epoch: 2, Version: "5.2", Release: "3.fc38"}, Arch: "x86_64"}
	for _, in := range []string{
		"bash-2:5.2-3.fc38.x86_64",
		"  bash-2:5.2-3.fc38.x86_64\r\n",
		"bash.x86_64    2:5.2-3.fc38    @fedora",
		"bash.x86_64 2:5.2-3.fc38",
		"bash 2:5.2-3.fc38 x86_64",
		"bash 2 5.2 3.fc38 x86_64",
		"bash-2:5.2-3.fc38.x86_64 fedora",
	} {
		got, skip, err := ParseLine(in)
		if err != nil || skip {
			t.Errorf("ParseLine(%q): %v, %v", in, skip, err)
			continue
		}
		if d := cmp.Diff(bash, got); d != "" {
			t.Errorf("ParseLine(%q) (-want +got):\n%s", in, d)
		}
	}
	for _, in := range []string{"", "# x", "Installed Packages", "gpg-pubkey-a15b79cc-63d04c2c.(none)", "gpg-pubkey (none) a15b79cc 63d04c2c (none)"} {
		if _, skip, err := ParseLine(in); err != nil || !skip {
			t.Errorf("ParseLine(%q): %v, %v", in, skip, err)
		}
	}
	if _, _, err := ParseLine("one two three four"); err == nil {
		t.Error("ParseLine accepted four words")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("bash-2:5.2-3.fc38.x86_64")
	f.Add("1:a-2-3.noarch.rpm")
	f.Add("gpg-pubkey-1-2.(none)")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err == nil {
			again, err := Parse(n.String())
			if err != nil || again != n {
				t.Fatalf("Parse(%q) = %+v, and of its String %q: %+v, %v", s, n, n.String(), again, err)
			}
		}
		_, _, _ = ParseLine(s)
		if Vercmp(s, s) != 0 {
			t.Fatalf("%q is not equal to itself", s)
		}
	})
}

package deb

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.org/snapd/internal/needs"
)

// dpkgCompare compares two versions with dpkg itself.
func dpkgCompare(tb testing.TB, dpkg, a, b string) int {
	tb.Helper()
	is := func(op string) bool {
		err := exec.Command(dpkg, "--compare-versions", a, op, b).Run()
		var exit *exec.ExitError
		if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
			tb.Fatalf("dpkg --compare-versions %q %s %q: %v", a, op, b, err)
		}
		return err == nil
	}
	switch {
	case is("lt"):
		return -1
	case is("eq"):
		return 0
	}
	return 1
}

func TestCompareVersions(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"1", "1", 0},
		{"1.0", "1.0-0", 0},
		{"0:1", "1", 0},
		{"1:0", "2", 1},
		{"1.0~rc1", "1.0", -1},
		{"1.0~~", "1.0~", -1},
		{"1.0a", "1.0+", -1},
		{"1.0-1", "1.0-1+b1", -1},
		{"1.09", "1.9", 0},
		{"1.10", "1.9", 1},
		{"2.4~rc1-1", "2.4-1", -1},
		{"1.0-1~bpo12+1", "1.0-1", -1},
		{"1.0-1-2", "1.0-1-10", -1},
		{"1.0.", "1.0", 1},
		{"99999999999999999999999", "100000000000000000000000", -1},
		{"", "0", 0},
	} {
		if got := CompareVersions(tt.a, tt.b); got != tt.want {
			t.Errorf("%q %q: %d, expected %d", tt.a, tt.b, got, tt.want)
		}
		if got := CompareVersions(tt.b, tt.a); got != -tt.want {
			t.Errorf("%q %q: %d, expected %d", tt.b, tt.a, got, -tt.want)
		}
	}
}

// genVersion makes versions that dpkg accepts, from few characters, so that they are
// often similar.
func genVersion() *rapid.Generator[string] {
	part := rapid.StringMatching(`[0-9][0-9a~+.]{0,6}`)
	return rapid.Custom(func(t *rapid.T) string {
		v := part.Draw(t, "upstream")
		if rapid.Bool().Draw(t, "revised") {
			v += "-" + rapid.StringMatching(`[0-9a~+.]{1,4}`).Draw(t, "revision")
		}
		if rapid.IntRange(0, 3).Draw(t, "epoch") == 0 {
			v = rapid.StringMatching(`0{0,2}[0-2]`).Draw(t, "epoch number") + ":" + v
		}
		return v
	})
}

func TestCompareVersionsAsDpkg(t *testing.T) {
	dpkg := needs.Program(t, "dpkg")
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		if n++; n > 300 || testing.Short() && n > 30 {
			return // two processes for each pair
		}
		a, b := genVersion().Draw(rt, "a"), genVersion().Draw(rt, "b")
		if got, want := CompareVersions(a, b), dpkgCompare(t, dpkg, a, b); got != want {
			rt.Fatalf("%q %q: %d, dpkg says %d", a, b, got, want)
		}
	})
}

func TestCompareVersionsIsAnOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b, c := genVersion().Draw(rt, "a"), genVersion().Draw(rt, "b"), genVersion().Draw(rt, "c")
		if CompareVersions(a, b) != -CompareVersions(b, a) {
			rt.Fatalf("%q %q: not antisymmetric", a, b)
		}
		if CompareVersions(a, b) <= 0 && CompareVersions(b, c) <= 0 && CompareVersions(a, c) > 0 {
			rt.Fatalf("%q %q %q: not transitive", a, b, c)
		}
	})
}

func FuzzCompareVersions(f *testing.F) {
	dpkg, _ := exec.LookPath("dpkg")
	f.Add("1:1.0-1", "1.0~rc1+b1", false)
	f.Add("1-", ":", false)
	f.Fuzz(func(t *testing.T, a, b string, ask bool) {
		c := CompareVersions(a, b)
		if c != -CompareVersions(b, a) || CompareVersions(a, a) != 0 {
			t.Fatalf("%q %q: not antisymmetric", a, b)
		}
		// dpkg refuses most strings, so compare only plausible ones.
		const alphabet = "0123456789abcABC.+~"
		if dpkg == "" || !ask || strings.Trim(a+b, alphabet) != "" || a == "" || b == "" || !isDigit(a[0]) || !isDigit(b[0]) {
			return
		}
		if want := dpkgCompare(t, dpkg, a, b); c != want {
			t.Fatalf("%q %q: %d, dpkg says %d", a, b, c, want)
		}
	})
}

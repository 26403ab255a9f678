package iuk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// wantUDF has the layout of Tails' own files, but with quoted versions.
const wantUDF = `---
build-target: amd64
channel: stable
initial-install-version: '6.8'
product-name: Tails
upgrades:
- details-url: https://example.org/news/version_6.9/
  type: minor
  upgrade-paths:
  - target-files:
    - sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
      size: 1
      url: https://mirror.example.org/stable/tails-amd64-6.9/tails-amd64-6.9.iso
    type: full
  - target-files:
    - sha256: a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa
      size: 1
      url: https://mirror.example.org/stable/iuk/v2/Tails_amd64_6.8_to_6.9.iuk
    type: incremental
  version: '6.9'
`

func exampleUDF() *UDF {
	return &UDF{ProductName: "Tails", InitialInstallVersion: "6.8", BuildTarget: "amd64", Channel: "stable",
		Upgrades: []Upgrade{{Version: "6.9", Type: UpgradeMinor, DetailsURL: "https://example.org/news/version_6.9/", Paths: []UpgradePath{
			{PathFull, []TargetFile{{"https://mirror.example.org/stable/tails-amd64-6.9/tails-amd64-6.9.iso", 1, cas.Sum([]byte("x"))}}},
			{PathIncremental, []TargetFile{{"https://mirror.example.org/stable/iuk/v2/Tails_amd64_6.8_to_6.9.iuk", 1, cas.Sum([]byte("y"))}}},
		}}}}
}

func TestUDFFormat(t *testing.T) {
	u := exampleUDF()
	if err := u.Check(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wantUDF, string(u.Format())); d != "" {
		t.Errorf("format (-want +got):\n%s", d)
	}
	got, err := ParseUDF(u.Format())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(u, got); d != "" {
		t.Errorf("parsed (-want +got):\n%s", d)
	}
	empty := &UDF{ProductName: "Tails", InitialInstallVersion: "6.10", BuildTarget: "amd64", Channel: "n"}
	if d := cmp.Diff("---\nbuild-target: amd64\nchannel: 'n'\ninitial-install-version: '6.10'\nproduct-name: Tails\n", string(empty.Format())); d != "" {
		t.Errorf("empty (-want +got):\n%s", d)
	}
}

// TestUDFOfOthers parses a UDF as other programs may write it: unquoted versions,
// another order, quoted keys.
func TestUDFOfOthers(t *testing.T) {
	text := "product-name: Tails\n\"initial-install-version\": 6.10\nchannel: 'stable'\nbuild-target: amd64\nupgrades: []\n"
	got, err := ParseUDF([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&UDF{ProductName: "Tails", InitialInstallVersion: "6.10", BuildTarget: "amd64", Channel: "stable"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParseUDFErrors(t *testing.T) {
	replace := func(old, new string) string { return strings.Replace(wantUDF, old, new, 1) }
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "EOF: bad upgrade-description file"},
		{"list", "- a\n", "line 1: file: expected a mapping: bad upgrade-description file"},
		{"two documents", wantUDF + wantUDF, "several documents: bad upgrade-description file"},
		{"unknown key", wantUDF + "extra: 1\n", `line 21: file: unknown key "extra": bad upgrade-description file`},
		{"twice", wantUDF + "channel: alpha\n", `line 21: file: key "channel" occurs twice: bad upgrade-description file`},
		{"alias", replace("product-name: Tails", "product-name: &a Tails"), "product-name: line 5: expected a plain value: bad upgrade-description file"},
		{"tag", replace("size: 1", "size: !!str 1"), "upgrades: upgrade-paths: target-files: size: line 12: expected a plain value: bad upgrade-description file"},
		{"null", replace("channel: stable", "channel:"), "channel: line 3: expected a plain value: bad upgrade-description file"},
		{"size", replace("size: 1", "size: 0x10"), `upgrades: upgrade-paths: target-files: size: "0x10" is not a number of bytes: bad upgrade-description file`},
		{"no size", replace("size: 1", "size: 0"), "upgrade to 6.9: https://mirror.example.org/stable/tails-amd64-6.9/tails-amd64-6.9.iso: size 0: bad upgrade-description file"},
		{"digest", replace("sha256: 2d", "sha256: "), "upgrades: upgrade-paths: target-files: sha256: SHA-256 \"711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\": 62 characters, expected 64: bad upgrade-description file"},
		{"path in version", replace("'6.9'", "'../6.9'"), `upgrade: "../6.9" is not a version: bad upgrade-description file`},
		{"itself", replace("version: '6.9'", "version: '6.8'"), "upgrade from 6.8 to itself: bad upgrade-description file"},
		{"type", replace("type: minor", "type: tiny"), `upgrade to 6.9: type: expected major or minor, found "tiny": bad upgrade-description file`},
		{"two full", replace("type: incremental", "type: full"), "upgrade to 6.9: two full paths: bad upgrade-description file"},
		{"url", replace("https://mirror.example.org/stable/tails", "file:///etc/tails"), `upgrade to 6.9: target file: url: "file:///etc/tails-amd64-6.9/tails-amd64-6.9.iso" is not a plain http or https URL: bad upgrade-description file`},
		{"no product", replace("product-name: Tails\n", ""), `product-name: "" is not valid: bad upgrade-description file`},
		{"large", strings.Repeat("#", MaxUDF+1), "65537 bytes, expected at most 65536: bad upgrade-description file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseUDF([]byte(tt.text))
			if !errors.Is(err, ErrUDF) || err.Error() != tt.want {
				t.Errorf("expected %q, found %v", tt.want, err)
			}
		})
	}
}

// fakeSigner "signs" with a digest, so that the test can check what was signed.
type fakeSigner struct{ fail string }

func (s fakeSigner) SignDetached(_ context.Context, w io.Writer, data []byte) error {
	if s.fail != "" && bytes.Contains(data, []byte(s.fail)) {
		return errors.New("no key")
	}
	_, err := fmt.Fprintf(w, "signed %x\n", sha256.Sum256(data))
	return err
}

func (s fakeSigner) VerifyDetached(_ context.Context, data, sig []byte) error {
	if want := fmt.Sprintf("signed %x\n", sha256.Sum256(data)); string(sig) != want {
		return errors.New("bad signature")
	}
	return nil
}

// smallKit makes a kit between two versions.
func smallKit(t testing.TB, from, to string) []byte {
	t.Helper()
	old := squashfstest.Pack(t, []fixture{ffile("a", []byte("a"))}, squashfs.Options{})
	new := squashfstest.Pack(t, []fixture{ffile("a", []byte("b"))}, squashfs.Options{})
	return readAll(t, create(t, CreateOptions{From: []Source{{Version: from, Image: input(t, old)}}, To: Source{Version: to, Image: input(t, new)}})[0].Path)
}

// releaseOptions is a release with an image of "x" and a kit from 6.8.
func releaseOptions(t *testing.T, channel, to string) UDFOptions {
	t.Helper()
	dir := t.TempDir()
	o := UDFOptions{
		Product: "Tails", BuildTarget: "amd64", Channel: channel, To: to,
		From: []string{"6.8", "6.9~rc1", "5.22"}, Next: []string{"6.10", "6.10~rc1"},
		ImageURL: "https://mirror.example.org/" + channel + "/tails-amd64-" + to + "/tails-amd64-" + to + ".iso",
		Image:    filepath.Join(dir, "image"), IUKs: dir, IUKURL: "https://mirror.example.org/" + channel + "/iuk/v2/",
		DetailsURL: "https://example.org/news/version_" + to + "/", Output: filepath.Join(dir, "out"),
	}
	for name, data := range map[string][]byte{o.Image: []byte("x"), filepath.Join(dir, "Tails_amd64_6.8_to_"+to+".iuk"): smallKit(t, "6.8", to)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// checkWritten checks a UDF like a client.
func checkWritten(t *testing.T, dir string, f UDFFile) {
	t.Helper()
	name := filepath.Join(dir, f.Path)
	data, sig := readAll(t, name), readAll(t, name+".pgp")
	if err := (fakeSigner{}).VerifyDetached(t.Context(), data, sig); err != nil {
		t.Errorf("%s: %v", f.Path, err)
	}
	u, err := ParseUDF(data)
	if err != nil {
		t.Errorf("%s: %v", f.Path, err)
		return
	}
	if p := UDFPath(u.ProductName, u.InitialInstallVersion, u.BuildTarget, u.Channel); p != f.Path {
		t.Errorf("%s is for %s", f.Path, p)
	}
}

func readAll(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWriteUDFs(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, tt := range []struct {
		channel, to string
		want        []UDFFile
	}{
		{"stable", "6.9", []UDFFile{
			{"v2/Tails/6.9/amd64/alpha/upgrades.yml", "alpha", "6.9", "", false},
			{"v2/Tails/6.9/amd64/stable/upgrades.yml", "stable", "6.9", "", false},
			{"v2/Tails/6.10/amd64/alpha/upgrades.yml", "alpha", "6.10", "", false},
			{"v2/Tails/6.10/amd64/stable/upgrades.yml", "stable", "6.10", "", false},
			{"v2/Tails/6.10~rc1/amd64/alpha/upgrades.yml", "alpha", "6.10~rc1", "", false},
			{"v2/Tails/6.10~rc1/amd64/stable/upgrades.yml", "stable", "6.10~rc1", "", false},
			{"v2/Tails/6.8/amd64/stable/upgrades.yml", "stable", "6.8", "6.9", true},
			{"v2/Tails/6.9~rc1/amd64/alpha/upgrades.yml", "alpha", "6.9~rc1", "6.9", false},
			{"v2/Tails/6.9~rc1/amd64/stable/upgrades.yml", "stable", "6.9~rc1", "6.9", false},
			{"v2/Tails/5.22/amd64/stable/upgrades.yml", "stable", "5.22", "6.9", false},
		}},
		{"alpha", "6.9~rc2", []UDFFile{
			{"v2/Tails/6.9~rc2/amd64/alpha/upgrades.yml", "alpha", "6.9~rc2", "", false},
			{"v2/Tails/6.9~rc2/amd64/stable/upgrades.yml", "stable", "6.9~rc2", "", false},
			{"v2/Tails/6.10/amd64/alpha/upgrades.yml", "alpha", "6.10", "", false},
			{"v2/Tails/6.10/amd64/stable/upgrades.yml", "stable", "6.10", "", false},
			{"v2/Tails/6.10~rc1/amd64/alpha/upgrades.yml", "alpha", "6.10~rc1", "", false},
			{"v2/Tails/6.10~rc1/amd64/stable/upgrades.yml", "stable", "6.10~rc1", "", false},
			{"v2/Tails/6.8/amd64/alpha/upgrades.yml", "alpha", "6.8", "6.9~rc2", true},
			{"v2/Tails/6.9~rc1/amd64/alpha/upgrades.yml", "alpha", "6.9~rc1", "6.9~rc2", false},
			{"v2/Tails/5.22/amd64/alpha/upgrades.yml", "alpha", "5.22", "6.9~rc2", false},
		}},
	} {
		t.Run(tt.channel, func(t *testing.T) {
			o := releaseOptions(t, tt.channel, tt.to)
			got, err := WriteUDFs(t.Context(), o, fakeSigner{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			for _, f := range got {
				checkWritten(t, o.Output, f)
			}
			if tt.channel == "stable" {
				b, err := os.ReadFile(filepath.Join(o.Output, "v2/Tails/6.8/amd64/stable/upgrades.yml"))
				if err != nil {
					t.Fatal(err)
				}
				kit := readAll(t, filepath.Join(o.IUKs, "Tails_amd64_6.8_to_6.9.iuk"))
				want := strings.Replace(wantUDF, cas.Sum([]byte("y")).String()+"\n      size: 1\n", fmt.Sprintf("%v\n      size: %d\n", cas.Sum(kit), len(kit)), 1)
				if d := cmp.Diff(want, string(b)); d != "" {
					t.Errorf("6.8 (-want +got):\n%s", d)
				}
				b, err = os.ReadFile(filepath.Join(o.Output, "v2/Tails/5.22/amd64/stable/upgrades.yml"))
				if err != nil || !bytes.Contains(b, []byte("type: major\n")) {
					t.Errorf("5.22: expected a major upgrade, found %v\n%s", err, b)
				}
			}
			st, err := os.Stat(filepath.Join(o.Output, got[0].Path))
			if err != nil || st.Mode() != 0o644 {
				t.Errorf("mode: expected 0644 whatever the umask, found %v, %v", st.Mode(), err)
			}
			// Writing the files again gives the same bytes.
			if _, err := WriteUDFs(t.Context(), o, fakeSigner{}); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(o.Output, "v2/Tails/*/amd64/*/.*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestWriteUDFsErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *UDFOptions)
		signer fakeSigner
		want   string
	}{
		{"signer", func(*testing.T, *UDFOptions) {}, fakeSigner{"5.22"}, "sign v2/Tails/5.22/amd64/stable/upgrades.yml: no key"},
		{"no image", func(t *testing.T, o *UDFOptions) { o.Image = "/nonexistent/image" }, fakeSigner{}, "full image: open /nonexistent/image: no such file or directory"},
		{"version", func(t *testing.T, o *UDFOptions) { o.Next = []string{"../.."} }, fakeSigner{}, `next: "../.." is not a version`},
		{"twice", func(t *testing.T, o *UDFOptions) { o.From = append(o.From, "6.9") }, fakeSigner{}, `version 6.9 is given twice: as to and as from`},
		{"channel", func(t *testing.T, o *UDFOptions) { o.Channel = "test" }, fakeSigner{}, `channel: expected alpha or stable, found "test"`},
		{"foreign file", func(t *testing.T, o *UDFOptions) {
			p := filepath.Join(o.Output, "v2/Tails/6.8/amd64/stable")
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			u := exampleUDF()
			u.Channel = "alpha"
			if err := os.WriteFile(filepath.Join(p, "upgrades.yml"), u.Format(), 0o644); err != nil {
				t.Fatal(err)
			}
		}, fakeSigner{}, "existing v2/Tails/6.8/amd64/stable/upgrades.yml: it describes Tails 6.8, amd64, alpha: bad upgrade-description file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := releaseOptions(t, "stable", "6.9")
			tt.change(t, &o)
			_, err := WriteUDFs(t.Context(), o, tt.signer)
			if err == nil || err.Error() != tt.want {
				t.Errorf("expected %q, found %v", tt.want, err)
			}
			if _, err := os.Stat(filepath.Join(o.Output, "v2/Tails/6.9")); !os.IsNotExist(err) {
				t.Errorf("something was written before the error")
			}
		})
	}
}

// TestUDFSignsGoodKitsOnly checks that a bad kit, or one for other versions, is an error.
func TestUDFSignsGoodKitsOnly(t *testing.T) {
	kit := smallKit(t, "6.8", "6.9")
	used := binary.LittleEndian.Uint64(kit[40:])
	for _, tt := range []struct {
		name string
		data []byte
		is   error
		want string
	}{
		{"no kit", squashfstest.Noise(1, 5000), ErrKit, "not a SquashFS image"},
		{"empty", nil, ErrKit, "not a SquashFS image"},
		{"an image", readAll(t, squashfstest.Pack(t, []fixture{ffile("a", nil)}, squashfs.Options{})), ErrKit, "kit's format version cannot be determined"},
		{"cut", kit[:len(kit)-1500], ErrKit, fmt.Sprintf("the file has %d bytes, expected %d", len(kit)-1500, len(kit))},
		{"junk behind", append(bytes.Clone(kit), make([]byte, 100_000)...), ErrKit, fmt.Sprintf("the file has %d bytes, expected %d", len(kit)+100_000, len(kit))},
		{"junk in the padding", changed(kit, func(b []byte) { b[used] = 'x' }), ErrKit, fmt.Sprintf("is not zero at byte %d", used)},
		{"another base", smallKit(t, "6.7", "6.9"), ErrOtherVersions, "expected a kit Tails_amd64_6.8_to_6.9.iuk, its provenance.json says Tails_amd64_6.7_to_6.9.iuk"},
		{"another target", smallKit(t, "6.8", "6.10"), ErrOtherVersions, "its provenance.json says Tails_amd64_6.8_to_6.10.iuk"},
		{"good", kit, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := releaseOptions(t, "stable", "6.9")
			if err := os.WriteFile(filepath.Join(o.IUKs, "Tails_amd64_6.8_to_6.9.iuk"), tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := WriteUDFs(t.Context(), o, fakeSigner{})
			if !errors.Is(err, tt.is) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(o.Output, "v2")); (err == nil) != (tt.is == nil) {
				t.Errorf("output: %v", err)
			}
		})
	}
}

func changed(b []byte, change func([]byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	return b
}

// TestUDFInPython parses a UDF with another YAML parser.
func TestUDFInPython(t *testing.T) {
	py, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(py, "-c", "import yaml").Run()
	}
	if err != nil {
		t.Skip("python3 with yaml is missing")
	}
	u := exampleUDF()
	u.Upgrades[0].Paths[0].TargetFiles[0].SHA256, _ = cas.ParseDigest("1e" + strings.Repeat("0", 62))
	cmd := exec.CommandContext(t.Context(), py, "-c", `
import sys, yaml
u = yaml.safe_load(sys.stdin)
assert u["initial-install-version"] == "6.8" and u["upgrades"][0]["version"] == "6.9", u
f = u["upgrades"][0]["upgrade-paths"][0]["target-files"][0]
assert f["sha256"] == "1e" + "0" * 62 and f["size"] == 1, f`)
	cmd.Stdin = bytes.NewReader(u.Format())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func FuzzParseUDF(f *testing.F) {
	f.Add([]byte(wantUDF))
	f.Add([]byte("---\nbuild-target: amd64\nchannel: stable\ninitial-install-version: 6.10\nproduct-name: Tails\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := ParseUDF(data)
		if err != nil {
			if !errors.Is(err, ErrUDF) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		again, err := ParseUDF(u.Format())
		if err != nil {
			t.Fatalf("%v\n%s", err, u.Format())
		}
		if d := cmp.Diff(u, again); d != "" {
			t.Fatal(d)
		}
	})
}

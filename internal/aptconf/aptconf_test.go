package aptconf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// show formats mirrors as a few lines.
func show(ms []Mirror) []string {
	var out []string
	for _, m := range ms {
		s := fmt.Sprintf("%s: %s suites=%s components=%s archs=%s langs=%s sources=%v keyring=%s keys=%d from=%s", m.Name, m.URL,
			strings.Join(m.Suites, ","), strings.Join(m.Components, ","), strings.Join(m.Architectures, ","), strings.Join(m.Languages, ","),
			m.Sources, strings.Join(m.Keyring, ","), len(m.Keys), strings.Join(m.From, ","))
		for _, n := range m.Notes {
			s += " note=" + n
		}
		out = append(out, s)
	}
	return out
}

func showSkipped(ss []Skipped) []string {
	var out []string
	for _, s := range ss {
		out = append(out, s.String())
	}
	return out
}

// machine is a machine with these files below /etc/apt, and keys.
func machine(t *testing.T, files map[string]string) (Machine, *sign.PrivateKey) {
	t.Helper()
	k := signtest.NewKey(t, "archive")
	m := Machine{FS: fstest.MapFS{
		"usr/share/keyrings/debian-archive-keyring.gpg": {Data: k.Keyring().Export()},
		"etc/apt/trusted.gpg":                           {Data: nil}, // as on many machines
		"etc/apt/trusted.gpg.d/debian.asc":              {Data: k.Keyring().ExportArmored()},
		"etc/apt/trusted.gpg.d/README":                  {Data: []byte("no key")},
		"usr/share/keyrings/b.gpg":                      {Data: signtest.NewKey(t, "b").Keyring().Export()},
		"usr/share/keyrings/broken.gpg":                 {Data: []byte("no key")},
	}, Architectures: []string{"amd64", "i386"}}
	for n, text := range files {
		m.FS.(fstest.MapFS)["etc/apt/"+n] = &fstest.MapFile{Data: []byte(text)}
	}
	return m, k
}

// Long because of its table of cases.
func TestFromFiles(t *testing.T) {
	const trusted = "keyring=/etc/apt/trusted.gpg.d/debian.asc,/usr/share/keyrings/debian-archive-keyring.gpg keys=0"
	const debian = "keyring=/usr/share/keyrings/debian-archive-keyring.gpg keys=0"
	for _, tt := range []struct {
		name          string
		files         map[string]string
		want, skipped []string
	}{
		{"Debian's own", map[string]string{"sources.list.d/debian.sources": `# Debian
Types: deb deb-src
# as installed
URIs: http://deb.example.org/debian/
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.example.org/debian-security
Suites: bookworm-security
Components: main
Architectures: amd64
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`}, []string{
			"debian: http://deb.example.org/debian suites=bookworm,bookworm-updates components=main,non-free-firmware archs=amd64,i386 langs=en sources=true " + debian + " from=/etc/apt/sources.list.d/debian.sources:2",
			"debian-security: http://deb.example.org/debian-security suites=bookworm-security components=main archs=amd64 langs=en sources=false " + debian + " from=/etc/apt/sources.list.d/debian.sources:9",
		}, nil},
		{"one-line", map[string]string{"sources.list": `# See sources.list(5)
deb cdrom:[Debian GNU/Linux 12 _Bookworm_ - Official amd64]/ bookworm main
deb http://deb.example.org/debian bookworm main # comment
deb-src http://deb.example.org/debian/ bookworm main contrib
deb http://deb.example.org/debian bookworm contrib
#deb http://deb.example.org/debian bookworm-proposed main
# deb is what a line begins with
deb	[ arch=amd64,arm64	lang=de,en signed-by=/usr/share/keyrings/b.gpg ] https://packages.example.org/linux/debian bookworm stable
deb [arch-=i386 lang+=fr lang-=en by-hash=force check-valid-until=no] http://DEB.example.org/debian sid main
`}, []string{
			"debian: http://deb.example.org/debian suites=bookworm components=main,contrib archs=amd64,i386 langs=en sources=true " + trusted +
				" from=/etc/apt/sources.list:3,/etc/apt/sources.list:4,/etc/apt/sources.list:5" +
				" note=/etc/apt/sources.list:9: check-valid-until=no is ignored: an expired Release is refused" +
				" note=/etc/apt/sources.list:9: by-hash=force is ignored: the Release says whether files have names by hash",
			"debian-sid: http://deb.example.org/debian suites=sid components=main archs=amd64 langs=fr sources=false " + trusted + " from=/etc/apt/sources.list:9",
			"packages.example.org-linux-debian: https://packages.example.org/linux/debian suites=bookworm components=stable archs=amd64,arm64 langs=de,en sources=false keyring=/usr/share/keyrings/b.gpg keys=0 from=/etc/apt/sources.list:8",
		}, []string{
			"/etc/apt/sources.list:2: deb cdrom:[Debian GNU/Linux 12 _Bookworm_ - Official amd64]/ bookworm main: a disc cannot be mirrored",
			"/etc/apt/sources.list:6: deb http://deb.example.org/debian bookworm-proposed main: disabled",
		}},
		{"options", map[string]string{"sources.list": `deb [lang=none] http://a.example.org/a s c
deb [languages=none arch=i386] http://a.example.org/b s c
deb [trusted=yes signed-by=/usr/share/keyrings/b.gpg target-=Contents-deb pdiffs=no] http://a.example.org/c s/updates main/debian-installer
deb-src http://a.example.org:8080/d s c
deb copy:/srv/e s c
`, "sources.list.d/x.sources": `Types: deb
URIs: http://a.example.org/x https://b.example.org/y
Suites: s t
Components: c
Languages: de en
Architectures-Remove: i386
Targets-Add: Contents-deb
Include: foo* bar
Allow-Insecure: yes
`}, []string{
			"a: http://a.example.org/a suites=s components=c archs=amd64,i386 langs= sources=false " + trusted + " from=/etc/apt/sources.list:1",
			"b: http://a.example.org/b suites=s components=c archs=i386 langs= sources=false " + trusted + " from=/etc/apt/sources.list:2",
			"c: http://a.example.org/c suites=s/updates components=main/debian-installer archs=amd64,i386 langs=en sources=false keyring=/usr/share/keyrings/b.gpg keys=0 from=/etc/apt/sources.list:3",
			"d: http://a.example.org:8080/d suites=s components=c archs=amd64,i386 langs=en sources=true " + trusted + " from=/etc/apt/sources.list:4",
			"e: file:///srv/e suites=s components=c archs=amd64,i386 langs=en sources=false " + trusted + " from=/etc/apt/sources.list:5",
			"x: http://a.example.org/x suites=s,t components=c archs=amd64 langs=de,en sources=false " + trusted + " from=/etc/apt/sources.list.d/x.sources:1 note=/etc/apt/sources.list.d/x.sources:1: Include is ignored: all packages are mirrored",
			"y: https://b.example.org/y suites=s,t components=c archs=amd64 langs=de,en sources=false " + trusted + " from=/etc/apt/sources.list.d/x.sources:1 note=/etc/apt/sources.list.d/x.sources:1: Include is ignored: all packages are mirrored",
		}, nil},
		{"what cannot be mirrored", map[string]string{"sources.list.d/a.sources": `Types: deb
URIs: http://a.example.org/
Suites: s
Components: c
Enabled: no

Types: deb
URIs: mirror+file:/etc/apt/mirrors.txt mirror://m.example.org/x tor+http://t.example.org/ ftp://f.example.org/ http://user:se%20cret@p.example.org/
Suites: s
Components: c

Types: deb
URIs: http://t.example.org
Suites: s
Components: c
Trusted: yes

Types: deb
URIs: http://m.example.org
Suites: s
Components: c
Signed-By: /nowhere.gpg

Types: deb
URIs: http://m.example.org
Suites: s
Components: c
Signed-By: /usr/share/keyrings/broken.gpg

Types: deb
URIs: http://m.example.org
Suites: s
Components: c
Signed-By: 0123456789ABCDEF0123456789ABCDEF01234567

Types: deb
Suites: s

Types: deb
URIs: http://m.example.org
Components: c

Types: rpm
URIs: http://m.example.org
Suites: s

Types: deb
URIs: http://m.example.org
Suites: s ../x
Components: c

Types: deb
URIs: http://m.example.org
Suites: flat/
Components: c

Types: deb
URIs: http://m.example.org
Suites: s
`, "sources.list": "deb http://h\nfoo http://h s c\ndeb [arch=amd64 http://h s c\ndeb [arch] http://h s c\n",
			"sources.list.d/c.list.disabled": "deb http://ignored s c\n", "sources.list.d/d e.list": "deb http://ignored s c\n"},
			nil, []string{
				"/etc/apt/sources.list:1: deb http://h: expected a URI and a suite",
				`/etc/apt/sources.list:2: foo http://h s c: type "foo": expected deb or deb-src`,
				"/etc/apt/sources.list:3: deb [arch=amd64 http://h s c: no closing bracket after the options",
				`/etc/apt/sources.list:4: deb [arch] http://h s c: option "arch" has no value`,
				"/etc/apt/sources.list.d/a.sources:1: http://a.example.org/ s: disabled",
				`/etc/apt/sources.list.d/a.sources:7: tor+http://t.example.org/ s: scheme "tor+http" is not supported: expected http, https or file`,
				`/etc/apt/sources.list.d/a.sources:7: ftp://f.example.org/ s: scheme "ftp" is not supported: expected http, https or file`,
				"/etc/apt/sources.list.d/a.sources:7: http://p.example.org/ s: the user name or password contains a blank or control character, which apt's auth.conf does not allow",
				`/etc/apt/sources.list.d/a.sources:7: mirror+file:/etc/apt/mirrors.txt s: list of mirrors file:///etc/apt/mirrors.txt: open etc/apt/mirrors.txt: file does not exist`,
				`/etc/apt/sources.list.d/a.sources:7: mirror://m.example.org/x s: list of mirrors http://m.example.org/x: it is not on this machine`,
				`/etc/apt/sources.list.d/a.sources:12: http://t.example.org s: trusted without a key: name the key that signs it with signed-by`,
				`/etc/apt/sources.list.d/a.sources:18: http://m.example.org s: key file /nowhere.gpg does not exist`,
				`/etc/apt/sources.list.d/a.sources:24: http://m.example.org s: key file /usr/share/keyrings/broken.gpg: malformed OpenPGP data: expected a binary or armored keyring, found neither`,
				`/etc/apt/sources.list.d/a.sources:30: http://m.example.org s: key 0123456789ABCDEF0123456789ABCDEF01234567 of Signed-By: not in /etc/apt/trusted.gpg.d/debian.asc /usr/share/keyrings/debian-archive-keyring.gpg`,
				`/etc/apt/sources.list.d/a.sources:36: s: no URIs`,
				`/etc/apt/sources.list.d/a.sources:39: http://m.example.org: no Suites`,
				`/etc/apt/sources.list.d/a.sources:43: http://m.example.org s: type "rpm": expected deb or deb-src`,
				`/etc/apt/sources.list.d/a.sources:47: http://m.example.org s ../x: suite "../x" is not a suite's name`,
				`/etc/apt/sources.list.d/a.sources:52: http://m.example.org flat/: suite "flat/" is a directory and has no components`,
				`/etc/apt/sources.list.d/a.sources:57: http://m.example.org s: suite "s" has no components`,
			}},
		{"flat and ARCH", map[string]string{"sources.list": `deb http://f.example.org/repo ./
deb [arch=amd64,arm64] http://g.example.org/$(ARCH) $(ARCH)/
deb file:/srv/repo /
`}, []string{
			"repo: http://f.example.org/repo suites=./ components= archs=amd64,i386 langs=en sources=false " + trusted + " from=/etc/apt/sources.list:1",
			"amd64: http://g.example.org/amd64 suites=amd64/ components= archs=amd64 langs=en sources=false " + trusted + " from=/etc/apt/sources.list:2",
			"arm64: http://g.example.org/arm64 suites=arm64/ components= archs=arm64 langs=en sources=false " + trusted + " from=/etc/apt/sources.list:2",
			"srv-repo: file:///srv/repo suites=./ components= archs=amd64,i386 langs=en sources=false " + trusted + " from=/etc/apt/sources.list:3",
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := machine(t, tt.files)
			mirrors, skipped, err := FromFiles(m)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, show(mirrors)); d != "" {
				t.Errorf("mirrors: -want +got\n%s", d)
			}
			if d := cmp.Diff(tt.skipped, showSkipped(skipped)); d != "" {
				t.Errorf("skipped: -want +got\n%s", d)
			}
			for _, m := range mirrors {
				if m.Languages == nil {
					t.Errorf("mirror %s leaves its languages to the default", m.Name)
				}
			}
			loads(t, mirrors)
		})
	}
}

// loads checks that snapd accepts a configuration with these mirrors.
func loads(t testing.TB, mirrors []Mirror) {
	t.Helper()
	c := config.Default()
	c.DataDir = "/var/lib/frozen-snapd"
	for _, m := range mirrors {
		for i := range m.Keys {
			m.Keyring = append(m.Keyring, fmt.Sprintf("/var/lib/frozen-snapd/keys/%s-%d.asc", m.Name, i))
		}
		c.Mirrors = append(c.Mirrors, m.Mirror)
	}
	text, err := toml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Parse("config.toml", text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestKeys(t *testing.T) {
	m, k := machine(t, nil)
	other := signtest.NewKey(t, "other")
	armored := string(other.Keyring().ExportArmored())
	var folded strings.Builder
	for line := range strings.Lines(armored) {
		if line = strings.TrimRight(line, "\n"); line == "" {
			line = "."
		}
		folded.WriteString(" " + line + "\n")
	}
	stanza := "Types: deb\nURIs: http://m.example.org/x\nSuites: s\nComponents: c\nSigned-By:"
	for _, tt := range []struct {
		name, signedBy string
		keyring        []string
		fprs           []sign.Fingerprint
	}{
		{"inline", "\n" + folded.String(), nil, []sign.Fingerprint{other.Fingerprint()}},
		{"several files", " /usr/share/keyrings/debian-archive-keyring.gpg, /usr/share/keyrings/b.gpg\n",
			[]string{"/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/b.gpg"}, nil},
		{"fingerprint", " " + string(k.Fingerprint()) + "\n", nil, []sign.Fingerprint{k.Fingerprint()}},
		{"fingerprint of a file", " /usr/share/keyrings/debian-archive-keyring.gpg " + string(k.Fingerprint()) + "\n", nil, []sign.Fingerprint{k.Fingerprint()}},
		{"exact subkey, and one that is not here", " " + string(k.Fingerprint()) + "!, 0123456789ABCDEF0123456789ABCDEF01234567\n", nil, []sign.Fingerprint{k.Fingerprint()}},
		{"none", " \n", []string{"/etc/apt/trusted.gpg.d/debian.asc", "/usr/share/keyrings/debian-archive-keyring.gpg"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entries, skipped := Parse("x.sources", []byte(stanza+tt.signedBy))
			mirrors, more := m.Mirrors(entries)
			if skipped = append(skipped, more...); len(skipped) > 0 || len(mirrors) != 1 {
				t.Fatalf("%d mirrors, skipped %v", len(mirrors), skipped)
			}
			var fprs []sign.Fingerprint
			for _, key := range mirrors[0].Keys {
				kr, err := sign.ParseKeyring([]byte(key))
				if err != nil {
					t.Fatal(err)
				}
				fprs = append(fprs, kr.Fingerprints()...)
			}
			if d := cmp.Diff(tt.keyring, []string(mirrors[0].Keyring)); d != "" {
				t.Errorf("keyring: -want +got\n%s", d)
			}
			if d := cmp.Diff(tt.fprs, fprs); d != "" {
				t.Errorf("keys: -want +got\n%s", d)
			}
			loads(t, mirrors)
		})
	}
	m.FS = fstest.MapFS{}
	_, skipped := m.Mirrors([]Entry{{File: "f", Line: 1, Deb: true, URI: "http://m.example.org", Suites: []string{"s"}, Components: []string{"c"}}})
	want := []string{"f:1: http://m.example.org s: no key: neither Signed-By nor a usable key in /etc/apt/trusted.gpg, /etc/apt/trusted.gpg.d or Debian's keyring"}
	if d := cmp.Diff(want, showSkipped(skipped)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// TestThisMachine reads the sources of the machine that runs the test.
func TestThisMachine(t *testing.T) {
	m := Machine{FS: os.DirFS("/"), Architectures: []string{"amd64"}}
	files, err := m.Files()
	if err != nil || len(files) == 0 {
		t.Skip("no apt sources here")
	}
	mirrors, skipped, err := FromFiles(m)
	if err != nil {
		t.Fatal(err)
	}
	loads(t, mirrors)
	t.Logf("%s\n%s", strings.Join(show(mirrors), "\n"), strings.Join(showSkipped(skipped), "\n"))
}

func TestParseByContent(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"one":    "# comment\ndeb http://m.example.org/x s c\n",
		"stanza": "# comment\n\nTypes: deb\nURIs: http://m.example.org/x\nSuites: s\nComponents: c\n",
	} {
		name = filepath.Join(dir, name)
		entries, skipped := Parse(name, []byte(text))
		if len(entries) != 1 || len(skipped) != 0 || entries[0].URI != "http://m.example.org/x" || !slices.Equal(entries[0].Suites, []string{"s"}) {
			t.Errorf("%s: %+v %v", name, entries, skipped)
		}
	}
	if _, _, err := FromFiles(Machine{FS: os.DirFS(dir)}, "/none"); err == nil {
		t.Error("a missing file is no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("x.list", []byte("deb [arch=amd64,i386 lang+=de signed-by=/usr/share/keyrings/b.gpg] http://m.example.org/$(ARCH) s main\n#deb cdrom:[a b]/ x y\ndeb file:/srv ./\n"))
	f.Add("x.sources", []byte("Types: deb deb-src\nURIs: http://a https://b/c/\nSuites: s t\nComponents: m n\nArchitectures-Remove: i386\n\nTypes: deb\nURIs: copy:/x\nSuites: a/\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n"))
	f.Add("x", []byte("deb http://latest latest/ \n"))
	key, err := sign.Generate("k", "k@example.org", signtest.Created, sign.GenerateOptions{})
	if err != nil {
		f.Fatal(err)
	}
	m := Machine{FS: fstest.MapFS{"usr/share/keyrings/debian-archive-keyring.gpg": {Data: key.Keyring().Export()}}, Architectures: []string{"amd64", "i386"}}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		entries, skipped := Parse(name, data)
		mirrors, more := m.Mirrors(entries)
		for _, s := range append(skipped, more...) {
			if s.Reason == "" || s.Line < 1 {
				t.Fatalf("skipped %+v", s)
			}
		}
		loads(t, mirrors)
	})
}

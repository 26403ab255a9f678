package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// editable is a file as people write it.
const editable = `# Our mirrors.
data_dir = "/srv/snapd" # on the large disk

[server]
listen = "127.0.0.1:8080"

# Debian, for the builders.
[[mirror]]
name          = "debian" # ask ops before changing
type          = "deb"
url           = "https://mirror.example.org/debian"
suites        = ["bookworm",
                 "bookworm-updates"]
components    = ["main"] # no contrib
architectures = ["amd64"]
keyring       = "/k.gpg"
# keep = "90d"

# Fedora.
[[mirror]]
name = "fedora"
type = "rpm"
url = "https://mirror.example.org/fedora"
keyring = "/k.gpg"
architectures = [ # both
  "x86_64",
]
`

func setting(t *testing.T, arg string) Setting {
	t.Helper()
	s, err := ParseSetting(arg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An edit changes the lines that it is about, and no comment.
func TestEdit(t *testing.T) {
	file := "/etc/frozen-snapd/config.toml"
	for _, c := range []struct {
		name string
		edit func(text []byte) ([]byte, error)
		old  string // part of the file
		want string // what it becomes
	}{
		{"a value", func(b []byte) ([]byte, error) {
			return SetMirror(file, b, "debian", []Setting{setting(t, "url=https://other.example.org/debian")})
		}, `https://mirror.example.org/debian"`, `https://other.example.org/debian"`},
		{"a list over two lines", func(b []byte) ([]byte, error) {
			return SetMirror(file, b, "debian", []Setting{setting(t, "suites=bookworm, trixie")})
		}, "[\"bookworm\",\n                 \"bookworm-updates\"]", `["bookworm", "trixie"]`},
		{"a list before a comment", func(b []byte) ([]byte, error) {
			return SetMirror(file, b, "debian", []Setting{setting(t, "components=main,contrib")})
		}, `["main"] # no contrib`, `["main", "contrib"] # no contrib`},
		{"a new key, aligned", func(b []byte) ([]byte, error) {
			return SetMirror(file, b, "debian", []Setting{setting(t, "interval=6h"), setting(t, "sources=true")})
		}, "\"/k.gpg\"\n# keep", "\"/k.gpg\"\ninterval      = \"6h\"\nsources       = true\n# keep"},
		{"a key less", func(b []byte) ([]byte, error) {
			return SetMirror(file, b, "fedora", []Setting{setting(t, "gpgcheck=false"), setting(t, "keyring=")})
		}, "keyring = \"/k.gpg\"\narchitectures = [ # both\n  \"x86_64\",\n]\n", "architectures = [ # both\n  \"x86_64\",\n]\ngpgcheck = false\n"},
		{"a name", func(b []byte) ([]byte, error) { return RenameMirror(file, b, "debian", "debian-12") },
			`"debian" #`, `"debian-12" #`},
		{"the first mirror", func(b []byte) ([]byte, error) { return RemoveMirror(file, b, "debian") },
			editable[strings.Index(editable, "# Debian"):strings.Index(editable, "# Fedora")], ""},
		{"the last mirror", func(b []byte) ([]byte, error) { return RemoveMirror(file, b, "fedora") },
			"\n" + editable[strings.Index(editable, "# Fedora"):], ""},
		{"one more, which is removed again", func(b []byte) ([]byte, error) {
			more, err := AddMirror(file, b, "copr", []Setting{setting(t, "type=rpm"), setting(t, "url=https://mirror.example.org/copr"), setting(t, "gpgcheck=false")})
			if err != nil {
				return nil, err
			}
			return RemoveMirror(file, more, "copr")
		}, "", ""},
		{"one more", func(b []byte) ([]byte, error) {
			return AddMirror(file, b, "copr", []Setting{setting(t, "type=rpm"), setting(t, "url=https://mirror.example.org/copr"), setting(t, "gpgcheck=false")})
		}, "  \"x86_64\",\n]\n", "  \"x86_64\",\n]\n\n[[mirror]]\nname = \"copr\"\ntype = \"rpm\"\nurl = \"https://mirror.example.org/copr\"\ngpgcheck = false\n"},
	} {
		got, err := c.edit([]byte(editable))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !strings.Contains(editable, c.old) {
			t.Fatalf("%s: the file lacks %q", c.name, c.old)
		}
		if d := cmp.Diff(strings.Replace(editable, c.old, c.want, 1), string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// A refused edit says why.
func TestEditRefused(t *testing.T) {
	inline := "mirror = [{name = \"a\", type = \"rpm\", url = \"https://mirror.example.org/a\", gpgcheck = false}]\n"
	for _, c := range []struct {
		name string
		edit func() ([]byte, error)
		is   error
		want string
	}{
		{"a comment inside a value", func() ([]byte, error) {
			return SetMirror("f", []byte(editable), "fedora", []Setting{{"architectures", `["aarch64"]`}})
		}, ErrNotEditable, "f:25: architectures of mirror fedora cannot be edited by a program: comments inside its value would be lost"},
		{"an inline table", func() ([]byte, error) { return RemoveMirror("f", []byte(inline), "a") }, ErrNotEditable, "it is not in a separate [[mirror]] table"},
		{"one more beside inline tables", func() ([]byte, error) { return AddMirror("f", []byte(inline), "b", nil) }, ErrInvalid, "f:"},
		{"an unknown mirror", func() ([]byte, error) { return RemoveMirror("f", []byte(editable), "suse") }, ErrUnknownMirror, "suse (configured: debian, fedora)"},
		{"a bad value", func() ([]byte, error) {
			return SetMirror("f", []byte(editable), "debian", []Setting{{"interval", `"often"`}})
		}, ErrInvalid, "f:17: "},
		{"a name that is taken", func() ([]byte, error) { return RenameMirror("f", []byte(editable), "debian", "fedora") }, ErrInvalid, `"fedora" is configured twice`},
		{"a bad file", func() ([]byte, error) { return RemoveMirror("f", []byte(editable+"= 1\n"), "debian") }, ErrInvalid, "f:28: "},
		{"a value that is no TOML", func() ([]byte, error) {
			return SetMirror("f", []byte(editable), "debian", []Setting{setting(t, "keep=\"90d")})
		}, ErrInvalid, "f:"},
		{"a value with another table in it", func() ([]byte, error) {
			return AddMirror("f", []byte(editable), "b", []Setting{{"type", "\"rpm\"\nurl = \"https://mirror.example.org/b\"\ngpgcheck = false\n[store]\nreserve = \"1MiB\""}})
		}, ErrNotEditable, "the change would affect other parts of the file"},
	} {
		_, err := c.edit()
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected …%s…", c.name, err, c.want)
		}
	}
	for _, arg := range []string{"suites", "suits=x", "sources=yes", "name=x"} {
		if s, err := ParseSetting(arg); err == nil {
			t.Errorf("%s: %v", arg, s)
		}
	}
}

// Every mirror of the documented configuration can be changed, and nothing else
// changes.
func TestEditExample(t *testing.T) {
	text, err := os.ReadFile("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := SetMirror("f", text, "fedora", []Setting{{"keep", `"90d"`}})
	if err != nil || len(got) != len(text)+len("keep = \"90d\"\n") {
		t.Errorf("%v, %d bytes, expected one line more than %d", err, len(got), len(text))
	}
	back, err := SetMirror("f", got, "fedora", []Setting{{"keep", ""}})
	if err != nil || string(back) != string(text) {
		t.Errorf("a key that was added and removed leaves a trace: %v", err)
	}
	if got, err := RemoveMirror("f", text, "debian"); err != nil || strings.Contains(string(got), `name = "debian"`) || !strings.Contains(string(got), `name = "fedora"`) {
		t.Errorf("%v", err)
	}
}

// A text that is edited back and forth is the text of before.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(editable), "debian", "90d")
	f.Add([]byte("mirror = []"), "a", "\x7f\"")
	f.Fuzz(func(t *testing.T, text []byte, name, value string) {
		got, err := SetMirror("f", text, MirrorName(name), []Setting{{"auth_file", Quote("/" + value)}})
		if err != nil {
			return
		}
		c, err := Parse("f", got)
		if err != nil {
			t.Fatalf("an edit made the file invalid: %v", err)
		}
		for _, m := range c.Mirrors {
			if m.Name == MirrorName(name) && m.AuthFile == "" {
				t.Fatal("the edit is lost")
			}
		}
	})
}

package aptconf

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/needs"
)

// A mirror reaches its server as apt does. It uses the login from the URI, or else from
// the first file that has one. A certificate authority or client certificate for the
// host takes precedence over the general one.
func TestAccess(t *testing.T) {
	m, _ := machine(t, map[string]string{
		"sources.list": `deb https://alice:s3cr3t@a.example.org/debian/ s c
deb https://b.example.org/debian s c
deb http://c.example.org s c
deb http://d.example.org s c
deb https://e.example.org s c
deb http://alice%40x:s3%3Acr3t@f.example.org:8080/ s c
deb https://alice:s3cr3t@a.example.org/debian/ t c
deb https://bob:s3cr3t@a.example.org/debian/ s c
deb http://g.example.org s c
deb https://h.example.org s c
`,
		"auth.conf":             "machine b.example.org login b password s3cr3t\nmachine c.example.org login c password s3cr3t\n",
		"auth.conf.d/90x.conf":  "machine http://d.example.org login d password s3cr3t\nmachine b.example.org login other password s3cr3t\n",
		"auth.conf.d/80y.conf":  "# nothing\n",
		"auth.conf.d/ignored":   "machine http://g.example.org login g password s3cr3t\n",
		"apt.conf.d/10x":        `Acquire::https { CaInfo "/etc/ca.pem"; e.example.org { SslCert "/etc/c.pem"; SslKey "/etc/k.pem"; }; };`,
		"apt.conf.d/20x.conf":   `Acquire::https::b.example.org::CaInfo "/etc/b.pem"; Acquire::https::b.example.org::SslCert "/etc/c.pem";`,
		"apt.conf.d/30x.bak":    `Acquire::https::CaInfo "/etc/no.pem";`,
		"apt.conf":              `Acquire::https::a.example.org::Verify-Peer "false"; Acquire::https::h.example.org::CaInfo "/etc/none.pem";`,
		"sources.list.d/no.bak": "deb https://x.example.org s c\n",
	})
	files := m.FS.(fstest.MapFS)
	for _, n := range []string{"etc/ca.pem", "etc/b.pem", "etc/c.pem", "etc/k.pem"} {
		files[n] = &fstest.MapFile{Data: []byte("x")}
	}
	files["etc/apt/auth.conf"].Mode = 0o600
	files["etc/apt/auth.conf.d/90x.conf"].Mode = 0o644
	mirrors, skipped, err := FromFiles(m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, mm := range mirrors {
		text := fmt.Sprintf("%s %s auth=%s ca=%s cert=%s key=%s", mm.URIs[0], strings.Join(mm.Suites, ","), mm.AuthFile, mm.CAFile, mm.ClientCert, mm.ClientKey)
		if mm.Login != nil {
			text += " " + strings.TrimSpace(string(remote.AuthFile(mm.Login)))
		}
		for _, n := range mm.Notes {
			text += " note: " + n
		}
		got = append(got, text)
		if all := fmt.Sprintf("%+v %#v %v", mm, mm, mm.Login); strings.Contains(all, "s3") {
			t.Errorf("a secret in %s", all)
		}
	}
	want := []string{
		"https://a.example.org/debian s,t auth= ca=/etc/ca.pem cert= key= machine https://a.example.org/debian/ login alice password s3cr3t note: Verify-Peer=no is ignored: servers are verified",
		"https://b.example.org/debian s auth=/etc/apt/auth.conf ca=/etc/b.pem cert=/etc/c.pem key=/etc/c.pem",
		"http://c.example.org s auth= ca= cert= key=",
		"http://d.example.org s auth=/etc/apt/auth.conf.d/90x.conf ca= cert= key= note: every user can read /etc/apt/auth.conf.d/90x.conf: snapd does not start before chmod o= /etc/apt/auth.conf.d/90x.conf",
		"https://e.example.org s auth= ca=/etc/ca.pem cert=/etc/c.pem key=/etc/k.pem",
		"http://f.example.org:8080 s auth= ca= cert= key= machine http://f.example.org:8080/ login alice@x password s3:cr3t",
		"https://a.example.org/debian s auth= ca=/etc/ca.pem cert= key= machine https://a.example.org/debian/ login bob password s3cr3t note: Verify-Peer=no is ignored: servers are verified",
		"http://g.example.org s auth= ca= cert= key=",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nexpected\n%s", g, w)
	}
	if s := strings.Join(showSkipped(skipped), "\n"); s != "/etc/apt/sources.list:10: https://h.example.org s: certificate or key /etc/none.pem of apt's configuration does not exist" {
		t.Errorf("skipped: %s", s)
	}
}

// unreadable is a file system whose logins only root may read.
type unreadable struct{ fs.FS }

func (u unreadable) Open(name string) (fs.File, error) {
	if strings.Contains(name, "auth.conf") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return u.FS.Open(name)
}

// Logins that cannot be read are reported.
func TestUnreadableLogins(t *testing.T) {
	m, _ := machine(t, map[string]string{"sources.list": "deb https://a.example.org s c\n", "auth.conf": "x"})
	m.FS = unreadable{m.FS}
	mirrors, _, err := FromFiles(m)
	if err != nil || len(mirrors) != 1 || !strings.Contains(strings.Join(mirrors[0].Notes, "\n"), "/etc/apt/auth.conf cannot be read: its logins are not used") {
		t.Errorf("%+v, %v", mirrors, err)
	}
}

// apt.conf is parsed like apt does.
func TestOptionsAsApt(t *testing.T) {
	needs.Program(t, "apt-config")
	dir := t.TempDir()
	for i, text := range []string{
		`Acquire::https::CaInfo "/a"; # trailing`,
		`Acquire { https { "h.example.org" { SslCert "/c"; SslKey "/k"; }; Verify-Peer "false"; }; };`,
		"// comment \"x\"\n/* Acquire::https::CaInfo \"/a\"; { */ Acquire::https::SslKey /unquoted;\n# Acquire::https::CaInfo \"/b\"; {\"\n",
		"acquire::HTTPS::cainfo \"/case\";",
		"Foo { \"a\"; \"b\"; };\nAcquire::https { CaInfo \"/b;{}//#\"; }\nAcquire::https::SslCert \"/after\";",
		"Acquire::https { CaInfo \"/a\"; h.example.org::CaInfo \"/h\"; };\n#clear Acquire::https;\nAcquire::https::SslKey \"/k\";",
		"Acquire::https::h.example.org { CaInfo\n  \"/multi\" ;\n};",
		"Acquire::https::CaInfo \"/a\"; Acquire::https::CaInfo \"/b\";",
		"Acquire::https::CaInfo \"/a\";\n  # indented \"\nAcquire::https::SslKey \"/k\";",
		"Acquire::https::CaInfo \"\";",
		"Acquire::https::CaInfo \"http://x/\"; // \"y\"\nAcquire::https::SslCert \"/c\";",
	} {
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		o := options{}
		o.parse(text + "\n")
		for _, name := range []string{"CaInfo", "SslCert", "SslKey", "Verify-Peer", "h.example.org::CaInfo", "h.example.org::SslCert", "h.example.org::SslKey"} {
			cmd := exec.CommandContext(t.Context(), "apt-config", "shell", "v", "Acquire::https::"+name)
			cmd.Env = append(os.Environ(), "APT_CONFIG="+file)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", text, err, out)
			}
			want := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(string(out)), "v='"), "'")
			if got := o[strings.ToLower("Acquire::https::"+name)]; got != want {
				t.Errorf("%s\n%s: got %q, apt has %q", text, name, got, want)
			}
		}
	}
}

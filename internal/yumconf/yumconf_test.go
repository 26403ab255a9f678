package yumconf

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/fetch/remote"
)

const sample = `# Fedora's own
[fedora]
name=Fedora $releasever - $basearch
#baseurl=http://download.example.org/pub/fedora/linux/releases/$releasever/Everything/$basearch/os/
metalink=https://mirrors.example.org/metalink?repo=fedora-$releasever&arch=$basearch
enabled=1
countme=1
metadata_expire=7d
repo_gpgcheck=0
type=rpm
gpgcheck=1
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-$releasever-$basearch
skip_if_unavailable=False

[two.urls]
name = Two
baseurl = https://a.example.org/${releasever}/
  https://b.example.org/${extra:-none}/, https://c.example.org/${releasever:+rel}
gpgkey = https://a.example.org/KEY
         file:///etc/KEY
excludepkgs=kernel* glibc
exclude=bash
includepkgs = a,b

[source]
baseurl=http://a.example.org/$missing/x
enabled = no
`

var vars = Vars{"releasever": "42", "basearch": "x86_64"}

func TestParse(t *testing.T) {
	got, err := Parse("fedora.repo", []byte(sample), []byte("[main]\ngpgcheck=True\nenabled=0\nbest=False\n"), vars)
	if err != nil {
		t.Fatal(err)
	}
	want := []Repo{
		{ID: "fedora", Name: "Fedora 42 - x86_64", File: "fedora.repo", Line: 2,
			Metalink: "https://mirrors.example.org/metalink?repo=fedora-42&arch=x86_64", Enabled: true, GPGCheck: true,
			GPGKeys: []string{"file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-42-x86_64"}},
		{ID: "two.urls", Name: "Two", File: "fedora.repo", Line: 15,
			BaseURLs: []string{"https://a.example.org/42", "https://b.example.org/none", "https://c.example.org/rel"}, Enabled: true, GPGCheck: true,
			GPGKeys: []string{"https://a.example.org/KEY", "file:///etc/KEY"},
			Exclude: []string{"kernel*", "glibc", "bash"}, Include: []string{"a", "b"}},
		{ID: "source", File: "fedora.repo", Line: 25, BaseURLs: []string{"http://a.example.org/$missing/x"}, GPGCheck: true, Unknown: []string{"missing"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	files, remote := got[1].KeyFiles()
	if d := cmp.Diff([][]string{{"/etc/KEY"}, {"https://a.example.org/KEY"}}, [][]string{files, remote}); d != "" {
		t.Error(d)
	}
}

func TestUnmirrorable(t *testing.T) {
	for stanza, want := range map[string]string{
		"baseurl=http://a/\ngpgcheck=1\ngpgkey=file:///k": "",
		"baseurl=http://a/\nenabled=0":                    "it is disabled (enabled=0)",
		"baseurl=http://a/$x/$y\n":                        "no value is known for $x, $y",
		"name=x":                                          "it has no baseurl, metalink or mirrorlist",
		"baseurl=ftp://a/\n":                              `it is reached by "ftp", expected http, https or file`,
		"baseurl=media://1/\n":                            "it is removable media (media:)",
		"baseurl=http://u:p%20q@a/\n":                     "the user name or password contains a blank or control character, which apt's auth.conf does not allow",
		"baseurl=https://a/\ngpgcheck=1":                  "it names no key (gpgkey) to check signatures by",
		"baseurl=https://a/\ngpgcheck=0":                  "its signatures are not checked (gpgcheck=0) and it names no key",
		"mirrorlist=https://a/list\nrepo_gpgcheck=1\ngpgkey=http://a/k": "",
	} {
		r, err := Parse("x.repo", []byte("[x]\n"+stanza), nil, vars)
		if err != nil {
			t.Fatal(err)
		}
		if got := r[0].Unmirrorable(); got != want {
			t.Errorf("%q: %q, want %q", stanza, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"name=x\n":                  `x.repo:1: malformed .repo file: "name=x" before any [id]`,
		"[x\nname=x\n":              `x.repo:1: malformed .repo file: section "[x"`,
		"[]\n":                      `x.repo:1: malformed .repo file: section "[]"`,
		"[a\x01b]\n":                `x.repo:1: malformed .repo file: control characters in "[a\x01b]"`,
		"[a;b]\n":                   `x.repo:1: malformed .repo file: repository id "a;b"`,
		"[x]\nnonsense\n":           `x.repo:2: malformed .repo file: "nonsense", expected key=value`,
		"[x]\ngpgcheck=maybe\n":     `x.repo:2: malformed .repo file: gpgcheck="maybe", expected 1 or 0`,
		"[x]\na=1\n[y]\n[x]\na=1\n": `x.repo:4: malformed .repo file: repository "x" occurs twice`,
		strings.Repeat("#", 5<<20):  `x.repo:1: malformed .repo file: more than 4194304 bytes`,
	} {
		_, err := Parse("x.repo", []byte(in), nil, nil)
		if err == nil || err.Error() != want {
			t.Errorf("%.30q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func TestLoadVars(t *testing.T) {
	got, err := LoadVars(fstest.MapFS{
		"etc/os-release":       {Data: []byte("NAME=Fedora\nID=fedora\nVERSION_ID=\"42\"\n")},
		"etc/dnf/vars/stream":  {Data: []byte("9-stream\n")},
		"etc/dnf/vars/bad.txt": {Data: []byte("x")},
		"etc/yum/vars/stream":  {Data: []byte("old\n")},
	}, "amd64", "")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Vars{"arch": "x86_64", "basearch": "x86_64", "releasever": "42", "stream": "9-stream"}, got); d != "" {
		t.Error(d)
	}
}

// The version of a distribution that does not use rpm is not a releasever.
func TestReleasever(t *testing.T) {
	const url = "$releasever|$releasever_major|${releasever_minor}|${releasever_minor:-none}"
	for _, c := range []struct{ release, given, want string }{
		{"ID=fedora\nVERSION_ID=42\n", "", "42|42||none"},
		{"ID=fedora\nVERSION_ID=42\n", "43", "43|43||none"},
		{"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n", "", "9|9||none"},
		{"ID=opensuse-leap\nVERSION_ID='15.6'\n", "", "15.6|15|6|6"},
		{"ID=debian\nVERSION_ID=\"12\"\n", "", "$releasever|$releasever_major|${releasever_minor}|none"},
		{"ID=debian\nVERSION_ID=\"12\"\n", "9.4.1", "9.4.1|9|4.1|4.1"},
		{"ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", "", "$releasever|$releasever_major|${releasever_minor}|none"},
		{"NAME=unknown\nVERSION_ID=7\n", "", "$releasever|$releasever_major|${releasever_minor}|none"},
	} {
		v, err := LoadVars(fstest.MapFS{"etc/os-release": {Data: []byte(c.release)}}, "amd64", c.given)
		if err != nil {
			t.Fatal(err)
		}
		unknown := map[string]bool{}
		if got := v.expand(url, unknown, 0); got != c.want {
			t.Errorf("%q, --releasever %q: %s, expected %s", c.release, c.given, got, c.want)
		}
		if unknown["releasever"] != strings.Contains(c.want, "$releasever|") {
			t.Errorf("%q: unknown: %v", c.release, unknown)
		}
	}
}

func TestFormat(t *testing.T) {
	r := Repo{ID: "snapd-4.1-fedora", Name: "Fedora as of 4.1", BaseURLs: []string{"http://snap.example.org/frozen/4.1/fedora"}, Enabled: true, GPGCheck: true,
		RepoGPGCheck: true, GPGKeys: []string{"http://snap.example.org/key.asc", "file:///etc/pki/fedora.asc"}}
	text, err := Format("Made for 4.1.\nSecond line.", r)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Made for 4.1.
# Second line.
[snapd-4.1-fedora]
name=Fedora as of 4.1
baseurl=http://snap.example.org/frozen/4.1/fedora
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=http://snap.example.org/key.asc
       file:///etc/pki/fedora.asc
`
	if d := cmp.Diff(want, text); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	back, err := Parse("", []byte(text), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Line = 3
	if d := cmp.Diff([]Repo{r}, back); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	for name, id := range map[string]string{
		"snapd-4.1-fedora": "snapd-4.1-fedora", "snapd-4.1~rc1+x-fe_d": "snapd-4.1:7erc1:2bx-fe_d", "ä b": ":c3:a4:20b",
	} {
		if got := ID(name); got != id {
			t.Errorf("id of %q: %q, expected %q", name, got, id)
		}
	}
	for _, id := range []string{"", "main", "a~b", "a+b", "a b", "ä", "a]"} {
		if text, err := Format("", Repo{ID: id}); err == nil {
			t.Errorf("id %q, which dnf refuses, was written:\n%s", id, text)
		}
	}
	r.Name = "x\ngpgcheck=0"
	if _, err := Format("", r); err == nil {
		t.Error("a line break in a name was accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("[x]\nbaseurl=${a:-${b:+${c}}}$"))
	f.Fuzz(func(t *testing.T, b []byte) {
		repos, err := Parse("x.repo", b, b, vars)
		if err != nil {
			return
		}
		for _, r := range repos {
			_ = r.Unmirrorable()
			r.KeyFiles()
			if text, err := Format("", r); err == nil {
				again, err := Parse("y.repo", []byte(text), nil, nil)
				if err != nil || len(again) != 1 {
					t.Fatalf("what was written cannot be read: %v\n%s", err, text)
				}
				if again[0].GPGCheck != r.GPGCheck || again[0].RepoGPGCheck != r.RepoGPGCheck || again[0].Enabled != r.Enabled {
					t.Fatalf("checks changed:\n%s", text)
				}
			}
		}
	})
}

// Logins are removed from the URLs. Those in [main] apply to repositories without one.
func TestLogins(t *testing.T) {
	main := []byte("[main]\nusername=main\npassword=s3cr3t-main\nsslcacert=/etc/ca.pem\n")
	repos, err := Parse("x.repo", []byte("[a]\nbaseurl=https://a.example.org/r/ https://bob:s3cr3t@b.example.org/r file:///srv\nmetalink=https://m.example.org/metalink?repo=x\n"+
		"[b]\nbaseurl=https://a.example.org/b\nusername=b\npassword=s3cr3t-b\nsslclientcert=/etc/c.pem\nsslclientkey=/etc/k.pem\nsslverify=0\n"), main, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v %#v", repos, repos); strings.Contains(text, "s3cr3t") {
		t.Error(text)
	}
	a, b := repos[0], repos[1]
	if d := cmp.Diff([]string{"https://a.example.org/r", "https://b.example.org/r", "file:///srv"}, a.BaseURLs); d != "" {
		t.Error(d)
	}
	for want, got := range map[string][]byte{
		"machine https://a.example.org/r/ login main password s3cr3t-main\nmachine https://b.example.org/r/ login bob password s3cr3t\n" +
			"machine https://m.example.org/metalink login main password s3cr3t-main\n": remote.AuthFile(a.Logins...),
		"machine https://a.example.org/b/ login b password s3cr3t-b\n": remote.AuthFile(b.Logins...),
	} {
		if string(got) != want {
			t.Errorf("got\n%s\nexpected\n%s", got, want)
		}
	}
	if a.CAFile != "/etc/ca.pem" || a.ClientCert+a.ClientKey != "" || b.ClientCert != "/etc/c.pem" || b.ClientKey != "/etc/k.pem" || !b.NoVerify || a.NoVerify {
		t.Errorf("%+v %+v", a, b)
	}
}

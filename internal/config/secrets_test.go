package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/fetchtest"
)

const rpmMirror = "[[mirror]]\nname = \"m\"\ntype = \"rpm\"\nrepo_gpgcheck = false\ngpgcheck = false\n"

// A user name or password in a URL is refused with its line and the way out, and
// not quoted. Tokens in a query are taken, and not shown.
func TestURLsWithSecrets(t *testing.T) {
	for _, key := range []string{"url = %s", "urls = [\"https://a.example.org/\", %s]", "metalink = %s", "mirrorlist = %s"} {
		name, _, _ := strings.Cut(key, " ")
		for _, u := range []string{
			"https://alice:s3cret@mirror.example.org/r", "https://s3cret@mirror.example.org/r", "https://s3cret:@mirror.example.org/r",
			"https://alice:s3/cret@mirror.example.org/r", "https://alice:s3cret%zz@mirror.example.org/r", "https:alice:s3cret@mirror.example.org/r",
			"file://alice:s3cret@mirror.example.org/r", "https://alice:s3#cret@mirror.example.org/r",
		} {
			_, err := config.Parse("c.toml", []byte(rpmMirror+fmt.Sprintf(key, fmt.Sprintf("%q", u))+"\n"))
			want := "c.toml:6: " + name + `: mirror "m": `
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "auth_file") || strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "alice") {
				t.Errorf("%s %s: %v, expected %s…auth_file", name, u, err, want)
			}
		}
		_, err := config.Parse("c.toml", []byte(rpmMirror+fmt.Sprintf(key, `"https://mirror.example.org/r?repo=x#s3cret"`)+"\n"))
		if want := "c.toml:6: " + name + `: mirror "m": "https://mirror.example.org/r?repo=x": a URL must not have a fragment`; err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s with a fragment: %v", name, err)
		}
		c, err := config.Parse("c.toml", []byte(rpmMirror+fmt.Sprintf(key, `"https://mirror.example.org/r?repo=x&token=s3cret"`)+"\n"))
		if err != nil {
			t.Errorf("%s with a token: %v", name, err)
		} else if text := fmt.Sprintf("%+v %#v", c, c); strings.Contains(text, "s3cret") {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, u := range []string{"http://alice:s3cret@snap.example.org", "http://snap.example.org/?token=s3cret", "gopher://alice:s3cret@snap.example.org"} {
		_, err := config.Parse("c.toml", []byte("[server]\npublic_url = \""+u+"\"\n"))
		if err == nil || !strings.Contains(err.Error(), "c.toml:2: public_url: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("public_url %s: %v", u, err)
		}
	}
}

// The files with credentials and certificates are checked when the daemon starts
// and by snapd --check, with key and line. Other readers of the configuration,
// who may not read them, do not need them.
func TestFilesOfMirrors(t *testing.T) {
	ca := fetchtest.NewCA(t)
	cert, key := ca.Issue("client")
	_, other := ca.Issue("other")
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return f
	}
	put("auth.conf", "machine h login alice password s3cret\n", 0o600)
	put("open.conf", "machine h login alice password s3cret\n", 0o644)
	head := rpmMirror + "url = \"https://mirror.example.org/r\"\n"
	for _, c := range []struct{ text, want string }{
		{fmt.Sprintf("auth_file = \"auth.conf\"\nca_file = %q\nclient_cert = %q\nclient_key = %q\n", ca.File, cert, key), ""},
		{"auth_file = \"none\"\n", `c.toml:7: auth_file: mirror "m": open ` + dir + "/none: no such file"},
		{"\nauth_file = \"open.conf\"\n", `c.toml:8: auth_file: mirror "m": ` + dir + "/open.conf: every user can read it (mode 0644)"},
		{"ca_file = \"auth.conf\"\n", `c.toml:7: ca_file: mirror "m": ` + dir + "/auth.conf: expected a PEM certificate, found none"},
		{fmt.Sprintf("client_cert = %q\nclient_key = %q\n", cert, other), `c.toml:8: client_key: mirror "m": `},
		{fmt.Sprintf("client_cert = %q\nclient_key = %q\n", key, key), `c.toml:7: client_cert: mirror "m": `},
	} {
		file := put("c.toml", head+c.text, 0o600)
		if _, err := config.Load(file); err != nil {
			t.Errorf("%s: Load: %v", c.text, err)
		}
		_, err := config.LoadAll(file)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: %v, expected %s", c.text, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"client_cert = \"x\"\n": `c.toml:7: client_cert: mirror "m": client_key is missing`,
		"client_key = \"x\"\n":  `c.toml:7: client_key: mirror "m": client_cert is missing`,
	} {
		if _, err := config.Parse("c.toml", []byte(head+text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %s", text, err, want)
		}
	}
}

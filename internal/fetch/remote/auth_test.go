package remote

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.org/snapd/internal/needs"
)

const aptHelper = "/usr/lib/apt/apt-helper"

// The credentials of an auth.conf are found as apt finds them: apt itself asks a
// server, which tells what it sent. Long because of its table of cases.
func TestLoginAsApt(t *testing.T) {
	needs.File(t, aptHelper)
	var mu sync.Mutex
	var sent []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, r.Header.Get("Authorization"))
		fmt.Fprint(w, "x")
	}))
	t.Cleanup(srv.Close)
	port := srv.URL[strings.LastIndex(srv.URL, ":")+1:]
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ conf, url string }{
		{"machine 127.0.0.1 login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1:PORT login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1:9 login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1: login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0. login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1:PORT/a login u password p", "http://127.0.0.1:PORT/ab"},
		{"machine http://127.0.0.1:PORT/a/ login u password p", "http://127.0.0.1:PORT/a"},
		{"machine http://127.0.0.1:PORT/ login u password p", "http://127.0.0.1:PORT/a"},
		{"machine http://127.0.0.1/a login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine https://127.0.0.1:PORT/a login u password p", "http://127.0.0.1:PORT/a"},
		{"machine HTTP://127.0.0.1 login u password p", "http://127.0.0.1:PORT/a"},
		{"machine http://127.0.0.1:PORT/a%20b login u password p", "http://127.0.0.1:PORT/a%20b/c"},
		{"machine http://127.0.0.1:PORT/a?x login u password p", "http://127.0.0.1:PORT/a?x=1"},
		{"machine http:// login u password p", "http://127.0.0.1:PORT/a"},
		{"machine http:/// login u password p", "http://127.0.0.1:PORT/a"},
		{"machine http://LOCALHOST login u password p", "http://localhost:PORT/a/b"},
		{"#machine http://127.0.0.1 login u password p\nmachine x login y password z", "http://127.0.0.1:PORT/a/b"},
		{"# comment\nmachine http://127.0.0.1 # more\nlogin u\n# and more\npassword p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login u password #p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login u#v password p#q", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login \"u v\" password p%41", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login u", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1\nmachine http://127.0.0.1 login v password q", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login u\nmachine http://127.0.0.1 login v password q", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login u login v password q", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 account a login u password p macdef x", "http://127.0.0.1:PORT/a/b"},
		{"machine\thttp://127.0.0.1\tlogin\tu\tpassword\tp\r\n", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1\n\nlogin u\n\n\npassword p", "http://127.0.0.1:PORT/a/b"},
		{"MACHINE http://127.0.0.1 LOGIN u PASSWORD p\nmachine x", "http://127.0.0.1:PORT/a/b"},
		{"machine x login machine password http://127.0.0.1 login u password p", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1 login machine password p", "http://127.0.0.1:PORT/a/b"},
		{"login a password b machine http://127.0.0.1 login u password p", "http://127.0.0.1:PORT/a/b"},
		// The first that matches, not the longest.
		{"machine http://127.0.0.1:PORT/a login u password p\nmachine http://127.0.0.1:PORT/a/b login v password q", "http://127.0.0.1:PORT/a/b"},
		{"machine http://127.0.0.1:PORT/a/b login v password q\nmachine http://127.0.0.1:PORT/a login u password p", "http://127.0.0.1:PORT/a/c"},
	} {
		conf, addr := strings.ReplaceAll(c.conf, "PORT", port), strings.ReplaceAll(c.url, "PORT", port)
		file := filepath.Join(dir, fmt.Sprint("auth", i))
		if err := os.WriteFile(file, []byte(conf+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		sent = nil
		cmd := exec.CommandContext(t.Context(), aptHelper, "-o", "Dir::Etc::netrc="+file, "-o", "Dir::Etc::netrcparts="+dir+"/none", "-o", "APT::Sandbox::User=root",
			"-o", "Acquire::http::Proxy=DIRECT", "download-file", addr, filepath.Join(dir, fmt.Sprint("out", i)))
		cmd.Env = append(os.Environ(), "APT_CONFIG=/dev/null", "http_proxy=")
		if out, err := cmd.CombinedOutput(); err != nil || len(sent) != 1 {
			t.Fatalf("%q: %v, %d requests\n%s", conf, err, len(sent), out)
		}
		want := ""
		if b64, ok := strings.CutPrefix(sent[0], "Basic "); ok {
			raw, err := base64.StdEncoding.DecodeString(b64)
			if err != nil {
				t.Fatal(err)
			}
			want = string(raw)
		}
		u, err := url.Parse(addr)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := parseAuth([]byte(conf))
		if err != nil {
			t.Fatalf("%q: %v", conf, err)
		}
		got := ""
		if user, password, ok := auth.login(u); ok {
			got = user + ":" + password
		}
		if got != want {
			t.Errorf("%q for %s: got %q, apt sends %q", conf, addr, got, want)
		}
	}
}

// Without a scheme an entry is for https. An entry that is commented out is not
// used, whereas apt finds a machine behind "# ".
func TestLogin(t *testing.T) {
	for _, c := range []struct{ conf, url, want string }{
		{"machine h login u password p", "https://h/a", "u:p"},
		{"machine h login u password p", "https://h:8443/a", "u:p"},
		{"machine h:443 login u password p", "https://h/a", ""},
		{"machine h/a login u password p", "https://h/a/b", "u:p"},
		{"machine https://h/a login u password p", "https://h/a/b", "u:p"},
		{"machine http://h/a login u password p", "https://h/a/b", ""},
		{"machine h login u password p", "https://h.evil/a", ""},
		{"machine h login u password p", "https://xh/a", ""},
		{"machine h login u password p", "http://h/a", ""},
		{" # machine h login u password p\nmachine x", "https://h/a", ""},
		{"machine h/ login u password p", "https://h", "u:p"},
	} {
		auth, err := parseAuth([]byte(c.conf))
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(c.url)
		got := ""
		if user, password, ok := auth.login(u); ok {
			got = user + ":" + password
		}
		if got != c.want {
			t.Errorf("%q for %s: got %q, expected %q", c.conf, c.url, got, c.want)
		}
	}
}

// A login that is taken out of a URL is found again for that URL and what is
// below it, and for nothing beside it.
func TestSplitLogin(t *testing.T) {
	for _, c := range []struct {
		url        string
		dir        bool
		rest, has  string
		not, entry string
	}{
		{"https://alice:s3cr3t@h/r", true, "https://h/r", "https://h/r/a", "https://h/rx", "machine https://h/r/ login alice password s3cr3t\n"},
		{"http://alice:s3%3Acr3t@h:8080/", true, "http://h:8080/", "http://h:8080/a", "http://h/a", "machine http://h:8080/ login alice password s3:cr3t\n"},
		{"https://alice:s3cr3t@h/list?repo=x", false, "https://h/list?repo=x", "https://h/list?repo=x", "https://h/lis", "machine https://h/list login alice password s3cr3t\n"},
		{"https://s3cr3t@h/a%20b", true, "https://h/a%20b", "https://h/a%20b/c", "http://h/a%20b/c", "machine https://h/a%20b/ login s3cr3t\n"},
		{"https://:s3cr3t@h", true, "https://h", "https://h/c", "https://hx/c", "machine https://h/ password s3cr3t\n"},
	} {
		rest, l, err := SplitLogin(c.url, c.dir)
		if err != nil || rest != c.rest || l == nil {
			t.Errorf("%s: %s, %v", c.url, rest, err)
			continue
		}
		file := AuthFile(l, l)
		if string(file) != c.entry {
			t.Errorf("%s: got %s, expected %s", c.url, file, c.entry)
		}
		logins, err := ParseLogins(file)
		if err != nil || !logins.Has(NewURL(c.has)) || logins.Has(NewURL(c.not)) {
			t.Errorf("%s: %v, has %t and %t", file, err, logins.Has(NewURL(c.has)), logins.Has(NewURL(c.not)))
		}
		if text := fmt.Sprintf("%v %+v %#v %+v", l, *l, l, logins); strings.Contains(text, "s3") {
			t.Error(text)
		}
	}
	for _, u := range []string{"https://a%20b:s3cr3t@h/", "https://a:s3%0Acr3t@h/", "ftp://a:s3cr3t@h/", "https://a:s3cr3t%zz@h/"} {
		if _, _, err := SplitLogin(u, true); err == nil || strings.Contains(err.Error(), "s3") {
			t.Errorf("%s: %v", u, err)
		}
	}
	if rest, l, err := SplitLogin("https://h/r", true); rest != "https://h/r" || l != nil || err != nil {
		t.Errorf("%s %v %v", rest, l, err)
	}
}

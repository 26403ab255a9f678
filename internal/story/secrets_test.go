package story

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/fetch/fetchtest"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

// planted is part of every secret in TestSecretsStayInside.
const planted = "s3cr3t"

// The test puts a secret wherever a mirror can have one, and checks that it does not
// appear in anything that leaves the process: pages, outputs, logs, errors, frozen files
// and exports. Long because each step depends on the one before.
func TestSecretsStayInside(t *testing.T) {
	ca := fetchtest.NewCA(t)
	cert, key := ca.Issue("client")
	// A server may repeat the request's secrets in its response.
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.Header().Set("Content-Encoding", password+r.URL.RawQuery)
		fmt.Fprint(w, password, r.URL.RawQuery)
	})
	fails := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); first {
		case "echo":
			echo(w, r)
		case "status":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprintf(conn, "HTTP/1.1 403 %s-status\r\nContent-Length: 0\r\n\r\n", planted)
				conn.Close()
			}
		case "ftp":
			w.Header().Set("Location", "ftp://alice:"+planted+"@mirror.example.org/")
			w.WriteHeader(http.StatusFound)
		case "loop":
			w.Header().Set("Location", "/loop?X-Amz-Signature="+planted)
			w.WriteHeader(http.StatusFound)
		case "dead":
			w.Header().Set("Location", "http://alice:"+planted+"@127.0.0.1:1/x?token="+planted)
			w.WriteHeader(http.StatusFound)
		case "metalink":
			fmt.Fprintf(w, `<?xml version="1.0"?><metalink version="3.0" xmlns="http://www.metalinker.org/"><files><file name="repomd.xml"><resources><url protocol="http" type="http" preference="1">http://alice:%s@mirror.example.org/x?token=%s</url></resources></file></files></metalink>`, planted, planted)
		case "list":
			fmt.Fprintf(w, "http://alice:%s@127.0.0.1:1/r\ngopher://alice:%s@h/?token=%s\n", planted, planted, planted)
		case "deadlist":
			fmt.Fprintf(w, "http://alice:%s@127.0.0.1:1/r\n", planted)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(fails.Close)

	// Mirrors that work. One has a login, a private certificate authority and a client
	// certificate; one a token in the query and a redirect to a signed URL; and one a login
	// in a mirror list.
	debs := newArchive(t)
	debs.Add(debtest.Package{Name: "a", Version: "1"})
	debs.publish()
	login := func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		if user == "alice" && password == planted+"-password" {
			return true
		}
		http.Error(w, "no", http.StatusUnauthorized)
		return false
	}
	private := ca.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if login(w, r) {
			debs.Handler().ServeHTTP(w, r)
		}
	}), true)
	rpms := rpmtest.New(rpmtest.Options{})
	rpms.Add(rpmtest.Package{Name: "r", Version: "1"})
	rpms.Publish(time.Now().Add(-time.Hour))
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("X-Amz-Signature") != planted+"-signature" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		rpms.ServeHTTP(w, r)
	}))
	t.Cleanup(store.Close)
	signed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != planted+"-token" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		http.Redirect(w, r, store.URL+r.URL.Path+"?X-Amz-Signature="+planted+"-signature", http.StatusFound)
	}))
	t.Cleanup(signed.Close)
	listed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/list" {
			fmt.Fprintf(w, "http://alice:%s-password@%s/\n", planted, r.Host)
		} else if login(w, r) {
			rpms.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(listed.Close)

	rpm := func(name, rest string) string {
		return fmt.Sprintf("\n[[mirror]]\nname = %q\ntype = \"rpm\"\nrepo_gpgcheck = false\ngpgcheck = false\ninterval = \"\"\n%s\n", name, rest)
	}
	config := head + strings.Replace(debs.stanza("debian", fmt.Sprintf("auth_file = \"auth.conf\"\nca_file = %q\nclient_cert = %q\nclient_key = %q", ca.File, cert, key)), debs.URL, private.URL, 1) +
		rpm("token", fmt.Sprintf("url = \"%s/?token=%s-token\"", signed.URL, planted)) +
		rpm("listed", fmt.Sprintf("mirrorlist = \"%s/list?repo=x&token=%s\"", listed.URL, planted))
	failing := map[string]string{
		"echo":       "url = \"%s/echo?token=" + planted + "\"",
		"login":      "url = \"%s/echo\"\nauth_file = \"auth.conf\"",
		"status":     "url = \"%s/status?token=" + planted + "\"",
		"ftp":        "url = \"%s/ftp\"",
		"loop":       "url = \"%s/loop?token=" + planted + "\"",
		"redirected": "url = \"%s/dead\"",
		"metalink":   "metalink = \"%s/metalink?token=" + planted + "\"",
		"list":       "mirrorlist = \"%s/list?token=" + planted + "\"",
		"deadlist":   "mirrorlist = \"%s/deadlist?token=" + planted + "\"",
		"urls":       "urls = [\"%s/404?token=" + planted + "\", \"http://127.0.0.1:1/?token=" + planted + "\"]",
		"tls":        "url = \"" + private.URL + "/?token=" + planted + "\"",
		"proxied":    "url = \"http://mirror.example.org/?token=" + planted + "\"",
		"bare":       "url = \"%s/404?" + planted + "\"",
	}
	for name, rest := range failing {
		config += rpm(name, strings.ReplaceAll(rest, "%s", fails.URL))
	}
	// The configuration refers to a file with logins and to a proxy with a password.
	proxy := "http://alice:" + planted + "@127.0.0.1:1"
	auth := filepath.Join(t.TempDir(), "auth.conf")
	host := func(u string) string { _, h, _ := strings.Cut(u, "://"); return h }
	if err := os.WriteFile(auth, []byte(fmt.Sprintf("machine %s login alice password %s-password\nmachine %s login alice password %s-password\n",
		host(private.URL), planted, "http://"+host(fails.URL), planted)), 0o600); err != nil {
		t.Fatal(err)
	}
	config = strings.ReplaceAll(config, `"auth.conf"`, fmt.Sprintf("%q", auth))
	s := startWith(t, config, []string{"--debug"}, "http_proxy="+proxy, "https_proxy="+proxy, "HTTP_PROXY="+proxy, "no_proxy=")

	var leaks int
	look := func(where string, data []byte) {
		t.Helper()
		for _, form := range []string{planted, strings.ToUpper(planted), fmt.Sprintf("%x", planted), "czNjcjN0"} { // the last: base64
			if i := bytes.Index(data, []byte(form)); i >= 0 {
				leaks++
				t.Errorf("%s: …%s…", where, data[max(0, i-150):min(len(data), i+40)])
			}
		}
	}
	ctl := func(line string) {
		for _, json := range []string{"", " --json"} {
			out, err := s.Try(strings.Fields(line + json)...)
			look("snapctl "+line+json, []byte(out))
			if err != nil {
				look("errors of snapctl "+line+json, []byte(err.Error()))
			}
		}
	}
	page := func(path string) {
		code, body := get(t, "http://"+s.Addr+path)
		look(path, []byte(body))
		if code != 200 {
			t.Errorf("%s: status %d", path, code)
		}
	}

	s.Ctl("sync", "debian", "token", "listed")
	ctl("sync")
	names := []string{"debian", "token", "listed"}
	var mirrors api.MirrorList
	s.JSON(&mirrors, "mirror", "list")
	for _, m := range mirrors.Mirrors {
		if failing[m.Name] == "" {
			continue
		}
		names = append(names, m.Name)
		if m.Error == "" {
			t.Errorf("mirror %s: the sync succeeded", m.Name)
		}
	}
	s.Ctl("freeze", "4.1", "--all", "--mirror", "debian", "--mirror", "token", "--mirror", "listed")
	s.Ctl("export", "4.1", filepath.Join(s.Dir, "export"))
	for _, line := range []string{
		"status", "mirror list", "list", "list --frozen", "show 4.1", "show debian@latest", "show token@latest", "packages 4.1", "find r", "diff 4.1 token@latest",
		"sources 4.1", "sources token@latest", "sources debian@latest", "verify 4.1", "verify 4.1 --deep", "sbom 4.1", "fsck", "gc --dry-run", "key show",
		"record start build --mirror debian --mirror token --mirror listed", "record show build", "record list", "freeze other --package nothing --mirror token", "image build 4.1 --dry-run",
		"sync token --from-url http://alice:" + planted + "@127.0.0.1:1/ --as 2020-01-01",
		"sync token --from-url http://127.0.0.1:1/?token=" + planted + " --as 2020-01-01",
		"sync token --from-url http://alice:" + planted + "%zz@127.0.0.1:1/ --as 2020-01-01",
		"sync token --from-url gopher:" + planted + " --as 2020-01-01",
		"fsck --repair --from http://alice:" + planted + "@127.0.0.1:1/",
	} {
		ctl(line)
	}
	for _, name := range names {
		ctl("mirror show " + name)
		page("/mirror/" + name)
	}
	for _, path := range []string{
		"/", "/metrics", "/freeze/4.1", "/frozen/4.1/manifest.json", "/frozen/4.1/provenance.json", "/frozen/4.1/token/repodata/repomd.xml", "/package/r", "/diff?a=4.1&b=4.1",
	} {
		page(path)
	}
	for _, m := range mirrors.Mirrors {
		if m.Latest != "" {
			page("/snapshot/" + m.Latest)
		}
	}
	s.Stop()
	look("the log", []byte(s.Log()))
	if !strings.Contains(s.Log(), "level=DEBUG") {
		t.Error("the log has no details")
	}
	// Exports and backups take stored data to other machines.
	for _, dir := range []string{"export", "data"} {
		err := filepath.WalkDir(filepath.Join(s.Dir, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(p)
			look(p, data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The checks above would also pass if nothing had been logged. Check that the log has a
	// redacted URL.
	if leaks == 0 && !strings.Contains(s.Log(), fails.URL+"/echo/repodata/repomd.xml?token=xxxxx") {
		t.Errorf("the log names no URL:\n%s", s.Log())
	}
}

// snapd does not start with a login or file that it cannot use. snapd --check reports the
// key and line.
func TestCheck(t *testing.T) {
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	a := newArchive(t)
	dir := t.TempDir()
	check := func(text string) (string, error) {
		t.Helper()
		file := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(file, []byte(strings.NewReplacer("%ADDR%", "127.0.0.1:0", "%DATA%", filepath.Join(dir, "data")).Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "snapd"), "--check", "--config", file).CombinedOutput()
		return string(out), err
	}
	good := head + a.stanza("debian", "")
	if out, err := check(good); err != nil || out != "" {
		t.Errorf("%v %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("--check created the data directory")
	}
	for text, want := range map[string]string{
		head + strings.Replace(a.stanza("debian", ""), "://", "://alice:s3cr3t@", 1): "put them into a file and set the mirror's auth_file",
		good + "auth_file = \"none.conf\"\n":                                         "auth_file: mirror \"debian\": open " + dir + "/none.conf",
	} {
		if out, err := check(text); err == nil || !strings.Contains(out, want) || !strings.Contains(out, "config.toml:") || strings.Contains(out, planted) {
			t.Errorf("%v: %s\nexpected %s", err, out, want)
		}
	}
}

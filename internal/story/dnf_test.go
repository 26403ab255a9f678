package story

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// fetch returns the body of a page of the server, which must exist.
func (s *server) fetch(path string) string {
	s.t.Helper()
	resp, err := http.Get("http://" + s.Addr + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v: %.300s", path, resp.Status, err, body)
	}
	return string(body)
}

// dnf can use the .repo files from the server unchanged: their keys are URLs at the
// server, and their ids have no characters that dnf refuses.
func TestRepoFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs dnf")
	}
	f := newFedora(t)
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	f.Build("libgreet", "1.0")
	f.Build("greet", "1.0", "libgreet")
	f.Publish(now.Add(-time.Hour))
	a.Add(debtest.Package{Name: "app", Version: "1"})
	a.Publish(now.Add(-time.Hour))
	const mirror = "fe~dora+x"
	s := start(t, config+fmt.Sprintf("[[mirror]]\nname = %q\ntype = \"rpm\"\nurl = %q\narchitectures = [\"x86_64\"]\nkeyring = %q\ndownload = \"on_demand\"\n", mirror, f.URL, f.Key))
	s.Ctl("sync")
	s.Ctl("freeze", "4.1~rc1+x", "--mirror", mirror, "--package", "greet", "--with-deps")
	s.Ctl("freeze", "deb-only", "--mirror", "debian", "--all")
	s.Ctl("record", "start", "rec")
	s.Ctl("record", "start", "again", "--resigned")

	const want = "greet-1.0-1.noarch\nlibgreet-1.0-1.noarch\n"
	for name, repo := range map[string]string{
		"page of the freeze":     s.fetch("/frozen/4.1~rc1+x/repo"),
		"sources of the freeze":  s.Ctl("sources", "4.1~rc1+x"),
		"with key files":         s.Ctl("sources", "4.1~rc1+x", "--keys-dir", filepath.Join(t.TempDir(), "keys+~x")),
		"sources of a snapshot":  s.Ctl("sources", mirror+"@latest"),
		"sources of a recording": s.Ctl("sources", "rec", "--format", "repo"),
		"recording, resigned":    s.Ctl("sources", "again", "--mirror", mirror),
	} {
		for _, line := range []string{"gpgcheck=1\n", "repo_gpgcheck=1\n"} {
			if !strings.Contains(repo, "\n"+line) {
				t.Errorf("%s: no %q in\n%s", name, line, repo)
			}
		}
		if got := newDNF(t, repo).Install("greet"); got != want {
			t.Errorf("%s: dnf installed %q", name, got)
		}
	}
	resp, err := http.Get("http://" + s.Addr + "/frozen/deb-only/repo")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the .repo of a freeze without rpm packages: %s, expected 404", resp.Status)
	}
}

// Clients can use the proxy form of a recording, whether they send a user name only when
// challenged or always send a password. Long because of its table.
func TestProxyClients(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs dnf")
	}
	needs.Programs(t, "curl", "wget", "debootstrap", "python3")
	f := newFedora(t)
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	f.Build("greet", "1.0")
	f.Publish(now.Add(-time.Hour))
	for _, name := range []string{"base-files", "apt"} {
		a.Add(debtest.Package{Name: name, Version: "1", Fields: map[string]string{"Priority": "required", "Essential": "yes"}})
	}
	a.Publish(now.Add(-time.Hour))
	s := start(t, config+fmt.Sprintf("[[mirror]]\nname = \"fedora\"\ntype = \"rpm\"\nurl = %q\nkeyring = %q\ndownload = \"on_demand\"\n", f.URL, f.Key))
	s.Ctl("sync")
	var show api.MirrorDetail
	s.JSON(&show, "mirror", "show", "debian")
	deb := strings.TrimSuffix(show.URLs[0], "/")

	run := func(env []string, name string, args ...string) error {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), append([]string{"no_proxy=", "NO_PROXY=", "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8"}, env...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, out)
		}
		return nil
	}
	file := deb + "/dists/stable/InRelease"
	clients := map[string]func(proxy, to string) error{
		"curl": func(proxy, to string) error { return run(nil, "curl", "-sSf", "--proxy", proxy, "-o", to, file) },
		"curl --proxy-anyauth": func(proxy, to string) error {
			return run(nil, "curl", "-sSf", "--proxy-anyauth", "--proxy", proxy, "-o", to, file)
		},
		"wget": func(proxy, to string) error {
			return run([]string{"http_proxy=" + proxy}, "wget", "-nv", "--tries=1", "-O", to, file)
		},
		"python": func(proxy, to string) error {
			return run([]string{"http_proxy=" + proxy}, "python3", "-c",
				"import sys, urllib.request as r; open(sys.argv[2], 'wb').write(r.urlopen(sys.argv[1]).read())", file, to)
		},
		"python, asked": func(proxy, to string) error {
			u, err := url.Parse(proxy)
			if err != nil {
				return err
			}
			return run([]string{"http_proxy=http://" + u.Host}, "python3", "-c", `import sys, urllib.request as r
p = r.HTTPPasswordMgrWithDefaultRealm()
p.add_password(None, sys.argv[3], sys.argv[4], sys.argv[5])
open(sys.argv[2], 'wb').write(r.build_opener(r.ProxyBasicAuthHandler(p)).open(sys.argv[1]).read())`, file, to, u.Host, u.User.Username(), "")
		},
		"debootstrap": func(proxy, to string) error {
			err := run([]string{"http_proxy=" + proxy}, "debootstrap", "--download-only", "--no-check-gpg", "--arch=amd64", "--variant=minbase",
				"stable", to, deb, "/usr/share/debootstrap/scripts/sid")
			if _, missing := os.Stat(filepath.Join(to, "var/cache/apt/archives/apt_1_amd64.deb")); err == nil {
				err = missing
			}
			return err
		},
		"dnf": func(proxy, _ string) error {
			u, err := url.Parse(proxy)
			if err != nil {
				return err
			}
			password, _ := u.User.Password()
			d := newDNF(t, fmt.Sprintf("[x]\nname=x\nbaseurl=%s\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://%s\nproxy=http://%s\nproxy_username=%s\nproxy_password=%s\n",
				f.URL, f.Key, u.Host, u.User.Username(), password))
			d.noProxy = ""
			if out, err := d.Try("install", "greet"); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		},
	}
	// Some programs cannot send some logins at all: wget cannot send a name without a
	// password, and Python's default handler cannot send an empty password either.
	cannot := map[string][]string{"wget": {"%s@"}, "debootstrap": {"%s@"}, "python": {"%s@", "%s:@"}}
	n := 0
	for client, get := range clients {
		for _, login := range []string{"%s@", "%s:@", "%s:x@"} {
			if slices.Contains(cannot[client], login) {
				continue
			}
			n++
			name := fmt.Sprintf("rec%d", n)
			s.Ctl("record", "start", name)
			if err := get("http://"+fmt.Sprintf(login, name)+s.Addr, filepath.Join(t.TempDir(), "out")); err != nil {
				t.Errorf("%s by %s: %v", client, login, err)
			}
			var rec api.Recording
			s.JSON(&rec, "record", "show", name)
			if packages := client == "dnf" || client == "debootstrap"; packages != (len(rec.Entries) > 0) {
				t.Errorf("%s by %s: recorded %+v", client, login, rec.Entries)
			}
		}
	}
}

// The metadata of a repository place packages on another server, which is gone. A freeze
// of the whole mirror works without it. A recording is refused with the reason, because
// it would not contain those packages.
func TestPackagesOnAnotherServer(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs dnf")
	}
	f := newFedora(t)
	f.Build("greet", "1.0")
	f.Publish(time.Now().UTC().Truncate(time.Second).Add(-time.Hour))
	dead := "http://127.0.0.1:" + freePort(t) + "/x"
	f.run("createrepo_c", "--quiet", "--baseurl", dead+"/", f.Dir)
	os.Remove(filepath.Join(f.Dir, "repodata/repomd.xml.asc"))
	f.run("gpg", "--batch", "--armor", "--detach-sign", filepath.Join(f.Dir, "repodata/repomd.xml"))
	s := start(t, fmt.Sprintf("data_dir = \"%%DATA%%\"\n[server]\nlisten = \"%%ADDR%%\"\n[[mirror]]\nname = \"fedora\"\ntype = \"rpm\"\nurl = %q\nkeyring = %q\ndownload = \"on_demand\"\n", f.URL, f.Key))
	s.Ctl("sync")
	s.Ctl("freeze", "whole", "--all")
	s.Ctl("verify", "whole", "--deep")
	if err := os.RemoveAll(f.Dir); err != nil {
		t.Fatal(err)
	}
	if got := newDNF(t, s.fetch("/frozen/whole/repo")).Install("greet"); got != "greet-1.0-1.noarch\n" {
		t.Errorf("dnf installed %q", got)
	}
	if _, err := s.Try("record", "start", "rec"); err == nil || !strings.Contains(err.Error(), "lists packages at "+dead+", where clients would fetch them unrecorded") {
		t.Errorf("record start: %v", err)
	}
}

package story

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// The configurations of nginx and caddy in contrib/ put TLS in front of snapd: apt
// installs over https, and snapctl does a release with a token.
func TestTLSInFront(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	for _, server := range []string{"nginx", "caddy"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			needs.Programs(t, server)
			dir := t.TempDir()
			cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			writeCertificate(t, cert, key, "localhost")
			public, control := freePort(t), freePort(t)
			a, config := upstream(t)
			a.Add(debtest.Package{Name: "app", Version: "1"})
			a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
			port := freePort(t)
			s := start(t, strings.Replace(config, "[store]\n", "public_url = \"https://localhost:"+public+"\"\n[api]\nlisten = \"127.0.0.1:"+port+"\"\ntrusted_proxies = [\"127.0.0.1\", \"::1\"]\n[store]\n", 1))
			front := frontServer{dir: dir, cert: cert, key: key, public: public, control: control, snapd: s.Addr, api: "127.0.0.1:" + port}
			front.run(t, server)

			s.env = append(s.env, "SSL_CERT_FILE="+cert)
			s.Ctl("sync")
			url := "https://localhost:" + control
			m := s.join(url, "release", "--role", "releaser")
			for i := 0; ; i++ { // until the server in front listens
				_, err := m.Try("list")
				if err == nil {
					break
				}
				if i == 100 {
					t.Fatalf("%v\n%s", err, front.log(t))
				}
				time.Sleep(50 * time.Millisecond)
			}
			m.Ctl("freeze", "4.1", "--package", "app", "--no-sources")
			image := filepath.Join(dir, "image")
			if err := os.WriteFile(image, []byte(noise(12<<20)), 0o600); err != nil {
				t.Fatal(err)
			}
			m.Ctl("image", "add", "4.1", image)
			sources := m.Ctl("sources", "4.1")
			if !strings.Contains(sources, "https://localhost:"+public+"/frozen/4.1/") {
				t.Fatalf("sources:\n%s", sources)
			}
			apt := debtest.NewApt(t, sources)
			apt.Options = append(apt.Options, "Acquire::https::CAInfo="+cert)
			apt.Run("apt-get", "update")
			apt.Run("apt-get", "install", "app")
		})
	}
}

// frontServer is a web server in front of snapd.
type frontServer struct {
	dir, cert, key, public, control, snapd, api string
}

// run starts nginx or caddy with its file in contrib/, whose names and addresses are
// replaced by those of the test.
func (f *frontServer) run(t *testing.T, program string) {
	t.Helper()
	name := map[string]string{"nginx": "nginx/frozen-snapd.conf", "caddy": "caddy/Caddyfile"}[program]
	data, err := os.ReadFile(filepath.Join("../../contrib", name))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:8080", f.snapd, "127.0.0.1:8443", f.api).Replace(string(data))
	var cmd *exec.Cmd
	conf := filepath.Join(f.dir, "conf")
	switch program {
	case "nginx":
		for _, port := range []string{f.public, f.control} {
			text = strings.Replace(text, "listen 443 ssl;", "listen 127.0.0.1:"+port+" ssl; listen [::1]:"+port+" ssl;", 1)
		}
		text = regexp.MustCompile(`ssl_certificate /.*;`).ReplaceAllString(text, "ssl_certificate "+f.cert+";")
		text = regexp.MustCompile(`ssl_certificate_key /.*;`).ReplaceAllString(text, "ssl_certificate_key "+f.key+";")
		text = strings.NewReplacer("packages.example.org", "localhost", "control.example.org", "localhost").Replace(text)
		text = "daemon off;\npid " + f.dir + "/pid;\nerror_log " + f.dir + "/log;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path " + f.dir + "/body;\nproxy_temp_path " + f.dir + "/proxy;\n" +
			"fastcgi_temp_path " + f.dir + "/a;\nuwsgi_temp_path " + f.dir + "/b;\nscgi_temp_path " + f.dir + "/c;\n" + text + "}\n"
		if os.Geteuid() == 0 {
			text = "user root;\n" + text
		}
		cmd = exec.CommandContext(t.Context(), "nginx", "-e", f.dir+"/log", "-c", conf)
	case "caddy":
		text = strings.NewReplacer(
			"packages.example.org {", "https://localhost:"+f.public+" {\n\ttls "+f.cert+" "+f.key,
			"control.example.org {", "https://localhost:"+f.control+" {\n\ttls "+f.cert+" "+f.key,
		).Replace(text)
		text = "{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system " + f.dir + "/caddy\n}\n" + text
		cmd = exec.CommandContext(t.Context(), "caddy", "run", "--adapter", "caddyfile", "--config", conf)
		cmd.Env = append(os.Environ(), "HOME="+f.dir, "XDG_CONFIG_HOME="+f.dir, "XDG_DATA_HOME="+f.dir)
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(f.dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// log returns what the server said.
func (f *frontServer) log(t *testing.T) string {
	t.Helper()
	out, _ := os.ReadFile(filepath.Join(f.dir, "output"))
	more, _ := os.ReadFile(filepath.Join(f.dir, "log"))
	return string(out) + string(more)
}

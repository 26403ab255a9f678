package story

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
)

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "snapd-bin-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", dir, top+"/cmd/snapd", top+"/cmd/snapctl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// TestMain removes the programs that build compiled.
func TestMain(m *testing.M) {
	buildenv.Helper() // buildenv.Check executes this program
	code := m.Run()
	if dir, err := build(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// server is a running snapd with its own data directory.
type server struct {
	t      *testing.T
	Dir    string
	Config string // path
	Addr   string // host:port
	cmd    *exec.Cmd
	flags  []string // of snapd, in addition to --config
	env    []string // of snapd and snapctl, in addition to the test's
}

// start runs snapd with a configuration, in which it replaces %ADDR% and %DATA%.
func start(t *testing.T, config string) *server {
	t.Helper()
	return startWith(t, config, nil)
}

// startWith is start with additional flags and environment variables for snapd.
func startWith(t *testing.T, config string, flags []string, env ...string) *server {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, Dir: t.TempDir(), Addr: "127.0.0.1:" + freePort(t), flags: flags, env: env}
	s.Config = filepath.Join(s.Dir, "config.toml")
	config = strings.NewReplacer("%ADDR%", s.Addr, "%DATA%", filepath.Join(s.Dir, "data")).Replace(config)
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(bin)
	t.Cleanup(s.Stop)
	return s
}

func (s *server) run(bin string) {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.Dir, "snapd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(bin, "snapd"), append([]string{"--config", s.Config}, s.flags...)...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 200 {
		if _, err := s.Try("mirror", "list"); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("snapd is not running:\n%s", s.Log())
}

// Stop has snapd shut down cleanly.
func (s *server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
	s.cmd = nil
	if s.t.Failed() {
		s.t.Logf("snapd:\n%s", s.Log())
	}
}

// Log returns snapd's log.
func (s *server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "snapd.log"))
	return string(b)
}

// Try runs snapctl and returns its standard output.
func (s *server) Try(args ...string) (string, error) {
	bin, err := build()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(bin, "snapctl"), args...)
	cmd.Env = append(os.Environ(), "SNAPCTL_SOCKET="+filepath.Join(s.Dir, "data/snapd.sock"), "LC_ALL=C.UTF-8")
	cmd.Env = append(cmd.Env, s.env...)
	cmd.Dir = s.Dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), &ctlError{err, errs.String()}
	}
	return out.String(), nil
}

type ctlError struct {
	err  error
	text string
}

func (e *ctlError) Error() string { return e.err.Error() + "\n" + e.text }
func (e *ctlError) Unwrap() error { return e.err }

// code returns the exit code of a failed snapctl.
func code(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// Ctl runs snapctl, which must succeed.
func (s *server) Ctl(args ...string) string {
	s.t.Helper()
	out, err := s.Try(args...)
	if err != nil {
		s.t.Fatalf("snapctl %s: %v%s", strings.Join(args, " "), err, out)
	}
	return out
}

// JSON runs snapctl --json and decodes the last line of its output.
func (s *server) JSON(v any, args ...string) {
	s.t.Helper()
	out := strings.TrimSpace(s.Ctl(append([]string{"--json"}, args...)...))
	if err := json.Unmarshal([]byte(out), v); err != nil {
		lines := strings.Split(out, "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), v); err != nil {
			s.t.Fatalf("snapctl %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}

// status decodes the output of snapctl status, which may fail because a mirror has failed.
func (s *server) status(v any) {
	s.t.Helper()
	out, err := s.Try("status", "--json")
	if err != nil && code(err) != api.ExitPartial {
		s.t.Fatalf("snapctl status: %v%s", err, out)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		s.t.Fatalf("snapctl status: %v: %s", err, out)
	}
}

// machine is a proxy on loopback for the upstreams in this machine's apt sources, so that
// a test can make them unreachable.
type machine struct {
	*httptest.Server
	Gone   atomic.Bool
	Config string // for start
}

var urlLine = regexp.MustCompile(`(?m)^url = "([^"]+)"$`)

// thisMachine reads this machine's apt sources with snapctl init.
func thisMachine(t *testing.T) *machine {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "snapctl"), "init", "--from-apt", "--data-dir", "/nonexistent", "--output", "-")
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil && code(err) != 3 { // some of the sources cannot be mirrored
		t.Fatalf("%v: %s", err, errs.String())
	}
	m := &machine{}
	var ups []*url.URL
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.Gone.Load() {
			http.NotFound(w, r)
			return
		}
		var n int
		rest := ""
		if _, err := fmt.Sscanf(r.URL.Path, "/m%d/", &n); err != nil || n >= len(ups) {
			http.NotFound(w, r)
			return
		}
		rest = strings.TrimPrefix(r.URL.Path, fmt.Sprintf("/m%d", n))
		(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = ups[n].Scheme, ups[n].Host, ups[n].Host
			p.Out.URL.Path, p.Out.URL.RawPath = ups[n].Path+rest, ""
		}, ErrorLog: nil}).ServeHTTP(w, r)
	}))
	t.Cleanup(m.Server.Close)
	text := urlLine.ReplaceAllStringFunc(string(out), func(line string) string {
		u, err := url.Parse(urlLine.FindStringSubmatch(line)[1])
		if err != nil {
			t.Fatal(err)
		}
		ups = append(ups, u)
		return fmt.Sprintf("url = %q", fmt.Sprintf("%s/m%d", m.URL, len(ups)-1))
	})
	text = regexp.MustCompile(`(?m)^data_dir = .*$`).ReplaceAllString(text, `data_dir = "%DATA%"`)
	text = regexp.MustCompile(`(?m)^listen = .*$`).ReplaceAllString(text, `listen = "%ADDR%"`)
	m.Config = regexp.MustCompile(`(?m)^interval = .*$`).ReplaceAllString(text, `interval = ""`)
	return m
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/fetchtest"
)

// fileRun is a daemon under test with a configuration file.
type fileRun struct {
	*run
	file   string
	hangup chan os.Signal
}

// startFile starts a daemon with a configuration file of this text, below what every
// test needs.
func startFile(t *testing.T, text string, change ...func(*Options)) *fileRun {
	t.Helper()
	r := &fileRun{file: filepath.Join(shortDir(t), "c.toml"), hangup: make(chan os.Signal, 1)}
	r.write(t, text)
	load := func() (*config.Config, error) { return config.LoadAll(r.file) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Load: load, Hangup: r.hangup}
	for _, f := range change {
		f(&o)
	}
	r.run = startWith(t, cfg, o)
	return r
}

func (r *fileRun) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(r.file, []byte("data_dir = \"data\"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload reloads over the control socket.
func (r *fileRun) reload(t *testing.T) (*api.ReloadResult, error) {
	t.Helper()
	res := &api.ReloadResult{}
	return res, r.ctl.Call(t.Context(), "reload", api.Empty{}, res, nil)
}

// eventually waits until a condition holds.
func (r *run) eventually(what string, holds func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("never: %s\n%s", what, r.log)
		}
	}
}

const listenAnywhere = "[server]\nlisten = \"127.0.0.1:0\"\n"

// A reload adds, changes and removes mirrors, and changes limits, while snapd runs.
func TestReload(t *testing.T) {
	a, url := upstream(t)
	r := startFile(t, listenAnywhere+mirrorText(a, "debian", url, ""))
	if got := r.status().Mirrors; len(got) != 1 || got[0].NextSync != nil {
		t.Fatalf("mirrors %+v, expected one that syncs on request", got)
	}
	// One more, which is synced at once, and an interval for the first.
	r.write(t, listenAnywhere+"max_connections = 5\n[fetch]\nparallel = 3\n[store]\nreserve = \"5MiB\"\n"+
		mirrorText(a, "debian", url, `interval = "6h"`)+mirrorText(a, "more", url, `interval = "6h"`))
	res, err := r.reload(t)
	if err != nil || !slices.Equal(res.Added, []string{"more"}) || !slices.Equal(res.Changed, []string{"debian"}) || len(res.Removed)+len(res.Restart) != 0 {
		t.Fatalf("reload: %+v, %v", res, err)
	}
	r.eventually("both mirrors are synced", func() bool {
		m := r.status().Mirrors
		return len(m) == 2 && m[0].Latest != "" && m[1].Latest != "" && m[0].NextSync != nil && m[1].NextSync != nil
	})
	if got := r.status().Reserve; got != 5<<20 {
		t.Errorf("reserve %d, expected 5 MiB", got)
	}
	// The first mirror is removed: snapd no longer syncs it, but still serves its snapshots.
	r.write(t, listenAnywhere+"max_connections = 5\n[fetch]\nparallel = 3\n[store]\nreserve = \"5MiB\"\n"+mirrorText(a, "more", url, `interval = "6h"`))
	if res, err := r.reload(t); err != nil || !slices.Equal(res.Removed, []string{"debian"}) || len(res.Added)+len(res.Changed) != 0 {
		t.Fatalf("reload: %+v, %v", res, err)
	}
	if code, _ := get(t, r.public+"/archive/debian/latest/dists/stable/InRelease"); code != 200 {
		t.Errorf("a removed mirror's snapshot: status %d, expected 200", code)
	}
	var e *api.Error
	if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{Mirrors: []string{"debian"}}, nil, nil); !errors.As(err, &e) || e.Code != api.CodeNotFound {
		t.Errorf("sync of a removed mirror: %v", err)
	}
	if w := r.status().Warnings; len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

// A reload takes the keyring anew: what a mirror is verified with may have been
// replaced in place.
func TestReloadKeyring(t *testing.T) {
	a, url := upstream(t)
	ring := filepath.Join(shortDir(t), "ring.asc")
	good, err := os.ReadFile(a.KeyringFile())
	if err != nil {
		t.Fatal(err)
	}
	other, _ := upstream(t)
	wrong, err := os.ReadFile(other.KeyringFile())
	if err != nil {
		t.Fatal(err)
	}
	keep := func(data []byte) {
		if err := os.WriteFile(ring, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep(wrong)
	text := listenAnywhere + strings.Replace(mirrorText(a, "debian", url, ""), a.KeyringFile(), ring, 1)
	r := startFile(t, text)
	sync := func() int {
		var res api.SyncResult
		if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{}, &res, nil); err != nil {
			t.Fatal(err)
		}
		return res.Exit
	}
	if got := sync(); got != api.ExitVerify {
		t.Fatalf("a sync with another archive's key: exit %d", got)
	}
	keep(good)
	if _, err := r.reload(t); err != nil {
		t.Fatal(err)
	}
	if got := sync(); got != 0 {
		t.Errorf("a sync after the reload: exit %d, expected 0\n%s", got, r.log)
	}
}

// A keyring that is missing does not end a start, but the log says what to do, and a reload
// after it was installed is enough.
func TestStartWithoutKeyring(t *testing.T) {
	a, url := upstream(t)
	ring := filepath.Join(t.TempDir(), "ring.gpg")
	r := startFile(t, listenAnywhere+strings.Replace(mirrorText(a, "debian", url, ""), a.KeyringFile(), ring, 1))
	for _, want := range []string{"level=WARN", "syncs fail until this is fixed: install the file or correct the configuration, then reload", "keyring of mirror debian: ", ring} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, r.log)
		}
	}
	data, err := os.ReadFile(a.KeyringFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ring, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reload(t); err != nil {
		t.Fatal(err)
	}
	if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{}, nil, nil); err != nil {
		t.Errorf("a sync with the keyring: %v", err)
	}
}

// A bad file changes nothing; log, answer and status say where it is wrong.
func TestReloadRefused(t *testing.T) {
	a, url := upstream(t)
	good := listenAnywhere + mirrorText(a, "debian", url, "")
	r := startFile(t, good)
	for _, c := range []struct{ name, text, want string }{
		{"an unknown key", listenAnywhere + "lisen = \"x\"\n" + mirrorText(a, "other", url, ""), `c.toml:4: unknown key "server.lisen"`},
		{"a bad value", good + "[fetch]\nparallel = 1000\n", "c.toml:14: parallel: 1000: expected 1 to 256"},
		{"a keyring that is missing", strings.Replace(good, a.KeyringFile(), "/nowhere/ring.gpg", 1), "keyring of mirror debian: "},
		{"credentials that are missing", good + "auth_file = \"/nowhere/auth.conf\"\n", `c.toml:13: auth_file: mirror "debian": `},
	} {
		r.write(t, c.text)
		_, err := r.reload(t)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected …%s…", c.name, err, c.want)
		}
		st := r.status()
		if len(st.Mirrors) != 1 || st.Mirrors[0].Name != "debian" {
			t.Errorf("%s: mirrors %+v", c.name, st.Mirrors)
		}
		if len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], c.want) || !strings.HasPrefix(st.Warnings[0], "the configuration was not reloaded") {
			t.Errorf("%s: warnings %q", c.name, st.Warnings)
		}
	}
	// By the signal, the log says it.
	r.hangup <- syscall.SIGHUP
	r.eventually("the refused reload is logged", func() bool { return strings.Contains(r.log.String(), "was not reloaded") })
	// Keys that need a start are named, and the others take effect.
	r.write(t, strings.Replace(good, "[server]\n", "[server]\npublic_url = \"http://mirror.example.org\"\n", 1)+mirrorText(a, "more", url, ""))
	res, err := r.reload(t)
	if err != nil || !slices.Equal(res.Restart, []string{"server.public_url"}) || !slices.Equal(res.Added, []string{"more"}) {
		t.Fatalf("reload: %+v, %v", res, err)
	}
	if w := r.status().Warnings; len(w) != 1 || !strings.HasSuffix(w[0], "take effect at the next start: server.public_url") {
		t.Errorf("warnings %q", w)
	}
	r.write(t, good)
	if _, err := r.reload(t); err != nil {
		t.Fatal(err)
	}
	if w := r.status().Warnings; len(w) != 0 {
		t.Errorf("warnings after a good file: %q", w)
	}
}

// A new certificate of the control API is used after a reload, and not after one that
// is refused.
func TestReloadCertificate(t *testing.T) {
	a, url := upstream(t)
	ca, dir := fetchtest.NewCA(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	issue := func(name string) []byte {
		t.Helper()
		c, k := ca.Issue(name)
		for from, to := range map[string]string{c: cert, k: key} {
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Certificate[0]
	}
	first := issue("first")
	network := fmt.Sprintf("[api]\nlisten = \"127.0.0.1:0\"\ntls_cert = %q\ntls_key = %q\n", cert, key)
	good := listenAnywhere + network + mirrorText(a, "debian", url, "")
	var addr string
	r := startFile(t, good, func(o *Options) { o.ReadyAPI = func(at net.Addr) { addr = at.String() } })
	shown := func() []byte {
		t.Helper()
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Raw
	}
	second := issue("second")
	r.write(t, strings.Replace(good, a.KeyringFile(), "/nowhere/ring.gpg", 1))
	if _, err := r.reload(t); err == nil {
		t.Error("a file with a keyring that is missing was taken")
	}
	if !bytes.Equal(shown(), first) {
		t.Error("after a reload that was refused, the control API shows the new certificate")
	}
	r.write(t, good)
	if _, err := r.reload(t); err != nil || !bytes.Equal(shown(), second) {
		t.Errorf("after a reload the control API shows the earlier certificate; %v", err)
	}
}

// A reload with a higher limit lets connections in that wait.
func TestReloadConnections(t *testing.T) {
	r := startFile(t, listenAnywhere+"max_connections = 1\n")
	dial := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial() // the one that is allowed, and stays
	r.write(t, listenAnywhere+"max_connections = 2\n")
	if _, err := r.reload(t); err != nil {
		t.Fatal(err)
	}
	second := dial()
	fmt.Fprint(second, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := second.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Read(make([]byte, 1)); err != nil {
		t.Errorf("a connection within the new limit: %v", err)
	}
}

// A daemon that no file belongs to cannot reload one.
func TestReloadWithoutFile(t *testing.T) {
	r := start(t, testConfig(t, ""))
	var e *api.Error
	if err := r.ctl.Call(t.Context(), "reload", api.Empty{}, nil, nil); !errors.As(err, &e) || e.Exit != api.ExitUsage {
		t.Errorf("reload: %v", err)
	}
}

// The service manager is told of the start, of each reload, that snapd answers, and
// of the stop.
func TestNotify(t *testing.T) {
	name := filepath.Join(shortDir(t), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", "")
	os.Unsetenv("WATCHDOG_PID")
	states := make(chan string, 1000)
	go func() {
		defer close(states)
		buf := make([]byte, 4096)
		for {
			n, err := l.Read(buf)
			if err != nil {
				return
			}
			states <- string(buf[:n])
		}
	}()
	next := func(want string) {
		t.Helper()
		for s := range states {
			if strings.HasPrefix(s, want) {
				return
			}
			if s != "WATCHDOG=1" {
				t.Fatalf("state %q, expected %s", s, want)
			}
		}
	}
	r := startFile(t, listenAnywhere)
	next("READY=1")
	next("WATCHDOG=1")
	r.hangup <- syscall.SIGHUP
	next("RELOADING=1\nMONOTONIC_USEC=")
	next("READY=1")
	r.end()
	next("STOPPING=1")
}

// A control socket that nobody serves is noticed.
func TestWatchdogSilent(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := answers(t.Context(), l.Addr(), 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent socket: %v", err)
	}
	r := start(t, testConfig(t, ""))
	if err := answers(t.Context(), &net.UnixAddr{Name: r.cfg.Server.Socket, Net: "unix"}, 30*time.Second); err != nil {
		t.Errorf("a socket that is served: %v", err)
	}
}

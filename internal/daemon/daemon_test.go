package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// run is a daemon under test.
type run struct {
	t      *testing.T
	cfg    *config.Config
	public string
	ctl    *client.Client
	stop   context.CancelFunc
	done   chan error
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// shortDir is a directory whose paths fit into a Unix socket's address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "snapd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(filepath.Join(shortDir(t), "c.toml"), []byte("data_dir = \"data\"\n[server]\nlisten = \"127.0.0.1:0\"\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func start(t *testing.T, cfg *config.Config) *run {
	t.Helper()
	return startWith(t, cfg, Options{})
}

// startWith is start with further options.
func startWith(t *testing.T, cfg *config.Config, o Options) *run {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{t: t, cfg: cfg, stop: cancel, done: make(chan error, 1), log: &syncBuffer{}}
	ready := make(chan struct{})
	o.Version, o.Log = "test", NewLog(r.log, LogText, slog.LevelDebug)
	o.Ready = func(public, control net.Addr) {
		r.public = "http://" + public.String()
		r.ctl = client.Local(control.String())
		close(ready)
	}
	go func() { r.done <- Run(ctx, cfg, o) }()
	select {
	case <-ready:
	case err := <-r.done:
		cancel()
		t.Fatalf("start: %v\n%s", err, r.log)
	case <-time.After(30 * time.Second):
		cancel()
		t.Fatalf("not ready\n%s", r.log)
	}
	t.Cleanup(func() { r.end() })
	return r
}

// end stops cleanly.
func (r *run) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		r.done <- nil
		if err != nil {
			r.t.Errorf("stop: %v\n%s", err, r.log)
		}
	case <-time.After(30 * time.Second):
		r.t.Fatalf("does not stop\n%s", r.log)
	}
}

func (r *run) status() api.Status {
	r.t.Helper()
	var st api.Status
	if err := r.ctl.Call(r.t.Context(), "status", api.Empty{}, &st, nil); err != nil {
		r.t.Fatalf("status: %v\n%s", err, r.log)
	}
	return st
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

func upstream(t *testing.T) (*debtest.Archive, string) {
	t.Helper()
	a := debtest.New(t)
	a.Add(debtest.Package{Name: "a"})
	a.Publish(time.Now().Add(-time.Hour))
	srv := httptest.NewServer(a.Handler())
	t.Cleanup(srv.Close)
	return a, srv.URL
}

func mirrorText(a *debtest.Archive, name, url, more string) string {
	return fmt.Sprintf("[[mirror]]\nname = %q\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\n%s\n", name, url, a.KeyringFile(), more)
}

func TestRun(t *testing.T) {
	a, url := upstream(t)
	cfg := testConfig(t, mirrorText(a, "debian", url, "interval = \"6h\"")+mirrorText(a, "asked", url, ""))
	r := start(t, cfg)
	for name, mode := range map[string]os.FileMode{cfg.DataDir: 0o700 | os.ModeDir, cfg.Server.Socket: 0o600 | os.ModeSocket, cfg.Signing.KeyFile: 0o600, cfg.DataDir + "/meta.db": 0o600} {
		if st, err := os.Stat(name); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v %v, expected mode %v", name, st.Mode(), err, mode)
		}
	}
	// A mirror with an interval is synced at the first start; one without is not.
	for i := 0; ; i++ {
		if st := r.status(); st.Mirrors[0].Latest != "" {
			if st.Mirrors[0].NextSync == nil || st.Mirrors[1].NextSync != nil || st.Mirrors[1].Latest != "" {
				t.Errorf("mirrors: %+v", st.Mirrors)
			}
			break
		} else if i > 300 {
			t.Fatalf("not synced: %+v\n%s", st, r.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if code, body := get(t, r.public+"/archive/debian/latest/dists/stable/InRelease"); code != 200 || body != string(a.Get("dists/stable/InRelease")) {
		t.Errorf("InRelease: status %d", code)
	}
	first := r.status()
	r.end()
	if _, err := os.Stat(cfg.Server.Socket); err == nil {
		t.Error("the socket is left behind")
	}
	// Again: the same key, and no sync since the last check is young.
	a.Requests()
	r = start(t, cfg)
	second := r.status()
	if second.Key.Fingerprint != first.Key.Fingerprint || len(second.Warnings) > 0 {
		t.Errorf("second start: key %s, expected %s; warnings %q", second.Key.Fingerprint, first.Key.Fingerprint, second.Warnings)
	}
	if n := a.Requests(); len(n) > 0 {
		t.Errorf("synced again at once: %v", n)
	}
}

func TestSecond(t *testing.T) {
	cfg := testConfig(t, "")
	start(t, cfg)
	err := Run(t.Context(), cfg, Options{})
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "data directory "+cfg.DataDir) {
		t.Errorf("a second snapd on one data directory: %v", err)
	}
	other := testConfig(t, "")
	other.Server.Socket = cfg.Server.Socket
	if err := Run(t.Context(), other, Options{}); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), cfg.Server.Socket) {
		t.Errorf("a second snapd on one socket: %v", err)
	}
	var st api.Status
	if err := client.Local(cfg.Server.Socket).Call(t.Context(), "status", api.Empty{}, &st, nil); err != nil {
		t.Errorf("the first one does not answer any more: %v", err)
	}
}

func TestSocket(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := listenSocket(path, "")
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := listenSocket(path, ""); !errors.Is(err, ErrRunning) {
		t.Errorf("a live socket: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(path, ""); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file was touched: %q %v", b, err)
	}
}

func TestBadStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, cfg *config.Config)
		want  string
		is    error
	}{
		{"key that others read", func(t *testing.T, cfg *config.Config) {
			r := start(t, cfg)
			r.end()
			if err := os.Chmod(cfg.Signing.KeyFile, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "has mode 0644, expected 0600", sign.ErrKeyFile},
		{"key that is none", func(t *testing.T, cfg *config.Config) {
			if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(cfg.Signing.KeyFile, []byte("not a key"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "signing-key.asc", nil},
		{"directory that others write", func(t *testing.T, cfg *config.Config) {
			if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(cfg.DataDir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "mode 0777), expected 0700", nil},
		{"directory that is a file", func(t *testing.T, cfg *config.Config) {
			if err := os.WriteFile(cfg.DataDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "data directory", nil},
		{"port that is taken", func(t *testing.T, cfg *config.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			cfg.Server.Listen = l.Addr().String()
		}, "public listener: 127.0.0.1:", nil},
		{"no public key for the command", func(_ *testing.T, cfg *config.Config) {
			cfg.Signing.Command = []string{"/bin/false"}
		}, "public key of the signing command", os.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t, "")
			c.spoil(t, cfg)
			err := Run(t.Context(), cfg, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v, expected …%s…", err, c.want)
			}
		})
	}
}

// A run that did not stop cleanly is told of by the next one.
func TestUnclean(t *testing.T) {
	cfg := testConfig(t, "")
	r := start(t, cfg)
	r.end()
	crash(t, cfg)
	r = start(t, cfg)
	if w := r.status().Warnings; len(w) != 1 || w[0] != uncleanText {
		t.Errorf("warnings after a crash: %q", w)
	}
	r.end()
	r = start(t, cfg)
	if w := r.status().Warnings; len(w) != 0 {
		t.Errorf("warnings after a clean stop: %q", w)
	}
}

// A start removes what an import of a killed run left behind, and no directory that
// somebody else made.
func TestImportLeftovers(t *testing.T) {
	cfg := testConfig(t, "")
	theirs := []string{"imports/4.1/manifest.json", ".imports/4.1/manifest.json"}
	for _, name := range append(theirs, ".imports/snapd-1/manifest.json", ".imports/snapd-2/pool/a.deb") {
		file := filepath.Join(cfg.DataDir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, cfg)
	for _, name := range theirs {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, name)); err != nil {
			t.Error(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(cfg.DataDir, ".imports/snapd-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// crash leaves the directory as a run that was killed.
func crash(t *testing.T, cfg *config.Config) {
	t.Helper()
	st := openTestStore(t, cfg)
	defer st.Close()
	if _, err := begin(t.Context(), st); err != nil {
		t.Fatal(err)
	}
}

// One mirror's failure stops no other, and the exit says so.
func TestSyncExit(t *testing.T) {
	t.Parallel() // it waits
	a, url := upstream(t)
	bad := debtest.New(t)
	cfg := testConfig(t, mirrorText(a, "good", url, "")+mirrorText(a, "down", "http://127.0.0.1:1", "")+mirrorText(bad, "wrongkey", url, ""))
	r := start(t, cfg)
	sync := func(names ...string) api.SyncResult {
		t.Helper()
		var res api.SyncResult
		if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{Mirrors: names}, &res, nil); err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := sync("good", "wrongkey"); res.Exit != api.ExitVerify || res.Mirrors[0].Error != nil || res.Mirrors[1].Error.Code != api.CodeVerify {
		t.Errorf("one refused: %+v", res)
	}
	if res := sync("good"); res.Exit != 0 || res.Mirrors[0].New {
		t.Errorf("nothing new: %+v", res)
	}
	var e *api.Error
	if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{Mirrors: []string{"nothing"}}, nil, nil); !errors.As(err, &e) || e.Code != api.CodeNotFound || e.Message != "no such mirror: nothing (configured: down, good, wrongkey)" {
		t.Errorf("an unknown mirror: %v", err)
	}
	if testing.Short() {
		return // retries of what is down take their time
	}
	if res := sync("good", "down"); res.Exit != api.ExitPartial || res.Mirrors[0].Error.Code != api.CodeUnavailable {
		t.Errorf("one down: %+v", res)
	}
	if res := sync("down"); res.Exit != api.ExitFailed {
		t.Errorf("all down: %+v", res)
	}
}

// A client that goes away interrupts its operation; so does the end of the daemon.
func TestInterrupt(t *testing.T) {
	a := debtest.New(t)
	entered, left := make(chan struct{}, 16), make(chan struct{}, 16)
	a.Hook = func(_ http.ResponseWriter, r *http.Request) bool {
		entered <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
		return true
	}
	srv := httptest.NewServer(a.Handler())
	t.Cleanup(srv.Close)
	cfg := testConfig(t, mirrorText(a, "slow", srv.URL, ""))
	r := start(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	// What follows a job is connected once it reports progress.
	followed := make(chan struct{}, 1)
	call := func(ctx context.Context) {
		got <- r.ctl.Call(ctx, "sync", api.SyncRequest{}, nil, func(api.Progress) {
			select {
			case followed <- struct{}{}:
			default:
			}
		})
	}
	go call(ctx)
	<-entered
	<-followed
	cancel()
	<-left
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted by the client: %v", err)
	}
	for len(followed) > 0 {
		<-followed
	}
	go call(t.Context())
	<-entered
	<-followed
	r.end()
	var e *api.Error
	if err := <-got; !errors.As(err, &e) || e.Exit != api.ExitInterrupted {
		t.Errorf("interrupted by the end: %v", err)
	}
}

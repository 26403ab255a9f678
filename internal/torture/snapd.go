package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
)

// server runs the real snapd in a separate process.
type server struct {
	binary string
	dir    string // for configuration and socket; short, because socket paths must be
	data   string // the data directory
	listen string
	ns     *namespace // in which the server runs; nil: this program's
	ctl    *client.Client

	cmd  *exec.Cmd
	done chan struct{}
	log  *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 1<<20 {
		l.b.Reset()
	}
	return l.b.Write(p)
}

// tail returns the end of the log.
func (l *logBuffer) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b.Bytes()
	return string(b[max(0, len(b)-3000):])
}

// buildSnapd compiles the daemon.
func buildSnapd(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "snapd")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "example.org/snapd/cmd/snapd")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build snapd: %w\n%s", err, msg)
	}
	return out, nil
}

// newServer writes a configuration with the given mirrors. extra is added to its [store]
// section.
func newServer(binary, dir, data string, mirrors []config.Mirror, extra string) (*server, error) {
	return newServerIn(nil, binary, dir, data, mirrors, extra)
}

// newServerIn is like newServer, for a server in a network namespace.
func newServerIn(ns *namespace, binary, dir, data string, mirrors []config.Mirror, extra string) (*server, error) {
	host := "127.0.0.1"
	if ns != nil {
		host = ns.address
	}
	port, err := freePort("127.0.0.1")
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, dir: dir, data: data, listen: net.JoinHostPort(host, strconv.Itoa(port)), ns: ns, log: &logBuffer{}}
	var b strings.Builder
	socket := filepath.Join(dir, "s.sock")
	fmt.Fprintf(&b, "data_dir = %q\n[server]\nlisten = %q\nsocket = %q\n[fetch]\nparallel = 2\n[store]\n%s\n", data, s.listen, socket, extra)
	for _, m := range mirrors {
		fmt.Fprintf(&b, "[[mirror]]\nname = %q\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\nsources = true\ndownload = %q\ninterval = \"\"\n", m.Name, m.URL, m.Keyring[0], m.Download)
	}
	if err := os.WriteFile(filepath.Join(dir, "c.toml"), []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	s.ctl = client.Local(socket)
	return s, nil
}

// start starts snapd and waits until it answers. It tries again if another process has
// taken the port in the meantime.
func (s *server) start(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := s.run(ctx)
		if err == nil || tries == 5 || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// run starts snapd once and waits until it answers.
func (s *server) run(ctx context.Context) error {
	s.log = &logBuffer{}
	argv := []string{s.binary, "--config", filepath.Join(s.dir, "c.toml")}
	if s.cmd = exec.Command(argv[0], argv[1:]...); s.ns != nil {
		s.cmd = s.ns.command(argv...)
	}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	s.done = done
	cmd := s.cmd
	go func() { _ = cmd.Wait(); close(done) }()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := s.ctl.Call(ctx, "status", api.Empty{}, nil, nil)
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("snapd ended: %v\n%s", cmd.ProcessState, s.log.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("snapd does not answer: %w\n%s", err, s.log.tail())
		}
	}
}

// kill kills snapd with SIGKILL, like a crash.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

// stop shuts snapd down cleanly.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		s.kill()
		return errors.New("snapd did not stop")
	}
	state := s.cmd.ProcessState
	s.cmd = nil
	if !state.Success() {
		return fmt.Errorf("snapd: %v\n%s", state, s.log.tail())
	}
	return nil
}

// alive reports whether snapd is still running.
func (s *server) alive() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (s *server) call(ctx context.Context, verb string, req, res any) error {
	return s.ctl.Call(ctx, verb, req, res, nil)
}

// sync syncs mirrors. It returns an error if one of them fails.
func (s *server) sync(ctx context.Context, names ...string) (*api.SyncResult, error) {
	var res api.SyncResult
	if err := s.call(ctx, "sync", api.SyncRequest{Mirrors: names}, &res); err != nil {
		return nil, err
	}
	for _, m := range res.Mirrors {
		if m.Error != nil {
			return &res, m.Error
		}
	}
	return &res, nil
}

// proveAll checks that fsck finds no fault, that the log extends its earlier state, and
// that each freeze verifies. It returns the number of freezes.
func (s *server) proveAll(ctx context.Context) (frozen int, err error) {
	var fsck api.FsckResult
	if err := s.call(ctx, "fsck", api.FsckRequest{}, &fsck); err != nil {
		return 0, fmt.Errorf("fsck: %w", err)
	}
	if len(fsck.Faults) > 0 {
		return 0, fmt.Errorf("fsck: %d faults: %+v", len(fsck.Faults), fsck.Faults)
	}
	if err := s.watch(ctx); err != nil {
		return 0, err
	}
	var list api.SnapshotList
	if err := s.call(ctx, "list", api.ListRequest{}, &list); err != nil {
		return 0, fmt.Errorf("list: %w", err)
	}
	for _, f := range list.Frozen {
		var v api.VerifyResult
		if err := s.call(ctx, "verify", api.VerifyRequest{Ref: f.Name, Deep: true}, &v); err != nil {
			if gone(err) && gone(s.call(ctx, "show", api.ShowRequest{Ref: f.Name}, nil)) {
				continue // removed since it was listed
			}
			return 0, fmt.Errorf("verify %s: %w", f.Name, err)
		}
		if len(v.Faults) > 0 {
			return 0, fmt.Errorf("verify %s: %+v", f.Name, v.Faults)
		}
		frozen++
	}
	return frozen, nil
}

// gone reports whether an error means that an object does not exist, or no longer does.
func gone(err error) bool {
	e := new(api.Error)
	return errors.As(err, &e) && (e.Code == api.CodeNotFound || e.Code == api.CodeGone)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/monitor"
	"example.org/snapd/internal/tlog/sequencer"
)

// logURL is the URL of the log in a system, which has no listeners.
const logURL = "http://snapd.example.org/log"

// monitorState is the file in which a monitor stores the last checkpoint it saw. It is in
// the data directory, so that it is copied together with the log.
const monitorState = "monitor-state"

// openLog opens the transparency log as the daemon does.
func (s *system) openLog(ctx context.Context) (err error) {
	file := filepath.Join(s.dir, tlog.KeyFile)
	// Copying the directory does not preserve modes.
	if err := os.Chmod(file, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := tlog.LoadKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, _, err = tlog.LoadOrMakeKey(file, "snapd.example.org/log")
	}
	if err != nil {
		return err
	}
	if s.tlog, err = sequencer.Open(ctx, sequencer.Config{Store: s.store, Signer: key}); err != nil {
		return err
	}
	s.logged = s.tlog.Logged(s.store)
	_, err = s.logged.Recover(ctx, "torture")
	return err
}

// handled is a transport that passes requests to a handler in this process.
type handled struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.Path, nil))
	return w.Result(), nil
}

// checkLog checks that the log is complete, and that it extends what a monitor saw
// before. Otherwise a crash would look like a forged history.
func (s *system) checkLog(ctx context.Context) error {
	if _, err := s.tlog.Verify(ctx); err != nil {
		return err
	}
	return watchLog(ctx, monitor.Config{
		URL: logURL, State: filepath.Join(s.dir, monitorState), Client: &http.Client{Transport: handled{s.httpd.Public()}},
	})
}

// watchLog runs a monitor once, and returns its first alarm as an error.
func watchLog(ctx context.Context, cfg monitor.Config) error {
	r, err := monitor.Run(ctx, cfg)
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	if len(r.Alarms) > 0 {
		return fmt.Errorf("monitor: %s\n%v", r.Alarms[0].What, r.Alarms[0])
	}
	return nil
}

// watch runs a monitor once against a running snapd.
func (s *server) watch(ctx context.Context) error {
	if err := s.call(ctx, "log/verify", struct{}{}, nil); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	// Skip documents, because snapshots may be removed in the meantime.
	return watchLog(ctx, monitor.Config{URL: "http://" + s.listen + "/log", State: filepath.Join(s.dir, monitorState), Client: http.DefaultClient, Skip: true})
}

// watched returns the state of the monitor of a running snapd.
func (s *server) watched() (string, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, monitorState))
	return string(data), err
}

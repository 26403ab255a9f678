// Package daemon builds snapd out of its parts and runs it: the only place that
// knows the whole object graph.
//
// The order of starting is that of trust in what is on disk: the database is
// opened first, because its lock keeps a second snapd out of the directory; then
// the blob store, which drops what an earlier process was still writing; then
// key, engine, listeners. Stopping goes the other way.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/httpd/fastfile"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
)

// Options adjust Run.
type Options struct {
	Version string
	Log     *slog.Logger // nil: none
	// Ready is called once both listeners accept, with their addresses.
	Ready func(public, control net.Addr)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// NewLog returns the daemon's log: a line of key=value pairs for each event, with
// the URLs in it redacted.
func NewLog(w io.Writer, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	// Errors of libraries may quote URLs.
	scrub := func(_ []string, a slog.Attr) slog.Attr {
		switch v := a.Value.Any().(type) {
		case string:
			a.Value = slog.StringValue(remote.Scrub(v))
		case error:
			a.Value = slog.StringValue(remote.Scrub(v.Error()))
		}
		return a
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: scrub}))
}

// Check reports the first fault of the files that a configuration names, which
// would keep a mirror from syncing. Nothing is changed.
func Check(cfg *config.Config) error {
	for _, m := range cfg.Mirrors {
		if len(m.Keyring) == 0 {
			continue
		}
		if _, err := sign.LoadKeyring(m.Keyring...); err != nil {
			return fmt.Errorf("keyring of mirror %s: %w", m.Name, err)
		}
	}
	return nil
}

// ErrRunning means that another snapd uses the data directory or the socket.
var ErrRunning = errclass.New(errclass.Conflict, "another snapd is running")

const (
	headerTime  = 10 * time.Second
	idleTime    = 75 * time.Second
	bodyTime    = 5 * time.Minute // of one answer, or one piece of a long one
	maxHeader   = 16 << 10        // bytes
	shutdown    = 10 * time.Second
	metaFile    = "meta.db"
	uncleanText = "snapd was not stopped cleanly the last time (snapctl fsck checks what is stored)"
)

// Run runs snapd until ctx ends, which is a clean stop, or until something
// fails. ErrRunning.
func Run(ctx context.Context, cfg *config.Config, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := makeDataDir(cfg.DataDir); err != nil {
		return err
	}
	if err := backup.CheckRestored(cfg.DataDir); err != nil {
		return err
	}
	st, warnings, err := openStore(ctx, cfg, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	blobs, err := cas.OpenDir(cfg.DataDir, cas.Options{Now: o.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	clean, err := begin(ctx, st)
	if err != nil {
		return err
	}
	d := &daemon{cfg: cfg, o: o, log: o.Log, store: st, blobs: blobs, warnings: warnings}
	if !clean {
		o.Log.Warn(uncleanText)
		d.warnings = append(d.warnings, uncleanText)
	}
	err = d.run(ctx)
	if errors.Is(err, durable.ErrUnknown) || err != nil && !clean {
		return err // the mark stays
	}
	return errors.Join(err, end(context.WithoutCancel(ctx), cfg.DataDir, st))
}

// makeDataDir makes the data directory, for its owner alone.
func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	switch {
	case !st.IsDir():
		return fmt.Errorf("data directory %s: not a directory", dir)
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("data directory %s: mode %04o lets others write, expected 0700", dir, st.Mode().Perm())
	}
	return nil
}

// begin marks the run as not cleanly stopped and tells whether the last was.
func begin(ctx context.Context, st meta.Installation) (clean bool, err error) {
	clean, err = st.SetClean(ctx, false)
	if errors.Is(err, meta.ErrCorrupt) {
		return true, nil // reported as damage
	}
	return clean, err
}

// end marks the run as cleanly stopped. Damaged metadata keeps the mark of the
// run that found it.
func end(ctx context.Context, dir string, st *bolt.Store) error {
	if st.Damage() != nil {
		return nil
	}
	m, err := readInstallation(dir)
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, installationFile), fs.ErrNotExist)
	}
	if err := nextEpoch(ctx, dir, st, m, time.Time{}); err != nil {
		return err
	}
	_, err = st.SetClean(ctx, true)
	return err
}

// markClean notes that what is stored needs no check at the next start.
func markClean(ctx context.Context, st *bolt.Store) error {
	_, err := st.SetClean(ctx, true)
	return err
}

// daemon is one run.
type daemon struct {
	cfg       *config.Config
	o         Options
	log       *slog.Logger
	store     *bolt.Store
	blobs     *cas.Dir
	signer    *sign.Signer
	engine    *mirror.Engine
	client    *fetch.Client
	freezer   *freezer.Freezer
	collector *gc.Collector
	control   *control.Control
	srv       *httpd.Server
	sched     *scheduler
	warnings  []string
}

// free tells the bytes that an unprivileged writer may still use (statfs(2)).
func (d *daemon) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.cfg.DataDir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: d.cfg.DataDir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (d *daemon) run(ctx context.Context) (err error) {
	if d.signer, err = loadSigner(ctx, d.cfg, d.store, d.o.Now(), d.log); err != nil {
		return err
	}
	client := fetch.New(fetch.Config{
		Parallel: d.cfg.Fetch.Parallel, RateLimit: int64(d.cfg.Fetch.RateLimit), UserAgent: "snapd/" + d.o.Version, Logger: d.log,
	})
	defer client.Close()
	d.client = client
	d.engine, err = mirror.New(mirror.Config{
		Mirrors: d.cfg.Mirrors, Formats: formats(), Store: d.store, Blobs: d.blobs, Client: client,
		Parallel: d.cfg.Fetch.Parallel, Free: d.free, Reserve: int64(d.cfg.Store.Reserve), Log: d.log, Now: d.o.Now,
	})
	if err != nil {
		return err
	}
	defer d.engine.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.makeFreezer()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	d.compose(func(err error) { cancel(fmt.Errorf("%w: %w", durable.ErrUnknown, err)) })
	defer d.control.Close()
	if d.srv, err = d.newServer(); err != nil {
		return err
	}
	defer d.srv.Close()
	public, socket, err := d.listen()
	if err != nil {
		return err
	}
	if err := d.serve(ctx, public, socket); err != nil {
		return err
	}
	// A clean stop and a fatal error both end ctx.
	if cause := context.Cause(ctx); errors.Is(cause, durable.ErrUnknown) {
		return cause
	}
	return nil
}

// prepare brings what an earlier version or an earlier key left to its present
// form, before anything is served.
func (d *daemon) prepare(ctx context.Context) error {
	if d.store.Damage() == nil {
		if _, err := d.freezer.ListTrees(ctx); err != nil {
			return err
		}
	}
	// What is frozen has its own signature: a signing command that does not
	// answer, or a full disk, is no reason not to serve it.
	for _, step := range []struct {
		run          func(context.Context) (int, error)
		done, failed string
	}{
		{d.freezer.Vouch, "signed earlier freezes again by the present key", "earlier freezes are not signed by the present key"},
		{d.freezer.SignProvenance, "signed the provenance of earlier freezes", "the provenance of earlier freezes is not signed"},
	} {
		switch n, err := step.run(ctx); {
		case errors.Is(err, durable.ErrUnknown) || err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			text := fmt.Sprintf("%s: %v (tried again at the next start)", step.failed, err)
			d.log.Error(text)
			d.warnings = append(d.warnings, text)
		case n > 0:
			d.log.Info(step.done, "freezes", n, "key", d.signer.Fingerprint())
		}
	}
	return nil
}

// formats are the kinds of repository that this snapd knows.
func formats() []repo.Format {
	return []repo.Format{deb.Format{}, rpm.Format{}}
}

// serve answers on both listeners until ctx ends.
func (d *daemon) serve(ctx context.Context, public, socket net.Listener) error {
	base := context.WithoutCancel(ctx)
	quiet := slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)
	servers := []struct {
		l net.Listener
		s *http.Server
	}{
		{d.srv.Listen(public, d.cfg.Server.MaxConnections), &http.Server{
			Handler: d.srv.Public(), ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, WriteTimeout: bodyTime, IdleTimeout: idleTime,
			MaxHeaderBytes: maxHeader, ErrorLog: quiet, BaseContext: func(net.Listener) context.Context { return base },
			ConnContext: fastfile.ConnContext, ConnState: fastfile.ConnState, DisableGeneralOptionsHandler: true,
		}},
		{socket, &http.Server{
			Handler: d.srv.Control(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: quiet,
			BaseContext: func(net.Listener) context.Context { return base },
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return httpd.WithPeer(ctx, peer(c)) },
		}},
	}
	eg, egctx := errgroup.WithContext(ctx)
	var stopping sync.WaitGroup
	for _, s := range servers {
		eg.Go(func() error {
			if err := s.s.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("listen on %s: %w", s.l.Addr(), err)
			}
			return nil
		})
		stopping.Go(func() {
			<-egctx.Done()
			d.srv.Drain()
			end, cancel := context.WithTimeout(base, shutdown)
			defer cancel()
			if err := s.s.Shutdown(end); err != nil {
				// Clients that did not finish in time resume elsewhere.
				_ = s.s.Close()
			}
		})
	}
	eg.Go(func() error { return d.sched.run(egctx) })
	if _, err := sdaemon.SdNotify(false, sdaemon.SdNotifyReady); err != nil {
		d.log.Warn("notify the service manager", "err", err)
	}
	d.log.Info("listening", "http", public.Addr().String(), "socket", socket.Addr().String(), "mirrors", len(d.cfg.Mirrors), "key", d.signer.Fingerprint())
	if d.o.Ready != nil {
		d.o.Ready(public.Addr(), socket.Addr())
	}
	<-egctx.Done()
	d.log.Info("stopping")
	_, _ = sdaemon.SdNotify(false, sdaemon.SdNotifyStopping)
	// Control calls are interrupted at once; downloads get their time.
	d.srv.Close()
	d.control.Close()
	stopping.Wait()
	err := eg.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return err
}

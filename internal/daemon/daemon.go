// Package daemon assembles the parts of snapd and runs it. It is the only
// package that knows the whole object graph.
//
// The order of starting follows the trust in what is on disk: first the database,
// because its lock keeps a second snapd out of the directory; then the blob
// store, which discards what an earlier process was still writing; then key,
// engine and listeners. Stopping is in reverse order.
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

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
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
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/follow"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
	"example.org/snapd/internal/webhook"
)

// Options adjust Run.
type Options struct {
	Version string
	Log     *slog.Logger // nil: none
	// Ready is called with the addresses of both listeners once they accept connections.
	Ready func(public, control net.Addr)
	// ReadyAPI is called before Ready, with the address of the control API, if that is
	// enabled.
	ReadyAPI func(net.Addr)
	// Load reads the configuration again from ConfigFile; nil: reloading is not supported.
	Load       func() (*config.Config, error)
	ConfigFile string
	// Hangup requests a reload. nil: never.
	Hangup <-chan os.Signal
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	latency *latency.Stores // nil: not measured
}

func (o *Options) metadataLatency() *latency.Metadata {
	if o.latency == nil {
		return nil
	}
	return &o.latency.Metadata
}

func (o *Options) blobLatency() *latency.Blobs {
	if o.latency == nil {
		return nil
	}
	return &o.latency.Blobs
}

// Formats of the log.
const (
	LogText = "text" // key=value pairs, for humans
	LogJSON = "json" // one object per line, for programs
)

// NewLog returns the daemon's log: one line for each event of at least this
// level, with the URLs in it redacted.
func NewLog(w io.Writer, format string, level slog.Level) *slog.Logger {
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
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: scrub}
	if format == LogJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Check returns the first fault of the files named in a configuration that would
// prevent a start or a sync. It changes nothing.
func Check(cfg *config.Config) error {
	for _, m := range cfg.Mirrors {
		if len(m.Keyring) == 0 {
			continue
		}
		if _, err := sign.LoadKeyring(m.Keyring...); err != nil {
			return fmt.Errorf("keyring of mirror %s: %w", m.Name, err)
		}
	}
	if cfg.API.TLSCert != "" {
		// The user who runs Check may not be the user who runs snapd and may read the key.
		if _, err := (&certificate{cert: cfg.API.TLSCert, key: cfg.API.TLSKey}).read(); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if _, err := groupID(cfg.Server.SocketGroup); err != nil {
		return err
	}
	if cfg.Log.Policy != "" {
		if _, err := tlog.LoadPolicy(cfg.Log.Policy); err != nil {
			return fmt.Errorf("[log] policy: %w", err)
		}
	}
	// Only the user who runs snapd can read the data directory. snapd creates a missing
	// key at its first start.
	known := func(err error) bool { return !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) }
	if len(cfg.Signing.Command) == 0 {
		if _, err := sign.LoadSigner(cfg.Signing.KeyFile); err != nil && known(err) {
			return err
		}
	}
	m, err := readInstallation(cfg.DataDir)
	if err == nil && m == nil {
		err = checkForeign(cfg.DataDir)
	}
	if err != nil && known(err) {
		return err
	}
	return nil
}

// ErrRunning means that another snapd uses the data directory or the socket.
var ErrRunning = errclass.New(errclass.Conflict, "another snapd is running")

const (
	headerTime  = 10 * time.Second
	idleTime    = 75 * time.Second
	bodyTime    = 5 * time.Minute // for one response, or one piece of a long one
	maxHeader   = 16 << 10        // bytes
	shutdown    = 10 * time.Second
	metaFile    = "meta.db"
	uncleanText = "snapd was not stopped cleanly the last time (check the store with: snapctl fsck)"
)

// Run runs snapd until ctx is done, which is a clean stop, or until a part fails. It may
// return ErrRunning, or mirror.ErrClock before it has changed anything.
func Run(ctx context.Context, cfg *config.Config, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.latency = new(latency.Stores)
	// Keys and snapshots would be dated with the wrong year.
	if err := mirror.CheckYear(o.Now()); err != nil {
		return err
	}
	if err := makeDataDir(cfg.DataDir); err != nil {
		return err
	}
	if err := backup.CheckRestored(cfg.DataDir); err != nil {
		return err
	}
	if err := checkMigrated(ctx, cfg.DataDir, nil); err != nil {
		return err
	}
	st, warnings, err := openStore(ctx, cfg, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	shared, err := follows(ctx, cfg, st, o)
	if err != nil {
		return err
	}
	if shared != nil {
		st = shared
	}
	blobs, err := openBlobs(ctx, cfg, st, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	clean, err := begin(ctx, st)
	if err != nil {
		return err
	}
	if err := control.RemoveIncoming(cfg.DataDir); err != nil {
		return err
	}
	d := &daemon{cfg: cfg, o: o, log: o.Log, store: st, shared: shared, started: o.Now(), blobs: blobs, warnings: warnings}
	d.reloads.live.Store(cfg)
	if !clean {
		o.Log.Warn(uncleanText)
		d.warnings = append(d.warnings, uncleanText)
	}
	err = d.run(ctx)
	if errors.Is(err, durable.ErrUnknown) || err != nil && !clean {
		return err // the run stays marked as not clean
	}
	return errors.Join(err, end(context.WithoutCancel(ctx), cfg.DataDir, st))
}

// makeDataDir creates the data directory, accessible only to its owner.
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
		return fmt.Errorf("data directory %s: others can write to it (mode %04o), expected 0700", dir, st.Mode().Perm())
	}
	return nil
}

// begin marks the run as not cleanly stopped, and reports whether the last run was.
func begin(ctx context.Context, st meta.Installation) (clean bool, err error) {
	clean, err = st.SetClean(ctx, false)
	if errors.Is(err, meta.ErrCorrupt) {
		return true, nil // reported as damage
	}
	return clean, err
}

// end marks the run as cleanly stopped. It does not change the epoch of damaged metadata.
func end(ctx context.Context, dir string, st meta.Store) error {
	if err := blobsFound(dir); err != nil {
		return err
	}
	if st.Damage() != nil {
		if _, err := st.SetClean(ctx, true); !errors.Is(err, meta.ErrCorrupt) {
			return err
		}
		return nil // the next start cannot read the mark either
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

// markClean records that the store needs no check at the next start.
func markClean(ctx context.Context, st *bolt.Store) error {
	_, err := st.SetClean(ctx, true)
	return err
}

// daemon is one run of snapd.
type daemon struct {
	cfg       *config.Config
	o         Options
	log       *slog.Logger
	store     meta.Store
	shared    *follow.Store // the store, if nodes share it; otherwise nil
	started   time.Time
	public    *published // data that other nodes need to serve; nil: nothing is shared
	tlog      *sequencer.Log
	logged    *sequencer.Store // the store, with publications that are logged
	blobs     cas.Store
	signer    *sign.Signer
	catalog   *catalog.Catalog
	acquirer  *acquire.Acquirer
	engine    *mirror.Engine
	client    *fetch.Client
	freezer   *freezer.Freezer
	collector *gc.Collector
	webhooks  *webhook.Engine // nil: this node only serves
	control   *control.Control
	srv       *httpd.Server
	sched     *scheduler
	reloads   reloads
	cert      *certificate // of the control API; nil: no TLS
	warnings  []string
}

func (d *daemon) run(ctx context.Context) (err error) {
	if err := d.checkNames(ctx, d.cfg.Mirrors); err != nil {
		return err
	}
	if err := d.openKeys(ctx); err != nil {
		return err
	}
	defer d.tlog.Close()
	d.logged = d.tlog.Logged(d.store)
	if !d.cfg.Store.Serves() {
		if err := d.recoverLog(ctx); err != nil {
			return err
		}
		if err := d.publishKeys(ctx); err != nil {
			return err
		}
	}
	client := fetch.New(fetch.Config{
		Parallel: d.cfg.Fetch.Parallel, RateLimit: int64(d.cfg.Fetch.RateLimit), UserAgent: "snapd/" + d.o.Version, Logger: d.log,
	})
	defer client.Close()
	d.client = client
	if err := d.makeEngine(); err != nil {
		return err
	}
	defer d.acquirer.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.makeFreezer()
	if !d.cfg.Store.Serves() {
		if err := d.makeWebhooks(ctx); err != nil {
			return err
		}
		if err := d.prepare(ctx); err != nil {
			return err
		}
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
	network, err := d.listenAPI()
	if err != nil {
		public.Close()
		socket.Close()
		return err
	}
	if err := d.serve(ctx, public, socket, network); err != nil {
		return err
	}
	// A clean stop and a fatal error both end ctx.
	if cause := context.Cause(ctx); errors.Is(cause, durable.ErrUnknown) {
		return cause
	}
	return nil
}

// prepare converts the data of an earlier version or an earlier key, before anything is
// served.
func (d *daemon) prepare(ctx context.Context) error {
	if d.store.Damage() == nil {
		if _, err := d.freezer.ListTrees(ctx); err != nil {
			return err
		}
		if err := d.engine.EnsureLocal(ctx); err != nil {
			return err
		}
	}
	// Freezes have their own signatures, so they can be served even if the signing command
	// does not answer or the disk is full.
	for _, step := range []struct {
		run          func(context.Context) (int, error)
		done, failed string
	}{
		{d.freezer.Vouch, "signed earlier freezes with the current key", "earlier freezes are not signed with the current key"},
		{d.freezer.SignProvenance, "signed the provenance of earlier freezes", "the provenance of earlier freezes is not signed"},
	} {
		switch n, err := step.run(ctx); {
		case errors.Is(err, durable.ErrUnknown) || err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			text := fmt.Sprintf("%s: %v (will be retried at the next start)", step.failed, err)
			d.log.Error(text)
			d.warnings = append(d.warnings, text)
		case n > 0:
			d.log.Info(step.done, "freezes", n, "key", d.signer.Fingerprint())
		}
	}
	return nil
}

// formats returns the repository formats of this snapd.
func formats() []repo.Format {
	return []repo.Format{deb.Format{}, rpm.Format{}}
}

// warnOfFiles logs the first fault in the files that the configuration names. Stored data
// can be served without them, so a fault does not prevent the start.
func (d *daemon) warnOfFiles() {
	if err := Check(d.cfg); err != nil {
		d.log.Warn("syncs fail until this is fixed: install the file or correct the configuration, then reload", "err", err)
	}
}

// serve answers on the listeners until ctx is done. network may be nil.
func (d *daemon) serve(ctx context.Context, public, socket, network net.Listener) error {
	base := context.WithoutCancel(ctx)
	quiet := slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)
	servers := []*server{
		newServer(d.srv.Listen(public, d.cfg.Server.MaxConnections), &http.Server{
			Handler: d.srv.Public(), ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, WriteTimeout: bodyTime, IdleTimeout: idleTime,
			MaxHeaderBytes: maxHeader, ErrorLog: quiet, BaseContext: func(net.Listener) context.Context { return base },
			ConnContext: fastfile.ConnContext, ConnState: fastfile.ConnState, DisableGeneralOptionsHandler: true,
		}),
		newServer(socket, &http.Server{
			Handler: d.srv.Control(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: quiet,
			BaseContext: func(net.Listener) context.Context { return base },
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return httpd.WithPeer(ctx, peer(c)) },
		}),
	}
	if network != nil {
		servers = append(servers, newServer(network, &http.Server{
			Handler: d.srv.API(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: quiet,
			BaseContext: func(net.Listener) context.Context { return base },
		}))
		d.log.Info("control API", "listen", network.Addr().String(), "tls", d.cfg.API.TLSCert != "")
	}
	eg, egctx := errgroup.WithContext(ctx)
	var stopping sync.WaitGroup
	for _, s := range servers {
		eg.Go(func() error { return s.serve(egctx) })
		stopping.Go(func() {
			<-egctx.Done()
			s.drain(shutdown)
		})
	}
	eg.Go(func() error { return d.sched.run(egctx) })
	eg.Go(func() error { return d.hangups(egctx) })
	if d.webhooks != nil {
		eg.Go(func() error {
			d.webhooks.Run(egctx)
			return nil
		})
	}
	eg.Go(func() error { return d.watchdog(egctx, socket.Addr()) })
	if d.shared != nil {
		eg.Go(func() error {
			d.shared.Run(egctx, d.followed, d.self)
			return nil
		})
	}
	d.warnOfFiles()
	d.notify(sdaemon.SdNotifyReady)
	d.log.Info("listening", "http", public.Addr().String(), "socket", socket.Addr().String(), "mirrors", len(d.cfg.Mirrors), "key", d.signer.Fingerprint())
	if d.o.ReadyAPI != nil && network != nil {
		d.o.ReadyAPI(network.Addr())
	}
	if d.o.Ready != nil {
		d.o.Ready(public.Addr(), socket.Addr())
	}
	<-egctx.Done()
	d.log.Info("stopping")
	d.notify(sdaemon.SdNotifyStopping)
	// Control calls are cancelled at once; downloads get time to finish.
	d.srv.Close()
	d.control.Close()
	stopping.Wait()
	err := eg.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return err
}

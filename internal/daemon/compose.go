package daemon

import (
	"context"
	"errors"
	"net"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/webhook"
)

// gcGrace is how long garbage collection keeps blobs that nothing refers to yet.
const gcGrace = 24 * time.Hour

// auditInterval is how often expired entries of the audit list are removed.
const auditInterval = time.Hour

// makeEngine creates the parts that syncs and lookups need.
func (d *daemon) makeEngine() (err error) {
	all := formats()
	d.acquirer, err = acquire.New(acquire.Config{
		Mirrors: d.cfg.Mirrors, Formats: repo.ByType[acquire.Format](all...), Meta: d.logged, Blobs: d.blobs, Client: d.client,
		Parallel: d.cfg.Fetch.Parallel, Reserve: int64(d.cfg.Store.Reserve), Changed: func() { d.catalog.Changed() }, Log: d.log, Now: d.o.Now,
	})
	if err != nil {
		return err
	}
	d.catalog, err = catalog.New(catalog.Config{
		Mirrors: d.cfg.Mirrors, Formats: repo.ByType[catalog.Format](all...), Meta: d.logged, Blobs: d.blobs, Acquirer: d.acquirer, Now: d.o.Now,
	})
	if err != nil {
		d.acquirer.Close()
		return err
	}
	d.engine = mirror.New(mirror.Config{
		Catalog: d.catalog, Acquirer: d.acquirer, Formats: repo.ByType[mirror.Format](all...), Meta: d.logged, Blobs: d.blobs,
		Signer: d.signer, Node: d.who(), Log: d.log, Now: d.o.Now,
	})
	return nil
}

// makeFreezer creates the parts that prepare needs.
func (d *daemon) makeFreezer() {
	d.freezer = freezer.New(freezer.Config{
		Formats: formats(), Catalog: d.catalog, Acquirer: d.acquirer, Meta: d.logged, Blobs: d.blobs, Signer: d.signer, TLog: d.tlog,
		PublicURL: d.cfg.Server.PublicURL, LocalURL: localURL(d.cfg.Server.Listen), Node: d.who(), Version: d.o.Version, Log: d.log, Now: d.o.Now,
	})
}

// makeWebhooks creates the engine of the webhooks. It reports every event from here on.
func (d *daemon) makeWebhooks(ctx context.Context) (err error) {
	d.webhooks, err = webhook.New(webhook.Config{
		Meta: d.store, Client: d.client, Webhooks: d.cfg.Webhooks, Mirrors: func() []config.Mirror { return d.reloads.live.Load().Mirrors },
		PublicURL: d.cfg.Server.PublicURL, Node: d.who(), Log: d.log, Now: d.o.Now, Fatal: func(err error) { d.control.CheckFatal(err) },
	})
	if err != nil {
		return err
	}
	return d.webhooks.Start(ctx)
}

// compose creates the parts between the engine and the listeners. fatal ends the
// daemon.
func (d *daemon) compose(fatal func(error)) {
	d.collector = gc.New(gc.Config{
		Formats: repo.ByType[gc.Format](formats()...), Catalog: d.catalog, Acquirer: d.acquirer, Meta: d.logged, Blobs: d.blobs, Making: d.freezer.Making, TLog: d.tlog,
		Quarantine: d.cfg.Store.QuarantineTime.D(), Grace: gcGrace, KeepIndices: d.cfg.Store.KeepIndices, Known: [][]byte{[]byte(d.signer.PublicKeyArmored())}, Node: d.who(), Log: d.log, Now: d.o.Now,
	})
	d.sched = newScheduler(d)
	d.control = control.New(control.Config{
		Formats: repo.ByType[control.Format](formats()...),
		Engine:  d.engine, Catalog: d.catalog, Acquirer: d.acquirer, Meta: d.logged, Blobs: d.blobs, Local: d.file(),
		Freezer: d.freezer, Collector: d.collector, Signer: d.signer, TLog: d.tlog, Webhooks: d.webhooks, Client: d.client, Conf: d.cfg,
		Shared: d.shared, Node: d.name(), Version: d.o.Version, Log: d.log, Now: d.o.Now, NextSync: d.sched.next, Fatal: fatal, Warnings: d.warnings, Conditions: d.conditions, BlobsLost: d.blobsLost,
		Reload: d.Reload, ConfigFile: d.o.ConfigFile, Salvaged: salvaged(d.cfg.DataDir),
	})
}

// file returns the metadata if it is a file on this machine, otherwise nil.
func (d *daemon) file() *bolt.Store {
	st, _ := d.store.(*bolt.Store)
	return st
}

// newServer creates the server of both listeners.
func (d *daemon) newServer() (*httpd.Server, error) {
	gid, err := groupID(d.cfg.Server.SocketGroup)
	if err != nil {
		return nil, err
	}
	conf := httpd.Config{
		SocketGID: gid,
		Control:   d.control, Catalog: d.catalog, Acquirer: d.acquirer, Meta: d.logged, Blobs: d.blobs, Freezer: d.freezer,
		Signer: d.signer, TLog: d.tlog, Shared: d.shared, Conf: d.cfg, Version: d.o.Version, Log: d.log, Now: d.o.Now, Latency: d.o.latency,
	}
	if d.cfg.Store.Serves() {
		conf.LogKeySignature = d.public.LogKeySignature
	}
	return httpd.New(conf)
}

// localURL returns the URL of this server on this machine.
func localURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// periodic returns the regular work of the daemon other than syncs.
func (d *daemon) periodic() []task {
	conf := d.reloads.live.Load().Store
	audit := time.Duration(0) // never
	if d.reloads.live.Load().Audit.Keep > 0 {
		audit = auditInterval
	}
	return []task{
		{"gc", conf.GCInterval.D(), func(ctx context.Context) error {
			defer d.catalog.Changed()
			_, err := d.collector.Run(ctx, false)
			if errors.Is(err, meta.ErrLeased) {
				return nil // another node trims the list
			}
			return err
		}},
		{"audit", audit, d.control.TrimAudit},
		{"scrub", conf.ScrubInterval.D(), func(ctx context.Context) error {
			_, _, err := d.collector.Scrub(ctx, int64(d.reloads.live.Load().Store.ScrubRate))
			return err
		}},
	}
}

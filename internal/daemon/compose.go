package daemon

import (
	"context"
	"net"
	"time"

	"example.org/snapd/internal/control"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
)

// gcGrace is how long blobs of work that is under way are left alone.
const gcGrace = 24 * time.Hour

// makeFreezer makes what prepare needs.
func (d *daemon) makeFreezer() {
	d.freezer = freezer.New(freezer.Config{
		Engine: d.engine, Signer: d.signer, PublicURL: d.cfg.Server.PublicURL, LocalURL: localURL(d.cfg.Server.Listen),
		Version: d.o.Version, Log: d.log, Now: d.o.Now,
	})
}

// compose makes the parts between the engine and the listeners. fatal ends the
// daemon.
func (d *daemon) compose(fatal func(error)) {
	d.collector = gc.New(gc.Config{
		Engine: d.engine, Making: d.freezer.Making, Quarantine: d.cfg.Store.QuarantineTime.D(), Grace: gcGrace, Log: d.log, Now: d.o.Now,
	})
	d.sched = newScheduler(d)
	d.control = control.New(control.Config{
		Engine: d.engine, Freezer: d.freezer, Collector: d.collector, Signer: d.signer, Client: d.client, Conf: d.cfg,
		Version: d.o.Version, Log: d.log, Now: d.o.Now, NextSync: d.sched.next, Free: d.free, Fatal: fatal, Warnings: d.warnings,
	})
}

// newServer makes the server of both listeners.
func (d *daemon) newServer() (*httpd.Server, error) {
	return httpd.New(httpd.Config{
		Control: d.control, Engine: d.engine, Freezer: d.freezer, Signer: d.signer, Conf: d.cfg, Version: d.o.Version,
		Log: d.log, Now: d.o.Now, Free: d.free,
	})
}

// localURL is where this server can be reached on this machine.
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

// periodic is the daemon's regular work beside syncs.
func (d *daemon) periodic() []task {
	return []task{
		{"gc", d.cfg.Store.GCInterval.D(), func(ctx context.Context) error {
			defer d.engine.Changed()
			_, err := d.collector.Run(ctx, false)
			return err
		}},
		{"scrub", d.cfg.Store.ScrubInterval.D(), func(ctx context.Context) error {
			_, _, err := d.collector.Scrub(ctx, int64(d.cfg.Store.ScrubRate))
			return err
		}},
	}
}

package daemon

import (
	"context"
	"net"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
)

// gcGrace is how long blobs of work that is under way are left alone.
const gcGrace = 24 * time.Hour

// compose makes the parts above the engine.
func (d *daemon) compose() {
	d.freezer = freeze.New(freeze.Config{
		Engine: d.engine, Signer: d.signer, PublicURL: d.cfg.Server.PublicURL, LocalURL: localURL(d.cfg.Server.Listen),
		Version: d.o.Version, Parallel: d.cfg.Fetch.Parallel, Log: d.log, Now: d.o.Now,
	})
	d.collector = gc.New(gc.Config{
		Engine: d.engine, Making: d.freezer.Making, Quarantine: d.cfg.Store.QuarantineTime.D(), Grace: gcGrace, Log: d.log, Now: d.o.Now,
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

// services joins freeze, gc and the packages beside them to the server.
func (d *daemon) services() httpd.Services {
	z, c := d.freezer, d.collector
	diff := func(ctx context.Context, req api.DiffRequest, _ func(api.Progress)) (api.Diff, error) {
		return value(z.Diff(ctx, req.A, req.B))
	}
	sources := func(ctx context.Context, req api.SourcesRequest, _ func(api.Progress)) (api.SourcesResult, error) {
		return value(z.Sources(ctx, &req))
	}
	return httpd.Services{
		Making: z.Making,
		Verbs: map[string]httpd.Verb{
			"freeze":    httpd.Long(func(r *api.FreezeRequest) string { return r.Name }, z.Freeze),
			"diff":      httpd.Handle(diff),
			"sources":   httpd.Handle(sources),
			"verify":    httpd.Long(func(r *api.VerifyRequest) string { return r.Ref }, z.Verify),
			"import":    httpd.Long(func(r *api.ImportRequest) string { return r.Dir }, z.Import),
			"sbom":      httpd.Quick(z.SBOM),
			"image/add": httpd.Quick(z.AddImage),
			"export": httpd.Long(func(r *api.ExportRequest) string { return r.Ref },
				func(ctx context.Context, r *api.ExportRequest, p *mirror.Progress) (*api.TransferResult, error) {
					return z.Export(ctx, r.Ref, r.Dir, p)
				}),
			"image/list": httpd.Quick(func(ctx context.Context, _ *api.Empty) (*api.ImageList, error) {
				images, err := z.Images(ctx, "")
				return &api.ImageList{Images: images}, err
			}),
			"backup": httpd.Long(func(*api.BackupRequest) string { return "backup" }, d.backup),
			"gc": httpd.Quick(func(ctx context.Context, r *api.GCRequest) (*api.GCResult, error) {
				if r.Explain != "" {
					e, err := c.Explain(ctx, r.Explain)
					return &api.GCResult{Snapshots: []string{}, Explain: e}, err
				}
				defer d.engine.Changed()
				return c.Run(ctx, r.DryRun)
			}),
			"fsck": httpd.Long(func(*api.FsckRequest) string { return "fsck" },
				func(ctx context.Context, r *api.FsckRequest, p *mirror.Progress) (*api.FsckResult, error) {
					defer d.engine.Changed()
					return c.Fsck(ctx, r, d.client, p)
				}),
		},
		Outcomes: backupOutcomes,
		Diff:     diff,
		Sources:  sources,
		Resigned: z.Resigned,
		FrozenPackages: func(ctx context.Context, f *meta.Frozen, emit func(api.Package) error) error {
			list, err := z.Packages(ctx, f.Name)
			if err != nil {
				return err
			}
			for _, p := range list.Packages {
				if err := emit(p); err != nil {
					return err
				}
			}
			return nil
		},
		FrozenDetail: func(ctx context.Context, f *meta.Frozen, out *api.Frozen) error {
			all, err := z.Describe(ctx, f.Name)
			if err == nil {
				*out = *all
			}
			return err
		},
	}
}

// value takes a result as the server's functions return it.
func value[T any](v *T, err error) (T, error) {
	if v == nil {
		v = new(T)
	}
	return *v, err
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

// Package build makes freezes: it downloads the packages of a plan, derives the frozen
// repositories, signs the manifest, and publishes everything at once. It also adds
// images, statements and signatures by newer keys to existing freezes.
package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/freeze/plan"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Catalog looks up snapshots and freezes.
type Catalog interface {
	Mirror(name config.MirrorName) (config.Mirror, error)
	Root(ctx context.Context, mirror meta.MirrorName, typ string, suite repo.SuiteName, gen uint32) (*repo.Root, *meta.Generation, map[string]repo.Listed, error)
	CheckName(ctx context.Context, name string) error
	// Changed is called after something was published.
	Changed()
}

// Format derives repositories and signs them.
type Format interface {
	tree.Format
	repo.Derivation
	SourceArch() string
}

// Fetcher downloads package files.
type Fetcher interface {
	// FetchPackages downloads the files that each names and that are not stored.
	FetchPackages(ctx context.Context, o acquire.FetchOptions, each func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error) (files, bytes int64, err error)
	// CheckSpace fails if free space is below the reserve.
	CheckSpace(ctx context.Context) error
}

// Keeper keeps blobs from being collected until metadata refers to them.
type Keeper interface {
	// Flush makes the blobs of a batch durable.
	Flush(ctx context.Context, batch cas.Batch) error
	// Hold makes a batch hold a stored blob, and restores it from the quarantine if
	// necessary. cas.ErrNotFound, cas.ErrCorrupt.
	Hold(ctx context.Context, batch cas.Batch, d cas.Digest) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	AnyCorrupt() bool
}

// Metadata is the part of meta.Store that a Builder uses.
type Metadata interface {
	meta.Publisher
	meta.Leases
	meta.Mover
	Channel(ctx context.Context, name string) (*meta.Channel, error)
	freeze.Records
	freeze.Packages
	tree.Files
	Freezes(ctx context.Context) ([]*meta.Frozen, error)
	Generations(ctx context.Context, s *meta.Snapshot) ([]*meta.Generation, error)
	Images(ctx context.Context, name meta.FreezeName) ([]meta.Image, error)
}

// Config contains the parts of a Builder.
type Config struct {
	Node    string // name of this node, for leases
	Formats repo.Formats[Format]
	Catalog Catalog
	Fetcher Fetcher
	Keeper  Keeper
	Meta    Metadata
	Blobs   cas.Store
	Plans   *plan.Planner
	Clients *client.Client // describes freezes
	Signer  *sign.Signer
	Version string           // version of this program, for provenance
	Log     *slog.Logger     // nil: none
	Now     func() time.Time // nil: time.Now
}

// Builder makes freezes. It is safe for concurrent use.
type Builder struct {
	*Publisher
	cfg     Config
	formats repo.Formats[Format]
	cat     Catalog
	fetcher Fetcher
	keeper  Keeper
	meta    Metadata
	blobs   cas.Store
	plans   *plan.Planner
	clients *client.Client
	signer  *sign.Signer
	sizes   sizes
}

// New returns a Builder.
func New(cfg Config) *Builder {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Builder{
		Publisher: newPublisher(cfg.Meta, cfg.Keeper, cfg.Node, cfg.Catalog.Changed),
		cfg:       cfg, formats: cfg.Formats, cat: cfg.Catalog, fetcher: cfg.Fetcher, keeper: cfg.Keeper, meta: cfg.Meta, blobs: cfg.Blobs,
		plans: cfg.Plans, clients: cfg.Clients, signer: cfg.Signer,
	}
}

// Freeze makes the freeze that the request describes.
func (b *Builder) Freeze(ctx context.Context, req *api.FreezeRequest, p *acquire.Progress) (*api.FreezeResult, error) {
	if p == nil {
		p = &acquire.Progress{}
	}
	if err := b.cat.CheckName(ctx, req.Name); err != nil {
		return nil, err
	}
	var res *api.FreezeResult
	err := b.Alone(ctx, req.Name, func(ctx context.Context) (err error) {
		res, err = b.freeze(ctx, req, p)
		return err
	})
	return res, err
}

func (b *Builder) freeze(ctx context.Context, req *api.FreezeRequest, p *acquire.Progress) (*api.FreezeResult, error) {
	if err := b.checkClock(req); err != nil {
		return nil, err
	}
	if err := (freeze.Labels{Labels: req.Labels, Description: req.Description}).Check(); err != nil {
		return nil, err
	}
	p.SetPhase("resolving")
	pl, err := b.plans.Plan(ctx, req)
	if err != nil {
		return nil, err
	}
	x := &freezing{Builder: b, req: req, pl: pl, progress: p, res: &api.FreezeResult{DryRun: req.DryRun, Report: pl.Report, Warnings: pl.Warnings}}
	return x.run(ctx)
}

// maxKeyAhead is how far in the future the creation time of a key may be, for
// clocks that are being adjusted.
const maxKeyAhead = 10 * time.Minute

// checkKey refuses to sign with a key whose creation time is in the future, because
// clients would refuse its signatures until then. mirror.ErrClock.
func (b *Builder) checkKey() error {
	now, created := b.cfg.Now(), b.signer.CreatedAt()
	if created.Sub(now) <= maxKeyAhead {
		return nil
	}
	return fmt.Errorf("%w: it is at %s, but signing key %s was created at %s", mirror.ErrClock,
		now.UTC().Format(time.RFC3339), b.signer.Fingerprint(), created.UTC().Format(time.RFC3339))
}

// checkClock refuses a date or a key from the future, because clients would
// refuse the freeze.
func (b *Builder) checkClock(req *api.FreezeRequest) error {
	if now := b.cfg.Now(); req.Date != nil && req.Date.After(now) {
		return fmt.Errorf("%w: date %s is in the future, the system clock is at %s: clients refuse a freeze from the future", freeze.ErrUsage,
			req.Date.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return b.checkKey()
}

// signedAt returns the time of a signature: the date of the signed document, or the
// creation time of the key if that is later.
func (b *Builder) signedAt(date time.Time) time.Time {
	if c := b.signer.CreatedAt(); c.After(date) {
		return c
	}
	return date
}

// freezing is a freeze in progress.
type freezing struct {
	*Builder
	req      *api.FreezeRequest
	pl       *plan.Plan
	progress *acquire.Progress
	res      *api.FreezeResult

	doc  *freeze.Document
	data []byte // of doc
	// batch holds every blob of the freeze until its record refers to them.
	batch cas.Batch
	// plain are the plain indices that prove the freeze in place of compressed indices
	// that cannot be made again.
	plain map[cas.Digest]repo.Listed
}

func (x *freezing) run(ctx context.Context) (*api.FreezeResult, error) {
	if x.req.Base != "" {
		if err := x.compareWithBase(ctx); err != nil {
			return nil, err
		}
	}
	if err := x.encode(ctx); err != nil {
		return nil, err
	}
	exists, other, err := x.judge(ctx)
	switch {
	case err != nil:
		return nil, err
	case exists:
		return x.describe(ctx)
	case x.req.DryRun:
		return x.res, nil
	}
	x.batch = x.blobs.NewBatch()
	defer x.batch.Discard()
	if exists, err = x.gather(ctx, other); err != nil {
		return nil, err
	} else if exists {
		return x.describe(ctx)
	}
	x.progress.SetPhase("signing")
	f, err := x.commit(ctx)
	if err != nil {
		return nil, err
	}
	x.cfg.Log.Info("frozen", "snapshot", x.req.Name, "digest", f.Manifest.SHA256.String(), "size", f.Bytes)
	x.res.New = true
	return x.describe(ctx)
}

// encode encodes the manifest of the plan.
func (x *freezing) encode(ctx context.Context) (err error) {
	if x.doc, err = x.plans.Document(ctx, x.pl); err != nil {
		return err
	}
	x.data, err = x.doc.Encode()
	return err
}

// describe returns the result, with the freeze as published.
func (x *freezing) describe(ctx context.Context) (_ *api.FreezeResult, err error) {
	if x.res.Frozen, err = x.clients.Describe(ctx, meta.FreezeName(x.req.Name)); err == nil {
		x.keepsLabels()
	}
	return x.res, err
}

// compareWithBase reports the differences from the base, and refuses dependencies that
// were satisfied in the base and no longer are.
func (x *freezing) compareWithBase(ctx context.Context) (err error) {
	planned := make([]client.Planned, len(x.pl.Mirrors))
	for i, m := range x.pl.Mirrors {
		planned[i] = client.Planned{Mirror: m.Name, Type: m.Type}
		for _, o := range m.Picks {
			planned[i].Facts = append(planned[i].Facts, o.Fact)
		}
	}
	if x.res.Changes, err = x.clients.DiffPlanned(ctx, x.req.Base, x.req.Name, planned); err != nil {
		return err
	}
	if x.res.Broken, err = x.plans.Broken(ctx, x.pl); err != nil {
		return err
	}
	if len(x.res.Broken) == 0 || x.req.AllowBroken {
		return nil
	}
	first := x.res.Broken[0]
	return x.pl.Refuse(&freeze.ReportError{Broken: x.res.Broken,
		Err: fmt.Errorf("%w: %d (first: %s %s)", freeze.ErrBroken, len(x.res.Broken), first.Package, first.Relation)})
}

// judge decides, before anything is downloaded, whether the freeze can be made.
// exists means that a freeze with this manifest exists; other is the error if the
// name has other contents, which may change if something turns out to be missing.
func (x *freezing) judge(ctx context.Context) (exists bool, other, err error) {
	exists, err = x.Exists(ctx, x.req.Name, cas.Sum(x.data))
	switch {
	case errors.Is(err, freeze.ErrExists) && x.req.AllowMissing && !x.req.DryRun:
		other = err
	case err != nil:
		if err := x.pl.Refuse(err); err != nil {
			return false, nil, err
		}
	case exists && x.pl.Refused == nil:
		return true, nil, nil
	}
	for _, check := range []func() error{
		x.pl.CheckPaths,
		func() error { return x.needsAll(ctx) },
		func() error { return x.fetcher.CheckSpace(ctx) },
	} {
		if err := x.pl.Refuse(check()); err != nil {
			return false, nil, err
		}
	}
	if refused := x.pl.Refused; refused != nil {
		return false, nil, &freeze.ReportError{
			Err: refused, Hint: hintOf(refused), DryRun: true, Report: x.pl.Report, Changes: x.res.Changes, Broken: x.res.Broken,
		}
	}
	return false, other, nil
}

// gather makes sure that everything in the freeze is stored: the proof that it takes
// over, and the packages. It records packages that upstream no longer has as missing.
// other is the error for a name with other contents. exists means that, without the
// missing packages, the contents are those of the existing freeze.
func (x *freezing) gather(ctx context.Context, other error) (exists bool, err error) {
	if err := x.holdProof(ctx); err != nil {
		return false, err
	}
	lost, err := x.fetchAll(ctx)
	if err != nil {
		return false, err
	}
	if len(lost) == 0 {
		if other != nil {
			return false, other
		}
		return false, x.plans.CheckClaims(ctx, x.pl)
	}
	if err := x.recordLost(lost); err != nil {
		return false, err
	}
	if err := x.encode(ctx); err != nil {
		return false, err
	}
	if exists, err := x.Exists(ctx, x.req.Name, cas.Sum(x.data)); err != nil || exists {
		return exists, err
	}
	return false, x.plans.CheckClaims(ctx, x.pl)
}

// recordLost records packages that upstream no longer has as missing.
func (x *freezing) recordLost(lost []lostFile) error {
	files := make([]plan.Lost, len(lost))
	for i, l := range lost {
		files[i] = l.Lost
	}
	if err := x.plans.DropLost(x.pl, files); err != nil {
		return err
	}
	what := freeze.Count(len(lost), "file that upstream no longer has was", "files that upstream no longer has were")
	x.res.Warnings = append(x.res.Warnings, fmt.Sprintf("%s recorded as missing (%s)", what, lost[0].text))
	return nil
}

// hintOf returns the hint for a refused freeze.
func hintOf(err error) string {
	if r, ok := errors.AsType[*freeze.ReportError](err); ok {
		return r.Hint
	}
	return ""
}

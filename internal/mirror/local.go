package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// A local mirror has no upstream. Adding and removing packages writes the files that an
// upstream would serve, signed by this server, and seals them as a sync does.

var (
	// ErrLocal means that a mirror has no upstream to sync with.
	ErrLocal = errclass.New(errclass.Usage, "the mirror is local and has no upstream")
	// ErrNotLocal means that packages cannot be added to a mirror with an upstream.
	ErrNotLocal = errclass.New(errclass.Usage, "the mirror is not local")
	// ErrNoPackage means that a local mirror does not have a package.
	ErrNoPackage = errclass.New(errclass.NotFound, "no such package in the mirror")
)

// maxOwnFiles bounds the files of one call.
const maxOwnFiles = 100_000

// OwnChange is what a call changed in a local mirror.
type OwnChange struct {
	Snapshot *meta.Snapshot // the newest snapshot, new or not
	New      bool
	Packages []repo.OwnPackage // added or removed packages, without bytes
	Files    int64             // received
	Bytes    int64
}

// AddOptions says which packages are added, and where.
type AddOptions struct {
	Suite, Component string // empty: as given in the files
	Names            []string
	// Next returns the next of the named files, in order. It is valid until the next call.
	Next     func() (io.Reader, error)
	Progress *acquire.Progress
}

// localMirror returns the configuration and format of a local mirror.
func (e *Engine) localMirror(name config.MirrorName) (m config.Mirror, f repo.Own, err error) {
	if m, err = e.catalog.Mirror(name); err != nil {
		return m, nil, err
	}
	if !m.Local {
		return m, nil, fmt.Errorf("mirror %s: %w", name, ErrNotLocal)
	}
	f, ok := e.cfg.Formats[m.Type].(repo.Own)
	if !ok || e.cfg.Signer == nil {
		return m, nil, fmt.Errorf("mirror %s: no key, or no local mirrors of type %s", name, m.Type)
	}
	return m, f, nil
}

// Add adds packages to a local mirror, in one snapshot. If any of them is refused,
// none is added.
func (e *Engine) Add(ctx context.Context, name config.MirrorName, o AddOptions) (*OwnChange, error) {
	m, f, err := e.localMirror(name)
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = &acquire.Progress{}
	}
	if err := e.acquirer.CheckSpace(ctx); err != nil {
		return nil, err
	}
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	files, acquired, err := e.receive(ctx, m, f, batch, o)
	if err != nil {
		return nil, fmt.Errorf("add to %s: %w", name, err)
	}
	out := &OwnChange{Files: int64(len(files)), Bytes: o.Progress.Bytes.Load()}
	err = e.changeLocal(ctx, m, batch, o.Progress, func(ctx context.Context, c *localChange) error {
		c.acquired = acquired
		added, err := c.add(ctx, files, o)
		out.Packages = added
		return err
	}, out)
	if err != nil {
		return nil, fmt.Errorf("add to %s: %w", name, err)
	}
	return out, nil
}

// Remove removes packages from a local mirror, in one snapshot. Each is
// NAME[:ARCH][=VERSION]; source packages have the architecture of sources.
func (e *Engine) Remove(ctx context.Context, name config.MirrorName, packages []string) (*OwnChange, error) {
	m, _, err := e.localMirror(name)
	if err != nil {
		return nil, err
	}
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	out := &OwnChange{}
	err = e.changeLocal(ctx, m, batch, &acquire.Progress{}, func(_ context.Context, c *localChange) (err error) {
		out.Packages, err = c.remove(packages)
		return err
	}, out)
	if err != nil {
		return nil, fmt.Errorf("remove from %s: %w", name, err)
	}
	return out, nil
}

// EnsureLocal makes the first snapshot of each local mirror, and a new one where the
// configuration or the signing key changed.
func (e *Engine) EnsureLocal(ctx context.Context) error {
	for _, m := range e.catalog.Mirrors() {
		if !m.Local {
			continue
		}
		if _, _, err := e.localMirror(m.Name); err != nil {
			return err
		}
		if err := e.ensureLocal(ctx, m); errors.Is(err, meta.ErrLeased) {
			e.cfg.Log.Info("another node prepares the mirror", "repo", m.Name, "err", err)
		} else if err != nil {
			return fmt.Errorf("local mirror %s: %w", m.Name, err)
		}
	}
	return nil
}

func (e *Engine) ensureLocal(ctx context.Context, m config.Mirror) error {
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	out := &OwnChange{}
	return e.changeLocal(ctx, m, batch, &acquire.Progress{}, func(context.Context, *localChange) error { return nil }, out)
}

// receive stores the files of a call in a batch and checks each file.
func (e *Engine) receive(ctx context.Context, m config.Mirror, f repo.Own, batch cas.Batch, o AddOptions) (out []repo.OwnFile, acquired []acquire.Acquired, err error) {
	if len(o.Names) == 0 || len(o.Names) > maxOwnFiles {
		return nil, nil, fmt.Errorf("%w: %d files, expected 1 to %d", errclass.Usage, len(o.Names), maxOwnFiles)
	}
	kr, err := e.acquirer.Keyring(m.Name)
	if err != nil {
		return nil, nil, err
	}
	o.Progress.SetPhase("receiving")
	o.Progress.FilesTotal.Store(int64(len(o.Names)))
	for _, name := range o.Names {
		if !validFileName(name) {
			return nil, nil, fmt.Errorf("%w: %q is not the name of a file", errclass.Usage, name)
		}
		r, err := o.Next()
		if err != nil {
			return nil, nil, fmt.Errorf("receive %s: %w", name, err)
		}
		file, got, err := receiveFile(ctx, m, f, kr, batch, name, &countingReader{r, o.Progress})
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		o.Progress.Files.Add(1)
		out, acquired = append(out, file), append(acquired, got)
	}
	return out, acquired, nil
}

// validFileName reports whether a client may give a file this name.
func validFileName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && !strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) })
}

func receiveFile(ctx context.Context, m config.Mirror, f repo.Own, kr *sign.Keyring, batch cas.Batch, name string, r io.Reader) (file repo.OwnFile, got acquire.Acquired, err error) {
	w, err := batch.Create(ctx)
	if err != nil {
		return file, got, err
	}
	defer w.Abort()
	in := &arriving{ctx: ctx, r: r}
	read, err := f.ReadOwn(m, kr, name, io.TeeReader(in, w))
	if in.err != nil {
		return file, got, in.err // more important than the format's error about the incomplete file
	}
	if err != nil {
		return file, got, err
	}
	if got.Info, err = w.Commit(cas.Digest{}, -1, time.Time{}); err != nil {
		return file, got, err
	}
	got.SHA1 = w.SHA1()
	return repo.OwnFile{File: repo.File{Path: name, Size: got.Size, SHA256: got.Digest}, Read: read}, got, nil
}

// arriving reads a file until a context ends, and remembers the error if the file arrived
// incompletely.
type arriving struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (a *arriving) Read(p []byte) (n int, err error) {
	if err = a.ctx.Err(); err == nil {
		n, err = a.r.Read(p)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: the file arrived incompletely: %w", errclass.Usage, err)
	}
	if err != nil && err != io.EOF {
		a.err = err
	}
	return n, err
}

// countingReader counts bytes for the progress of a call.
type countingReader struct {
	r io.Reader
	p *acquire.Progress
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.p.Bytes.Add(int64(n))
	return n, err
}

// changeLocal applies a change to the newest state of a local mirror under its lease. If
// the result differs, it seals it and sets out to the snapshot.
func (e *Engine) changeLocal(ctx context.Context, m config.Mirror, batch cas.Batch, p *acquire.Progress, change func(context.Context, *localChange) error, out *OwnChange) error {
	unlock, err := e.lock(ctx, m.Name)
	if err != nil {
		return err
	}
	defer unlock()
	start := e.cfg.Now()
	err = meta.Lead(ctx, e.cfg.Meta, meta.LeaseSync+string(m.Name), e.cfg.Node, func(ctx context.Context) error {
		c := &localChange{attempt: &attempt{e: e, m: m, f: e.cfg.Formats[m.Type], p: p, batch: batch}, own: e.cfg.Formats[m.Type].(repo.Own)}
		if err := c.load(ctx); err != nil {
			return err
		}
		if err := change(ctx, c); err != nil {
			return err
		}
		out.Snapshot, out.New, err = c.commit(ctx)
		return err
	})
	if err == nil && out.New {
		e.cfg.Log.Info("changed a local mirror", "repo", m.Name, "snapshot", out.Snapshot.ID(), "packages", len(out.Packages), "dur", e.cfg.Now().Sub(start).Round(time.Millisecond))
	}
	return err
}

// commit derives the changed suites, and seals a snapshot of them.
func (c *localChange) commit(ctx context.Context) (*meta.Snapshot, bool, error) {
	suites, err := c.f.Suites(c.m)
	if err != nil {
		return nil, false, err
	}
	changed := c.head.Snapshot == nil || len(suites) != len(c.head.Snapshot.Suites)
	for _, name := range suites {
		s := &suiteSync{attempt: c.attempt, suite: name}
		c.suites = append(c.suites, s)
		last := c.head.Generations[name]
		if last != nil && !c.dirty[name] && last.Selection == selection(c.m) && c.signed(last) {
			s.gen = *last
			continue
		}
		changed = true
		if err := c.derive(ctx, s, last); err != nil {
			return nil, false, fmt.Errorf("suite %s: %w", name, err)
		}
	}
	if !changed {
		return c.head.Snapshot, false, nil
	}
	for _, s := range c.suites {
		if s.root == nil {
			continue
		}
		if err := c.stageLocal(ctx, s); err != nil {
			return nil, false, fmt.Errorf("suite %s: %w", s.suite, err)
		}
	}
	if err := c.checkPaths(ctx); err != nil {
		return nil, false, err
	}
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	snap, err := c.seal(ctx)
	if err != nil {
		return nil, false, err
	}
	check := c.head.Check
	check.Checked = c.e.cfg.Now().UTC().Truncate(time.Second)
	check.OK, check.Error = check.Checked, ""
	return snap, true, c.e.cfg.Meta.SetCheck(ctx, c.m.Name, check)
}

// signed reports whether the current key signed a generation.
func (c *localChange) signed(g *meta.Generation) bool {
	return slices.ContainsFunc(g.Signers, func(k repo.Signer) bool { return k.Fingerprint == c.e.cfg.Signer.Fingerprint() })
}

// derive writes the indices and documents of a suite, and verifies them like those of an
// upstream.
func (c *localChange) derive(ctx context.Context, s *suiteSync, last *meta.Generation) error {
	c.p.SetPhase("writing indices of " + string(s.suite))
	date := c.now
	if last != nil && last.Date.After(date) {
		date = last.Date // clients ignore an older one
	}
	if created := c.e.cfg.Signer.CreatedAt(); created.After(date) {
		date = created
	}
	sink := &localSink{batch: c.batch, date: date}
	err := c.own.DeriveOwn(ctx, repo.OwnSuite{
		Mirror: c.m, Suite: s.suite, Date: date, Signer: c.e.cfg.Signer,
		Beside: func(index string, d cas.Digest) []byte { return c.besides[d][index] },
		Records: func(ctx context.Context, index string, emit func(repo.Record) error) error {
			return c.records(ctx, meta.Place{Suite: s.suite, Index: index}, emit)
		},
		Has: func(index string) bool { return c.has(meta.Place{Suite: s.suite, Index: index}) },
		Last: func(ctx context.Context, index string) (string, io.ReadCloser, error) {
			return c.openLast(ctx, last, index)
		},
	}, sink)
	if err != nil {
		return err
	}
	for i, set := range c.f.RootDocs(s.suite) {
		docs, err := sink.documents(set)
		if err != nil {
			return err
		}
		root, err := c.f.ParseRoot(c.m, s.suite, docs, repo.VerifyParams{Keyring: c.e.cfg.Signer.Keyring(), Strict: true})
		if err != nil {
			return err
		}
		if i == 0 {
			s.root = root
		} else {
			c.companions[s.suite] = docs
		}
	}
	return nil
}

// stageLocal stages a suite whose files are in the batch.
func (c *localChange) stageLocal(ctx context.Context, s *suiteSync) (err error) {
	if s.groups, err = s.f.Plan(s.m, s.root); err != nil {
		return err
	}
	if err := s.plan(ctx); err != nil {
		return err
	}
	if s.gen.Docs, err = s.putDocuments(ctx, s.root.Docs); err != nil {
		return err
	}
	if s.gen.Companions, err = s.putDocuments(ctx, c.companions[s.suite]); err != nil {
		return err
	}
	if err := s.keepProof(ctx); err != nil {
		return err
	}
	// Invariant 1: packages and indices are durable before metadata names them.
	if err := s.e.acquirer.Keep(ctx, s.batch, c.acquired); err != nil {
		return err
	}
	s.stored = make([]*repo.Listed, len(s.groups))
	for i, g := range s.groups {
		if s.stored[i] = s.holdVariant(ctx, g, nil); s.stored[i] == nil {
			return fmt.Errorf("%s was written but is not stored: %w", g.Index, repo.ErrMissing)
		}
	}
	if err := s.readGroups(ctx); err != nil {
		return err
	}
	if err := s.endIndices(ctx); err != nil {
		return err
	}
	s.listFiles()
	s.gen.Complete = true
	return nil
}

// localSink receives the files of one suite. It keeps documents in memory, puts indices
// into a batch, and only hashes uncompressed variants of indices.
type localSink struct {
	batch cas.Batch
	date  time.Time
	docs  map[string][]byte
}

// Put implements repo.Sink.
func (s *localSink) Put(_ context.Context, name string, data []byte) (repo.File, error) {
	if s.docs == nil {
		s.docs = map[string][]byte{}
	}
	s.docs[name] = data
	return repo.File{Path: name, Size: int64(len(data)), SHA256: cas.Sum(data)}, nil
}

// documents returns documents by path.
func (s *localSink) documents(paths []string) (out []repo.Doc, err error) {
	for _, p := range paths {
		data, ok := s.docs[p]
		if !ok {
			return nil, fmt.Errorf("%s was not written, only %v: %w", p, slices.Sorted(maps.Keys(s.docs)), repo.ErrMissing)
		}
		out = append(out, repo.Doc{Path: p, Data: data, LastModified: s.date})
	}
	return out, nil
}

// Create implements repo.Sink.
func (s *localSink) Create(ctx context.Context, name string) (repo.SinkWriter, error) {
	if path.Ext(name) == "" {
		return &hashWriter{Hash: sha256.New(), path: name}, nil
	}
	w, err := s.batch.Create(ctx)
	if err != nil {
		return nil, err
	}
	return &localWriter{w, name, s.date}, nil
}

// Link implements repo.Sink. It does nothing, because files are served by digest.
func (s *localSink) Link(context.Context, string, repo.File) error { return nil }

type localWriter struct {
	cas.BlobWriter
	path string
	date time.Time
}

// Commit implements repo.SinkWriter.
func (w *localWriter) Commit() (repo.File, error) {
	info, err := w.BlobWriter.Commit(cas.Digest{}, -1, w.date)
	return repo.File{Path: w.path, Size: info.Size, SHA256: info.Digest}, err
}

// hashWriter hashes an uncompressed variant of an index. It is listed, and regenerated
// from the compressed variant when a client requests it.
type hashWriter struct {
	hash.Hash
	path string
	n    int64
}

func (w *hashWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return w.Hash.Write(p)
}

// Abort implements repo.SinkWriter.
func (w *hashWriter) Abort() {}

// Commit implements repo.SinkWriter.
func (w *hashWriter) Commit() (repo.File, error) {
	return repo.File{Path: w.path, Size: w.n, SHA256: cas.Digest(w.Sum(nil))}, nil
}

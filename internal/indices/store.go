package indices

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/cache"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// ErrBeingMade means that an index is being made, and can be requested again later.
var ErrBeingMade = errclass.New(errclass.NotFound, "the compressed index is being made")

// Metadata is the part of meta.Store that a Store reads.
type Metadata interface {
	Stanzas
	ListedAs(ctx context.Context, d cas.Digest) ([]meta.ListedIn, error)
	Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error)
	LastGeneration(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (*meta.Generation, error)
}

// Options are the parts of a Store.
type Options struct {
	Blobs cas.Store
	Meta  Metadata
	Dir   string // of the cache of made indices, on this machine
	Size  int64  // bytes of the cache
	Log   *slog.Logger
	Now   func() time.Time // nil: time.Now
}

// Limits of the programs, and of the makers of plain indices without stanzas, that run at
// the same time.
const (
	parallel      = 2
	parallelTexts = 4
)

// Store is a blob store that also opens indices which their generations no longer keep.
// It makes an index while it is read, once for all readers at that time, and returns the
// last bytes only after the digest was verified. A limited number of indices is cached on
// this machine. Stat, Walk and Hold find only stored blobs. Restore stores an index
// again.
type Store struct {
	cas.Store
	o     Options
	made  *cache.Store
	slots chan struct{} // for programs
	texts chan struct{} // for plain indices without stanzas, which do not wait for programs

	mu     sync.Mutex
	failed map[cas.Digest]failure
	jobs   map[cas.Digest]time.Duration // programs that run or wait for a slot, with the time that each takes
}

// failure is the error of an index that could not be made.
type failure struct {
	at  time.Time
	err error
}

// retryAfter is how long a failure is remembered: in the meantime another version of the
// program may have been installed.
const retryAfter = 10 * time.Minute

// Open opens a store on top of another one, which Close also closes.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{Store: o.Blobs, o: o, slots: make(chan struct{}, parallel), texts: make(chan struct{}, parallelTexts), failed: map[cas.Digest]failure{}, jobs: map[cas.Digest]time.Duration{}}
	var err error
	s.made, err = cache.Open(cache.Options{Remote: &maker{o.Blobs, s}, Dir: o.Dir, Size: o.Size, Sequential: true, Log: o.Log, Now: o.Now})
	return s, err
}

// Close stops making indices and closes both stores.
func (s *Store) Close() error { return errors.Join(s.made.Close(), s.Store.Close()) }

// Stored implements cas.Cache. A check of stored blobs makes no indices.
func (s *Store) Stored() cas.Reader {
	if c, ok := s.Store.(cas.Cache); ok {
		return c.Stored()
	}
	return s.Store
}

// Unwrap returns the store that s is on top of.
func (s *Store) Unwrap() cas.Store { return s.Store }

// Locate implements cas.Locator.
func (s *Store) Locate(ctx context.Context, d cas.Digest, w cas.Wanted) (cas.Place, error) {
	return cas.Locate(ctx, s.Store, d, w)
}

type patienceKey struct{}

// WithPatience returns a context in which Open fails with ErrBeingMade if it expects to
// need longer than d for an index. The index is nevertheless made.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// largest returns the size of the largest index that is made, in bytes.
func (s *Store) largest() int64 { return s.o.Size / 2 }

// Open implements cas.Reader.
func (s *Store) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	b, err := s.Store.Open(ctx, d)
	if !errors.Is(err, cas.ErrNotFound) {
		return b, err
	}
	p, ferr := s.find(ctx, d)
	if ferr != nil {
		return nil, ferr
	}
	if p == nil {
		return nil, err
	}
	if p.size > s.largest() {
		return nil, fmt.Errorf("%w: %s has %d bytes, and the cache is %d", ErrRecipe, p.path, p.size, s.o.Size)
	}
	if err := s.failure(d); err != nil {
		return nil, err
	}
	if p.recipe == nil || s.made.Has(d) {
		return s.made.Open(ctx, d)
	}
	patience, limited := ctx.Value(patienceKey{}).(time.Duration)
	if !limited {
		patience = math.MaxInt64
	}
	return s.openWhole(ctx, p, patience)
}

// openWhole opens a compressed variant only when all its bytes have been verified,
// because it is unknown whether a program still makes the right ones. A client that gets
// an error uses the plain variant, but one that got the beginning would fail.
func (s *Store) openWhole(ctx context.Context, p *plan, patience time.Duration) (cas.Blob, error) {
	expected := s.expected(p)
	b, err := s.made.Open(ctx, p.digest)
	if err != nil {
		return nil, err
	}
	late := fmt.Errorf("%w: %s", ErrBeingMade, p.path)
	if expected > patience {
		return nil, errors.Join(late, b.Close())
	}
	end := make(chan error, 1)
	go func() {
		var last [1]byte
		_, err := b.ReadAt(last[:min(p.size, 1)], max(p.size-1, 0))
		end <- err
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err = <-end:
		if err == nil || err == io.EOF {
			return b, nil
		}
		return nil, errors.Join(err, b.Close())
	case <-timer.C:
		// The reading ends with the index, or with the request.
		go func() { <-end; b.Close() }()
		return nil, late
	}
}

// Restore implements cas.Keeper. It also makes and stores an index that its generation no
// longer keeps.
func (s *Store) Restore(ctx context.Context, d cas.Digest) error {
	err := s.Store.Restore(ctx, d)
	if !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	p, ferr := s.find(ctx, d)
	if ferr != nil {
		return ferr
	}
	if p == nil {
		return err
	}
	r, err := s.Open(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	batch := s.Store.NewBatch()
	defer batch.Discard()
	if _, err := cas.AddReader(ctx, batch, r, d, p.modified); err != nil {
		return fmt.Errorf("store %s again: %w", p.path, err)
	}
	return batch.Flush(ctx)
}

// expected estimates the time until an index has been made, including the indices that it
// waits for.
func (s *Store) expected(p *plan) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var others time.Duration
	n := 0
	for d, takes := range s.jobs {
		if d != p.digest {
			others += takes
			n++
		}
	}
	if n < parallel {
		others = 0
	}
	return others/parallel + p.recipe.takes(p.plain)
}

// job records that a program makes an index, until done is called.
func (s *Store) job(p *plan) (done func()) {
	if p.recipe == nil {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[p.digest] = p.recipe.takes(p.plain)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.jobs, p.digest)
	}
}

// plan says how to make one blob.
type plan struct {
	digest   cas.Digest
	path     string // for messages
	size     int64
	plain    int64 // bytes of the plain variant
	made     *meta.Made
	recipe   *recipe // nil: it is the plain variant
	text     bool    // the index has no stanzas
	unknown  error   // error if the recipe is not known
	modified time.Time
}

// fail records that an index cannot be made for now.
func (s *Store) fail(d cas.Digest, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	for old, f := range s.failed {
		if now.Sub(f.at) > retryAfter {
			delete(s.failed, old)
		}
	}
	s.failed[d] = failure{now, err}
}

// failure returns why an index cannot be made for now, or nil.
func (s *Store) failure(d cas.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.failed[d]; ok && s.o.Now().Sub(f.at) <= retryAfter {
		return f.err
	}
	return nil
}

// find returns how an index is made, or nil if no generation makes it.
func (s *Store) find(ctx context.Context, d cas.Digest) (*plan, error) {
	listed, err := s.o.Meta.ListedAs(ctx, d)
	if err != nil {
		return nil, err
	}
	for i := range listed {
		p, err := s.findIn(ctx, d, &listed[i])
		if err != nil || p != nil {
			return p, err
		}
	}
	return nil, nil
}

// findIn looks in the generations of a suite that listed a digest. The newest remaining
// one decides: it keeps the variant, or makes it.
func (s *Store) findIn(ctx context.Context, d cas.Digest, l *meta.ListedIn) (*plan, error) {
	last := l.Last
	if last == meta.Unended {
		g, err := s.o.Meta.LastGeneration(ctx, l.Mirror, l.Suite)
		if errors.Is(err, meta.ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		last = g.Gen
	}
	for gen := last; gen > 0 && gen >= l.First; gen-- {
		g, err := s.o.Meta.Generation(ctx, l.Mirror, l.Suite, gen)
		if errors.Is(err, meta.ErrNotFound) {
			continue // collected
		} else if err != nil {
			return nil, err
		}
		return planIn(g, d), nil
	}
	return nil, nil
}

// planIn returns how a generation makes a blob, or nil if it does not.
func planIn(g *meta.Generation, d cas.Digest) *plan {
	for i := range g.Groups {
		gr := &g.Groups[i]
		if gr.Made == nil {
			continue
		}
		p := &plan{digest: d, plain: gr.Plain.Size, made: gr.Made, modified: g.Date, text: !gr.Packages}
		switch d {
		case gr.Plain.SHA256:
			p.path, p.size = gr.Plain.Path, gr.Plain.Size
			return p
		case gr.Variant.SHA256:
			p.path, p.size = gr.Variant.Path, gr.Variant.Size
			p.recipe, p.unknown = recipeNamed(gr.Made.Recipe)
			return p
		}
	}
	return nil
}

// maker is a store of all blobs that can be made, for the cache.
type maker struct {
	cas.Store
	s *Store
}

func (m *maker) plan(ctx context.Context, d cas.Digest) (*plan, error) {
	p, err := m.s.find(ctx, d)
	if err == nil && p == nil {
		err = fmt.Errorf("%w: %s", cas.ErrNotFound, d)
	}
	return p, err
}

// Stat implements cas.Reader.
func (m *maker) Stat(ctx context.Context, d cas.Digest) (cas.Info, error) {
	p, err := m.plan(ctx, d)
	if err != nil {
		return cas.Info{}, err
	}
	return cas.Info{Digest: d, Size: p.size, ModTime: p.modified}, nil
}

// Open implements cas.Reader. The blob can only be read from its start to its end.
func (m *maker) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	p, err := m.plan(ctx, d)
	if err == nil {
		err = p.unknown
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	return &making{ctx: ctx, cancel: cancel, s: m.s, p: p, sum: sha256.New(), done: m.s.job(p)}, nil
}

// Close implements cas.Store. The store below is closed by Store.Close.
func (m *maker) Close() error { return nil }

// making is an index that is made while it is read, and verified at its end.
type making struct {
	ctx    context.Context // of the reader, from Open to Close
	cancel context.CancelFunc
	s      *Store
	p      *plan
	r      io.ReadCloser
	slot   chan struct{} // taken for the program; nil: none
	sum    hash.Hash
	done   func()
}

// Read implements io.Reader.
func (b *making) Read(p []byte) (n int, err error) {
	if b.r == nil {
		err = b.start()
	}
	if err == nil {
		n, err = b.r.Read(p)
		b.sum.Write(p[:n])
	}
	if err == io.EOF {
		err = b.verify()
	}
	if errors.Is(err, ErrRecipe) && b.ctx.Err() == nil {
		b.s.fail(b.p.digest, err)
		b.s.o.Log.Warn("make an index again", "path", b.p.path, "blob", b.p.digest.String(), "err", err)
	}
	return n, err
}

// verify returns io.EOF if the bytes that were read have the digest.
func (b *making) verify() error {
	got := b.sum.Sum(nil)
	switch {
	case cas.Digest(got) == b.p.digest:
		return io.EOF
	case b.p.recipe == nil:
		return fmt.Errorf("%w: %s: made bytes with SHA-256 %x, expected %s", cas.ErrCorrupt, b.p.path, got, b.p.digest)
	}
	return fmt.Errorf("%w: %s: %s, recorded with %q, now writes other bytes", ErrRecipe, b.p.path, b.p.recipe.name(), b.p.made.Program)
}

func (b *making) start() (err error) {
	var slots chan struct{}
	switch {
	case b.p.recipe != nil:
		slots = b.s.slots
	case b.p.text:
		slots = b.s.texts
	}
	if slots != nil {
		select {
		case slots <- struct{}{}:
			b.slot = slots
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
	}
	write, err := openPlain(b.ctx, b.s.Store, b.s.o.Meta, b.p.made.Order, b.p.text)
	if err != nil {
		return err
	}
	if b.p.recipe != nil {
		b.r, err = b.p.recipe.run(b.ctx, write)
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(b.ctx, w)) }()
	b.r = r
	return nil
}

// Close implements io.Closer.
func (b *making) Close() error {
	b.cancel()
	b.done()
	var err error
	if b.r != nil {
		err = b.r.Close()
	}
	if b.slot != nil {
		<-b.slot
		b.slot = nil
	}
	return err
}

var errSequential = errors.New("an index that is being made is read from its start to its end")

// Info implements cas.Blob.
func (b *making) Info() cas.Info {
	return cas.Info{Digest: b.p.digest, Size: b.p.size, ModTime: b.p.modified}
}

// ReadAt implements io.ReaderAt.
func (b *making) ReadAt([]byte, int64) (int, error) { return 0, errSequential }

// Seek implements io.Seeker.
func (b *making) Seek(int64, int) (int64, error) { return 0, errSequential }

package indices

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strconv"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// CompactorMeta is the part of meta.Store that a Compactor uses.
type CompactorMeta interface {
	meta.Indices
	Stanzas
	Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error)
	LastGeneration(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (*meta.Generation, error)
	Packages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
	UnusablePackages(ctx context.Context, s *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
	Note(ctx context.Context, name string) (string, error)
	SetNote(ctx context.Context, name, value string) error
}

// Engine connects a Compactor with the parts around it.
type Engine interface {
	// Signed verifies the root of a generation again, and returns the files that it
	// lists, by path.
	Signed(ctx context.Context, g *meta.Generation) (map[string]repo.Listed, error)
	// Decode returns a reader of the plain content of a compression variant.
	Decode(g *meta.Generation, variant string, r io.Reader) (io.ReadCloser, error)
	// Flush makes a batch durable.
	Flush(ctx context.Context, batch cas.Batch) error
}

// CompactorConfig are the parts of a Compactor.
type CompactorConfig struct {
	Meta   CompactorMeta
	Blobs  cas.Store // where blobs are stored
	Engine Engine
	Keep   int // number of the newest generations of each suite that keep their indices
	Log    *slog.Logger
	Now    func() time.Time
}

// Compactor replaces the compressed indices of old generations by the order of their
// stanzas.
type Compactor struct {
	cfg   CompactorConfig
	bound int64 // bytes of the largest index that can be made again; 0: no limit
}

// NewCompactor makes a Compactor.
func NewCompactor(cfg CompactorConfig) *Compactor {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Keep = max(cfg.Keep, 1)
	c := &Compactor{cfg: cfg}
	if s, ok := cfg.Blobs.(*Store); ok {
		c.bound = s.largest()
	}
	return c
}

// Result counts the work of a compaction.
type Result struct {
	Indices int   // indices that are made from now on
	Bytes   int64 // of their variants
	Order   int64 // bytes of their orders
}

// Run compacts the generations of a suite, the oldest first. Without all, it continues
// where the last run ended: generations that are older, or had to keep an index, are not
// tried again. The first such run only records its position. The result of an interrupted
// run is kept.
func (c *Compactor) Run(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, all bool, res *Result) error {
	gens, err := c.old(ctx, mirror, suite, all)
	if err != nil {
		return err
	}
	s := &series{Compactor: c, res: res, proven: map[string]*meta.Group{}, recipes: map[string]*recipe{}}
	for _, gen := range gens {
		g, err := c.cfg.Meta.Generation(ctx, mirror, suite, gen)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if err := s.generation(ctx, g); err != nil {
			return fmt.Errorf("compact generation %d of suite %s of %s: %w", gen, suite, mirror, err)
		}
		if err := c.note(ctx, mirror, suite, gen); err != nil {
			return err
		}
	}
	return nil
}

// noteOf returns the name of the note with the newest generation that was tried.
func noteOf(mirror meta.MirrorName, suite repo.SuiteName) string {
	return "compacted." + string(mirror) + " " + string(suite)
}

// old lists the generations that may be compacted, the oldest first.
func (c *Compactor) old(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, all bool) (gens []uint32, err error) {
	last, err := c.cfg.Meta.LastGeneration(ctx, mirror, suite)
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	note, err := c.cfg.Meta.Note(ctx, noteOf(mirror, suite))
	if err != nil {
		return nil, err
	}
	seen, err := strconv.ParseUint(note, 10, 32)
	known := err == nil
	first := uint32(1)
	if known && !all {
		first = uint32(seen) + 1
	}
	for gen := first; gen <= last.Gen; gen++ {
		_, err := c.cfg.Meta.Generation(ctx, mirror, suite, gen)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		gens = append(gens, gen)
	}
	gens = gens[:max(len(gens)-c.cfg.Keep, 0)]
	if known || all {
		return gens, nil
	}
	// Compacting the earlier history takes hours, so it is only done on request.
	newest := uint32(0)
	if len(gens) > 0 {
		newest = gens[len(gens)-1]
	}
	return nil, c.note(ctx, mirror, suite, newest)
}

func (c *Compactor) note(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) error {
	return c.cfg.Meta.SetNote(ctx, noteOf(mirror, suite), strconv.FormatUint(uint64(gen), 10))
}

// series compacts generations of one suite, one after the other.
type series struct {
	*Compactor
	res     *Result
	proven  map[string]*meta.Group // the newest indices that this run has proven, by index
	recipes map[string]*recipe     // the last recipe that made the right bytes, by index
}

// generation compacts the indices of one generation.
func (s *series) generation(ctx context.Context, g *meta.Generation) error {
	held, err := s.cfg.Meta.GenerationHeld(ctx, g.Mirror, g.Suite, g.Gen, s.cfg.Now())
	if err != nil || held {
		return err
	}
	var signed map[string]repo.Listed
	for i := range g.Groups {
		gr := &g.Groups[i]
		if gr.Made != nil || len(recipesFor(gr.Variant.Path)) == 0 || gr.Variant.Path == gr.Index || gr.Plain.SHA256.IsZero() || gr.Variant.SHA256.IsZero() {
			continue
		}
		if signed == nil {
			if signed, err = s.cfg.Engine.Signed(ctx, g); err != nil {
				err = kept(ctx, err)
			}
			if errors.Is(err, errKeep) {
				s.cfg.Log.Warn("the indices of a generation are not compacted", "repo", g.Mirror, "suite", string(g.Suite), "generation", g.Gen, "err", err)
				return nil
			} else if err != nil {
				return err
			}
		}
		if signed[gr.Plain.Path].SHA256 != gr.Plain.SHA256 || signed[gr.Variant.Path].SHA256 != gr.Variant.SHA256 {
			continue // no client could verify an index that is made
		}
		if err := s.index(ctx, g, gr); err != nil {
			return fmt.Errorf("%s: %w", gr.Variant.Path, err)
		}
	}
	return nil
}

// index compacts one index, if a recipe makes its variant.
func (s *series) index(ctx context.Context, g *meta.Generation, gr *meta.Group) error {
	batch := s.cfg.Blobs.NewBatch()
	defer batch.Discard()
	made, size, err := s.prove(ctx, batch, g, gr)
	switch {
	case errors.Is(err, errKeep):
		s.cfg.Log.Info("an index is not compacted", "repo", g.Mirror, "suite", string(g.Suite), "generation", g.Gen, "path", gr.Variant.Path, "why", err.Error())
		return nil
	case err != nil:
		return err
	}
	done, err := s.cfg.Meta.CompactIndex(ctx, &meta.CompactIndex{
		Mirror: g.Mirror, Suite: g.Suite, Gen: g.Gen, Index: gr.Index, Variant: gr.Variant.SHA256, Made: *made,
	}, s.cfg.Now())
	if err != nil || !done {
		return err
	}
	gr.Made = made
	s.proven[gr.Index] = gr
	s.res.Indices++
	s.res.Bytes += gr.Variant.Size
	s.res.Order += size
	s.cfg.Log.Info("an index was compacted", "repo", g.Mirror, "suite", string(g.Suite), "generation", g.Gen, "path", gr.Variant.Path, "order", size)
	return nil
}

// errKeep means that a variant must be kept.
var errKeep = errclass.New(errclass.NotFound, "it cannot be made again")

// kept returns the error for an index whose blobs cannot be read: errKeep, unless the
// store did not answer.
func kept(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, errclass.Transient) {
		return err
	}
	return fmt.Errorf("%w: %w", errKeep, err)
}

// prove stores the order of an index, makes both variants from the stored order, and
// compares them with their digests. errKeep.
func (s *series) prove(ctx context.Context, batch cas.Batch, g *meta.Generation, gr *meta.Group) (*meta.Made, int64, error) {
	if s.bound > 0 && max(gr.Variant.Size, gr.Plain.Size) > s.bound {
		return nil, 0, fmt.Errorf("%w: %d bytes are more than the %d that are made (half the share of [store] cache)", errKeep, max(gr.Variant.Size, gr.Plain.Size), s.bound)
	}
	// The order that an earlier run has proven may be corrupt now, or the program may
	// have changed.
	if old := s.proven[gr.Index]; old != nil && old.Variant.SHA256 == gr.Variant.SHA256 && old.Plain.SHA256 == gr.Plain.SHA256 {
		return old.Made, 0, hold(ctx, batch, old.Made.Order)
	}
	store := s.storeText
	if gr.Packages {
		store = s.storeStanzas
	}
	made, size, err := store(ctx, batch, g, gr)
	if err != nil {
		return nil, 0, err
	}
	// From here on, only stored blobs are used.
	plain, err := openPlain(ctx, durable(s.cfg.Blobs), s.cfg.Meta, made.Order, !gr.Packages)
	if err != nil {
		return nil, 0, kept(ctx, err)
	}
	sum := sha256.New()
	if err := plain(ctx, sum); err != nil {
		return nil, 0, kept(ctx, err)
	}
	if got := cas.Digest(sum.Sum(nil)); got != gr.Plain.SHA256 {
		return nil, 0, fmt.Errorf("%w: the plain index would have SHA-256 %s, the signed root lists %s", errKeep, got, gr.Plain.SHA256)
	}
	r, err := s.recipe(ctx, gr, plain)
	if err != nil {
		return nil, 0, err
	}
	made.Recipe = r.name()
	made.Program, err = r.version(ctx)
	return made, size, err
}

// durable returns the store without its cache, so that stored blobs and not copies are
// read.
func durable(s cas.Reader) cas.Reader {
	if c, ok := s.(cas.Cache); ok {
		return c.Stored()
	}
	return s
}

// recipe finds the recipe that makes the stored variant. errKeep.
func (s *series) recipe(ctx context.Context, gr *meta.Group, plain func(context.Context, io.Writer) error) (*recipe, error) {
	try := recipesFor(gr.Variant.Path)
	if last := s.recipes[gr.Index]; last != nil {
		try = append([]*recipe{last}, try...)
	}
	var failed error
	for i, r := range try {
		if i > 0 && r == try[0] {
			continue
		}
		same, err := s.makes(ctx, r, gr, plain)
		if same {
			s.recipes[gr.Index] = r
			return r, nil
		}
		if err != nil && !errors.Is(err, ErrRecipe) {
			return nil, err
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return nil, fmt.Errorf("%w: %w", errKeep, failed)
	}
	return nil, fmt.Errorf("%w: none of %d recipes makes %s", errKeep, len(try), gr.Variant.Path)
}

// makes reports whether a recipe makes the stored variant, byte for byte.
func (s *series) makes(ctx context.Context, r *recipe, gr *meta.Group, plain func(context.Context, io.Writer) error) (bool, error) {
	b, err := s.cfg.Blobs.Open(ctx, gr.Variant.SHA256)
	if err != nil {
		return false, err
	}
	defer b.Close()
	p, err := r.run(ctx, plain)
	if err != nil {
		return false, err
	}
	defer p.Close()
	sum := sha256.New()
	same, err := equal(b, p, sum)
	if err != nil || !same {
		return false, err
	}
	return cas.Digest(sum.Sum(nil)) == gr.Variant.SHA256, nil
}

// equal compares two streams until they differ, and hashes the second.
func equal(a, b io.Reader, sum hash.Hash) (bool, error) {
	left, right := bufio.NewReaderSize(a, 64<<10), make([]byte, 64<<10)
	want := make([]byte, len(right))
	for {
		n, err := b.Read(right)
		sum.Write(right[:n])
		if _, rerr := io.ReadFull(left, want[:n]); rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			return false, nil
		} else if rerr != nil {
			return false, rerr
		}
		if string(want[:n]) != string(right[:n]) {
			return false, nil
		}
		switch {
		case err == io.EOF:
			_, rerr := left.ReadByte()
			return rerr == io.EOF, nil
		case err != nil:
			return false, err
		}
	}
}

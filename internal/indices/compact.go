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

// CompactorMeta is the metadata that a Compactor reads and writes.
type CompactorMeta interface {
	meta.Indices
	Stanzas
	Generation(ctx context.Context, mirror string, suite repo.SuiteName, gen uint32) (*meta.Generation, error)
	LastGeneration(ctx context.Context, mirror string, suite repo.SuiteName) (*meta.Generation, error)
	Packages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
	UnusablePackages(ctx context.Context, s *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
	Note(ctx context.Context, name string) (string, error)
	SetNote(ctx context.Context, name, value string) error
}

// Engine is what a Compactor needs of the parts around it.
type Engine interface {
	// Signed returns what the root of a generation lists, verified again, by path.
	Signed(ctx context.Context, g *meta.Generation) (map[string]repo.Listed, error)
	// Decode returns a reader of the plain content of a compression variant.
	Decode(g *meta.Generation, form string, r io.Reader) (io.ReadCloser, error)
	// Flush makes a batch durable.
	Flush(ctx context.Context, batch cas.Batch) error
}

// CompactorConfig are the parts of a Compactor.
type CompactorConfig struct {
	Meta   CompactorMeta
	Blobs  cas.Store // where blobs are stored
	Engine Engine
	Keep   int // the newest generations of each suite keep their indices
	Log    *slog.Logger
	Now    func() time.Time
}

// Compactor lets old generations give up their compressed indices.
type Compactor struct {
	cfg   CompactorConfig
	bound int64 // bytes of the largest index that can be made again; 0: any
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

// Result counts what a compaction did.
type Result struct {
	Indices int   // that are made from now on
	Bytes   int64 // of their variants
	Order   int64 // bytes of their orders
}

// Run compacts the generations of a suite, the oldest first. Without all it goes on
// where the last run ended, and the first run only notes where that is: a generation
// that is older, or had to keep an index, is not looked at again. What is done stays done when it is cut short.
func (c *Compactor) Run(ctx context.Context, mirror string, suite repo.SuiteName, all bool, res *Result) error {
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

// noteOf names the note of the newest generation that was looked at.
func noteOf(mirror string, suite repo.SuiteName) string {
	return "compacted." + mirror + " " + string(suite)
}

// old lists the generations that may be compacted, the oldest first.
func (c *Compactor) old(ctx context.Context, mirror string, suite repo.SuiteName, all bool) (gens []uint32, err error) {
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
	// The history of before takes hours: only when asked.
	newest := uint32(0)
	if len(gens) > 0 {
		newest = gens[len(gens)-1]
	}
	return nil, c.note(ctx, mirror, suite, newest)
}

func (c *Compactor) note(ctx context.Context, mirror string, suite repo.SuiteName, gen uint32) error {
	return c.cfg.Meta.SetNote(ctx, noteOf(mirror, suite), strconv.FormatUint(uint64(gen), 10))
}

// series compacts generations of one suite, one after the other.
type series struct {
	*Compactor
	res     *Result
	proven  map[string]*meta.Group // by this run, the newest, by index
	recipes map[string]*recipe     // that was right last, by index
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
		if gr.Made != nil || len(recipesFor(gr.Form.Path)) == 0 || gr.Form.Path == gr.Index || gr.Plain.SHA256.IsZero() || gr.Form.SHA256.IsZero() {
			continue
		}
		if signed == nil {
			if signed, err = s.cfg.Engine.Signed(ctx, g); err != nil {
				err = kept(ctx, err)
			}
			if errors.Is(err, errKeep) {
				s.cfg.Log.Warn("the indices of a generation stay", "repo", g.Mirror, "suite", string(g.Suite), "generation", g.Gen, "err", err)
				return nil
			} else if err != nil {
				return err
			}
		}
		if signed[gr.Plain.Path].SHA256 != gr.Plain.SHA256 || signed[gr.Form.Path].SHA256 != gr.Form.SHA256 {
			continue // no client could verify what is made
		}
		if err := s.index(ctx, g, gr); err != nil {
			return fmt.Errorf("%s: %w", gr.Form.Path, err)
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
		s.cfg.Log.Info("an index stays", "repo", g.Mirror, "suite", string(g.Suite), "generation", g.Gen, "path", gr.Form.Path, "why", err.Error())
		return nil
	case err != nil:
		return err
	}
	done, err := s.cfg.Meta.CompactIndex(ctx, &meta.CompactIndex{
		Mirror: g.Mirror, Suite: g.Suite, Gen: g.Gen, Index: gr.Index, Form: gr.Form.SHA256, Made: *made,
	}, s.cfg.Now())
	if err != nil || !done {
		return err
	}
	gr.Made = made
	s.proven[gr.Index] = gr
	s.res.Indices++
	s.res.Bytes += gr.Form.Size
	s.res.Order += size
	s.cfg.Log.Info("an index is made from stanzas from now on", "repo", g.Mirror, "suite", string(g.Suite), "generation", g.Gen, "path", gr.Form.Path, "order", size)
	return nil
}

// errKeep means that a variant has to be kept.
var errKeep = errclass.New(errclass.NotFound, "it cannot be made again")

// kept is the error for an index whose blobs cannot be read: it stays as it is, unless
// the store could not be asked.
func kept(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, errclass.Transient) {
		return err
	}
	return fmt.Errorf("%w: %w", errKeep, err)
}

// prove stores the order of an index, makes both variants from what it has stored, and
// compares them with their digests. errKeep.
func (s *series) prove(ctx context.Context, batch cas.Batch, g *meta.Generation, gr *meta.Group) (*meta.Made, int64, error) {
	if s.bound > 0 && max(gr.Form.Size, gr.Plain.Size) > s.bound {
		return nil, 0, fmt.Errorf("%w: %d bytes are more than the %d that are made (half the share of [store] cache)", errKeep, max(gr.Form.Size, gr.Plain.Size), s.bound)
	}
	// What an earlier run has proven may have rotted, or the program may be another.
	if old := s.proven[gr.Index]; old != nil && old.Form.SHA256 == gr.Form.SHA256 && old.Plain.SHA256 == gr.Plain.SHA256 {
		return old.Made, 0, hold(ctx, batch, old.Made.Order)
	}
	var known map[[16]byte]meta.PID
	if gr.Packages {
		var err error
		if known, err = s.stanzas(ctx, g, gr.Index); err != nil {
			return nil, 0, err
		}
	}
	pieces, err := s.cutIndex(ctx, g, gr, known)
	if err != nil {
		return nil, 0, kept(ctx, err)
	}
	made, size, err := s.store(ctx, batch, g, gr, pieces)
	if err != nil {
		return nil, 0, err
	}
	// From here on only what is stored counts.
	again, err := loadOrder(ctx, durable(s.cfg.Blobs), made.Order)
	if err != nil {
		return nil, 0, kept(ctx, err)
	}
	plain := func(ctx context.Context, w io.Writer) error { return writePlain(ctx, w, s.cfg.Meta, again) }
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

// hold keeps the blobs of an order. errKeep.
func hold(ctx context.Context, batch cas.Batch, order []cas.Digest) error {
	for _, d := range order {
		if _, err := batch.Hold(ctx, d); err != nil {
			return kept(ctx, err)
		}
	}
	return nil
}

// durable is where the blobs of a store are stored, not copies of them.
func durable(s cas.Reader) cas.Reader {
	if c, ok := s.(cas.Cache); ok {
		return c.Stored()
	}
	return s
}

// stanzas finds the stanzas of an index of a generation by the first half of their
// SHA-256.
func (s *series) stanzas(ctx context.Context, g *meta.Generation, index string) (map[[16]byte]meta.PID, error) {
	known := map[[16]byte]meta.PID{}
	snap := &meta.Snapshot{Mirror: g.Mirror, Suites: []meta.SnapshotSuite{{Suite: g.Suite, Gen: g.Gen, Date: g.Date}}}
	for _, list := range []func(context.Context, *meta.Snapshot, []byte, int) ([]meta.Entry, []byte, error){s.cfg.Meta.Packages, s.cfg.Meta.UnusablePackages} {
		var after []byte
		for {
			page, next, err := list(ctx, snap, after, 2000)
			if err != nil {
				return nil, err
			}
			for _, e := range page {
				for _, p := range e.Places {
					if p.Suite == g.Suite && p.Index == index {
						known[e.Digest] = e.PID
					}
				}
			}
			if after = next; after == nil {
				break
			}
		}
	}
	return known, nil
}

// cutIndex cuts the stored variant of an index into pieces.
func (s *series) cutIndex(ctx context.Context, g *meta.Generation, gr *meta.Group, known map[[16]byte]meta.PID) (pieces []piece, err error) {
	b, err := s.cfg.Blobs.Open(ctx, gr.Form.SHA256)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	r, err := s.cfg.Engine.Decode(g, gr.Form.Path, bufio.NewReaderSize(b, 256<<10))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	literal := int64(0)
	emit := func(p piece) error {
		pieces = append(pieces, p)
		if literal += int64(len(p.text)); literal > maxLiteral || len(pieces) > maxPieces {
			return fmt.Errorf("%w: more than %d bytes of it are in no stanza", errKeep, literal)
		}
		return nil
	}
	plain := io.LimitReader(r, gr.Plain.Size+1)
	if gr.Packages {
		err = (&cutter{r: plain, known: known, emit: emit}).run()
	} else {
		err = cutText(plain, emit)
	}
	if err != nil {
		return nil, err
	}
	return pieces, nil
}

// store stores the order of an index.
func (s *series) store(ctx context.Context, batch cas.Batch, g *meta.Generation, gr *meta.Group, pieces []piece) (*meta.Made, int64, error) {
	base, err := s.base(ctx, g, gr)
	if err != nil {
		return nil, 0, err
	}
	var old []piece
	var below cas.Digest
	if len(base) > 0 {
		if err = hold(ctx, batch, base); err == nil {
			if old, err = loadOrder(ctx, s.cfg.Blobs, base); err != nil {
				err = kept(ctx, err)
			}
		}
		switch {
		case err == nil:
			below = base[0]
		case errors.Is(err, errKeep):
			base, old = nil, nil // it is lost: this one is a difference to none
		default:
			return nil, 0, err
		}
	}
	blob, err := writeOrder(below, old, pieces)
	if err != nil {
		return nil, 0, err
	}
	info, err := cas.PutBatch(ctx, batch, blob, g.Date)
	if err == nil {
		err = s.cfg.Engine.Flush(ctx, batch)
	}
	if err != nil {
		return nil, 0, err
	}
	return &meta.Made{Order: append([]cas.Digest{info.Digest}, base...)}, info.Size, nil
}

// base chooses the orders that the next one is a difference to. A generation refers to
// all that its own rests on, so they stay when the generations that they were made for
// are collected, and the chain must be short: generation g is a difference to the one
// without the lowest bit of g, or the newest before that. The order of an index without
// stanzas has all its text, so there is only one that is not a difference.
func (s *series) base(ctx context.Context, g *meta.Generation, gr *meta.Group) ([]cas.Digest, error) {
	first := g.Gen & (g.Gen - 1)
	if first == 0 && !gr.Packages {
		first = g.Gen / 2
	}
	for gen := first; gen > 0; gen-- {
		old, err := s.cfg.Meta.Generation(ctx, g.Mirror, g.Suite, gen)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		for i := range old.Groups {
			if m := old.Groups[i].Made; m != nil && old.Groups[i].Index == gr.Index && len(m.Order) < maxChain {
				return m.Order, nil
			}
		}
	}
	return nil, nil
}

// recipe finds the recipe that makes the stored variant. errKeep.
func (s *series) recipe(ctx context.Context, gr *meta.Group, plain func(context.Context, io.Writer) error) (*recipe, error) {
	try := recipesFor(gr.Form.Path)
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
	return nil, fmt.Errorf("%w: none of %d recipes makes %s", errKeep, len(try), gr.Form.Path)
}

// makes reports whether a recipe makes the stored variant, byte for byte.
func (s *series) makes(ctx context.Context, r *recipe, gr *meta.Group, plain func(context.Context, io.Writer) error) (bool, error) {
	b, err := s.cfg.Blobs.Open(ctx, gr.Form.SHA256)
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
	return cas.Digest(sum.Sum(nil)) == gr.Form.SHA256, nil
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

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/sign"
)

// raceResult counts the work done while garbage was collected.
type raceResult struct {
	Rounds      int64
	Freezes     int64
	Imports     int64
	Recordings  int64
	Images      int64
	Kits        int64
	Statements  int64
	Syncs       int64
	Fscks       int64
	Removals    int64
	Refused     int64 // freezes whose snapshot or base was removed in the meantime
	Collections int64
	Verified    int64 // freezes, with every byte
	Checks      int   // checks of everything, while no other work was running
}

func (r raceResult) String() string {
	return fmt.Sprintf("%d rounds beside %d collections: %d freezes (%d refused because their base or snapshot was removed meanwhile), %d imports, %d recordings, %d images, %d statements, %d kits, %d syncs, %d fscks, %d removals; %d freezes verified with every byte, everything checked %d times",
		r.Rounds, r.Collections, r.Freezes, r.Refused, r.Imports, r.Recordings, r.Images, r.Statements, r.Kits, r.Syncs, r.Fscks, r.Removals, r.Verified, r.Checks)
}

// racer does rounds of work while garbage is collected without any grace period:
// collections empty the quarantine immediately, and remove even the newest blobs.
type racer struct {
	s       *system
	later   *freezer.Freezer // with the next signing key
	dir     string           // for images, kits and exports
	exports []string
	left    atomic.Int64 // rounds before the next check
	seed    uint64
	names   atomic.Int64 // for names of freezes; the name of a removed one is not used again
	pinned  string       // the snapshot of the shared freezes

	res raceResult
}

const (
	raceWorkers = 3
	// raceCheck is the number of rounds between two checks of everything.
	raceCheck = 25
	// raceContents is the number of different images and kits.
	raceContents = 3
)

// races does rounds of freezes, imports, recordings, images, statements, kits, syncs and
// removals while garbage is collected continuously. After each round it verifies every
// byte of what was published. Freezes share their contents, and removed contents are
// published again, so that a blob to which a worker is about to refer is often a
// collection candidate already.
func races(ctx context.Context, tb testing.TB, signer, later *sign.Signer, seed uint64, rounds int) (raceResult, error) {
	tmp := fastDir(tb)
	now := time.Now().UTC().Truncate(time.Second)
	u := newUpstream(tb, now.Add(-time.Hour))
	s := &system{dir: filepath.Join(tmp, "data"), mirrors: u.sites().all(5 * time.Hour), signer: signer, now: now}
	if err := s.open(); err != nil {
		return raceResult{}, err
	}
	defer s.close()
	r := &racer{
		s: s, dir: tmp, seed: seed,
		later: freezer.New(freezer.Config{Formats: s.parts.Formats(), Catalog: s.parts.Catalog, Acquirer: s.parts.Acquirer, Meta: s.logged, Blobs: s.blobs, Signer: later, PublicURL: "http://snapd.example.org", Now: func() time.Time { return s.now }}),
	}
	err := r.run(ctx, u, rounds)
	if err != nil {
		err = fmt.Errorf("seed %d: after %d rounds: %w", seed, r.res.Rounds, err)
	}
	return r.res, err
}

func (r *racer) run(ctx context.Context, u *upstream, rounds int) error {
	s := r.s
	for _, m := range s.mirrors {
		if err := s.sync(ctx, string(m.Name)); err != nil {
			return err
		}
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(r.seed, 0))
	for done := 0; done < rounds; {
		n := min(raceCheck, rounds-done)
		if err := r.phase(ctx, n, uint64(done)); err != nil {
			return err
		}
		done += n
		if _, err := s.check(ctx); err != nil {
			return fmt.Errorf("while no other work was running: %w", err)
		}
		r.res.Checks++
		u.upgrade(packageNames[rnd.IntN(len(packageNames))])
		s.now = s.now.Add(time.Hour)
	}
	if err := s.call(ctx, "unpin", api.PinRequest{Ref: r.pinned}); err != nil {
		return err
	}
	return r.empty(ctx)
}

// prepare writes the images and kits, and exports the freezes to import.
func (r *racer) prepare(ctx context.Context) error {
	for i := range raceContents {
		for _, kind := range []string{"image", "kit"} {
			if err := os.WriteFile(r.file(kind, i), fmt.Appendf(nil, "%s %d", kind, i), 0o600); err != nil {
				return err
			}
		}
	}
	snap, err := r.s.parts.ResolveSnapshot(ctx, "debian")
	if err != nil {
		return err
	}
	r.pinned = snap.ID()
	if err := r.s.call(ctx, "pin", api.PinRequest{Ref: r.pinned}); err != nil {
		return err
	}
	for i := range raceWorkers {
		name := fmt.Sprint("import", i)
		if err := r.s.freeze(ctx, api.FreezeRequest{Name: name, Mirrors: []string{"debian", "fedora"}, Packages: []string{"alpha", "beta"}}); err != nil {
			return err
		}
		dir := filepath.Join(r.dir, name)
		if _, err := r.s.freezer.Export(ctx, name, dir, nil); err != nil {
			return err
		}
		if err := r.remove(ctx, name); err != nil {
			return err
		}
		r.exports = append(r.exports, dir)
	}
	return nil
}

func (r *racer) file(kind string, n int) string {
	return filepath.Join(r.dir, fmt.Sprint(kind, n%raceContents))
}

// phase does n rounds on several workers while garbage is collected without a pause.
func (r *racer) phase(ctx context.Context, n int, phase uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.left.Store(int64(n))
	var collector, workers sync.WaitGroup
	stop := make(chan struct{})
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := r.s.collect(ctx); err != nil {
				cancel(fmt.Errorf("gc: %w", err))
				return
			}
			atomic.AddInt64(&r.res.Collections, 1)
		}
	})
	for i := range raceWorkers {
		w := &raceWorker{racer: r, n: i, rnd: rand.New(rand.NewPCG(r.seed, 1+phase*raceWorkers+uint64(i)))}
		workers.Go(func() {
			for ctx.Err() == nil && r.left.Add(-1) >= 0 {
				if err := w.round(ctx); err != nil {
					cancel(fmt.Errorf("worker %d: %w", w.n, err))
				}
				atomic.AddInt64(&r.res.Rounds, 1)
			}
		})
	}
	workers.Wait()
	close(stop)
	collector.Wait()
	return context.Cause(ctx)
}

// empty removes everything except the newest snapshots and the kits.
func (r *racer) empty(ctx context.Context) error {
	all, err := r.s.store.Freezes(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		if err := r.remove(ctx, string(f.Name)); err != nil {
			return err
		}
	}
	r.s.now = r.s.now.Add(48 * time.Hour)
	return r.s.checkedGC(ctx, nil)
}

func (r *racer) remove(ctx context.Context, name string) error {
	atomic.AddInt64(&r.res.Removals, 1)
	return r.s.call(ctx, "rm", api.RefRequest{Ref: name})
}

// raceWorker does one round after the other, with its own and with shared freezes.
type raceWorker struct {
	*racer
	n   int
	rnd *rand.Rand
}

// sharedNames are the freezes that all workers make and remove. Each always has the same
// contents.
var sharedNames = []string{"shared-1", "shared-2"}

// round makes a freeze, adds files to it, verifies it and removes it.
func (w *raceWorker) round(ctx context.Context) error {
	if err := w.beside(ctx); err != nil {
		return err
	}
	name, err := w.publish(ctx)
	if err != nil || name == "" {
		return err
	}
	for _, add := range []func(context.Context, string) error{w.image, w.vouch, w.kit} {
		if w.rnd.IntN(3) > 0 {
			continue
		}
		if err := add(ctx, name); err != nil {
			return err
		}
	}
	if err := w.prove(ctx, name); err != nil {
		return err
	}
	return w.remove(ctx, name)
}

// beside does other work: syncs, shared freezes, removals, fsck.
func (w *raceWorker) beside(ctx context.Context) error {
	switch w.rnd.IntN(8) {
	case 0:
		m := w.s.mirrors[w.rnd.IntN(len(w.s.mirrors))].Name
		atomic.AddInt64(&w.res.Syncs, 1)
		if _, err := w.s.parts.Sync(ctx, m, mirror.SyncOptions{}); err != nil {
			return fmt.Errorf("sync %s: %w", m, err)
		}
	case 1, 2:
		// Other workers may be making or removing the same freeze.
		i := w.rnd.IntN(len(sharedNames))
		err := w.s.freeze(ctx, api.FreezeRequest{Name: sharedNames[i], Mirrors: []string{w.pinned}, Packages: packageNames[:1+i]})
		if err != nil && !errors.Is(err, freeze.ErrBusy) && !removed(err) {
			return fmt.Errorf("freeze %s: %w", sharedNames[i], err)
		}
	case 3, 4:
		name := sharedNames[w.rnd.IntN(len(sharedNames))]
		if err := w.s.call(ctx, "rm", api.RefRequest{Ref: name}); err != nil && !removed(err) {
			return fmt.Errorf("rm %s: %w", name, err)
		}
	case 5:
		atomic.AddInt64(&w.res.Fscks, 1)
		res, err := w.s.collector.Fsck(ctx, &api.FsckRequest{Repair: w.rnd.IntN(2) == 0}, w.s.client, nil)
		if err != nil {
			return fmt.Errorf("fsck: %w", err)
		}
		if len(res.Faults)+len(res.Repaired) > 0 {
			return fmt.Errorf("fsck reports faults in an intact store: %+v", res)
		}
	}
	return nil
}

// removed reports whether an error means that a freeze, or a snapshot with its
// contents, was removed.
func removed(err error) bool {
	return errors.Is(err, meta.ErrNotFound) || errors.Is(err, meta.ErrGone) || errors.Is(err, cas.ErrNotFound) || gone(err)
}

// publish makes a freeze in one of the possible ways. The name is empty if the base or
// snapshot for it was removed in the meantime.
func (w *raceWorker) publish(ctx context.Context) (name string, err error) {
	name = fmt.Sprintf("w%d-%d", w.n, w.names.Add(1))
	switch w.rnd.IntN(6) {
	case 0:
		atomic.AddInt64(&w.res.Imports, 1)
		_, err = w.s.freezer.Import(ctx, &api.ImportRequest{Dir: w.exports[w.n]}, nil)
		return filepath.Base(w.exports[w.n]), err
	case 1:
		return name, w.record(ctx, name)
	case 2:
		err = w.freezeLatest(ctx, api.FreezeRequest{Name: name, Mirrors: []string{[]string{"debian", "fedora"}[w.rnd.IntN(2)]}})
	case 3:
		base := "b" + name
		if err := w.freezeLatest(ctx, api.FreezeRequest{Name: base, Mirrors: []string{"debian"}, Packages: []string{"alpha", "gamma"}}); err != nil {
			return "", err
		}
		rm := make(chan error, 1)
		go func() { rm <- w.remove(ctx, base) }()
		err = w.freeze(ctx, api.FreezeRequest{Name: name, Base: base, Remove: []string{"gamma"}, AllowBroken: true})
		if rerr := <-rm; rerr != nil {
			return "", fmt.Errorf("rm %s: %w", base, rerr)
		}
		if err != nil && removed(err) {
			atomic.AddInt64(&w.res.Refused, 1)
			return "", nil
		}
	default:
		some := slices.Clone(packageNames)
		w.rnd.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		err = w.freezeLatest(ctx, api.FreezeRequest{Name: name, Mirrors: []string{"debian", "fedora"}, Packages: some[:1+w.rnd.IntN(2)]})
	}
	return name, err
}

// freezeLatest freezes the newest snapshots. A snapshot can be removed as soon as there
// is a newer one, and freezeLatest then tries again.
func (w *raceWorker) freezeLatest(ctx context.Context, req api.FreezeRequest) error {
	err := w.freeze(ctx, req)
	if err != nil && removed(err) {
		atomic.AddInt64(&w.res.Refused, 1)
		err = w.freeze(ctx, req)
	}
	return err
}

func (w *raceWorker) freeze(ctx context.Context, req api.FreezeRequest) error {
	atomic.AddInt64(&w.res.Freezes, 1)
	if err := w.s.freeze(ctx, req); err != nil {
		return fmt.Errorf("freeze %s: %w", req.Name, err)
	}
	return nil
}

// record records some packages of the lazy mirror, and freezes the recording.
func (w *raceWorker) record(ctx context.Context, name string) error {
	atomic.AddInt64(&w.res.Recordings, 1)
	if err := w.s.record(ctx, name, packageNames[w.rnd.IntN(len(packageNames))]); err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	if err := w.freeze(ctx, api.FreezeRequest{Name: name}); err != nil { // the recording keeps its snapshots
		return err
	}
	return w.s.call(ctx, "record/rm", api.RecordRef{Name: name})
}

func (w *raceWorker) image(ctx context.Context, name string) error {
	atomic.AddInt64(&w.res.Images, 1)
	f, err := os.Open(w.file("image", w.rnd.IntN(raceContents)))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := w.s.freezer.AddImage(ctx, &api.ImageAdd{Name: name}, f); err != nil {
		return fmt.Errorf("image of %s: %w", name, err)
	}
	return nil
}

// vouch signs all freezes with the next key, while other workers remove theirs.
func (w *raceWorker) vouch(ctx context.Context, _ string) error {
	n, err := w.later.Vouch(ctx)
	atomic.AddInt64(&w.res.Statements, int64(n))
	if err != nil && !removed(err) {
		return fmt.Errorf("vouch: %w", err)
	}
	return nil
}

// kit publishes one of a few files, whose contents other workers publish, too.
func (w *raceWorker) kit(ctx context.Context, _ string) error {
	atomic.AddInt64(&w.res.Kits, 1)
	path := fmt.Sprint("kit", w.n)
	file := w.file("kit", w.rnd.IntN(raceContents))
	if err := w.s.publish(ctx, file, path); err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	status, body, err := w.s.get(ctx, "/iuk/"+path)
	if err != nil || status != 200 || string(body) != string(want) {
		return fmt.Errorf("kit %s: status %d, %q, expected %q: %v", path, status, body, want, err)
	}
	return nil
}

// prove verifies every byte of a freeze, and checks that each blob to which it refers
// exists.
func (w *raceWorker) prove(ctx context.Context, name string) error {
	v, err := w.s.freezer.Verify(ctx, &api.VerifyRequest{Ref: name, Deep: true}, nil)
	if err != nil {
		return fmt.Errorf("verify %s: %w", name, err)
	}
	for _, f := range v.Faults {
		err = errors.Join(err, fmt.Errorf("verify %s: %s: %s (expected %s, found %s)", name, f.Object, f.Message, f.Expected, f.Found))
	}
	blobs, berr := w.s.blobsOf(ctx, name)
	err = errors.Join(err, berr)
	for _, d := range blobs {
		if cerr := cas.Check(ctx, w.s.blobs, d); cerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, cerr))
		}
	}
	atomic.AddInt64(&w.res.Verified, 1)
	return err
}

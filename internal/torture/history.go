package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/sign"
)

// history does random operations on a system, with garbage collections between
// them. It checks after each collection that nothing reachable is missing, and after
// two in a row that nothing unreachable is left. The same seed gives the same
// operations. Long because the order of its steps is the test.
func history(ctx context.Context, tb testing.TB, signer *sign.Signer, seed uint64, length int) (ops map[string]int, err error) {
	r := rand.New(rand.NewPCG(seed, 1))
	dir := fastDir(tb)
	date := time.Now().UTC().Truncate(time.Second).Add(-48 * time.Hour)
	u := newUpstream(tb, date)
	s := &system{dir: filepath.Join(dir, "data"), mirrors: u.sites().all(5 * time.Hour), signer: signer, now: date.Add(time.Minute)}
	if err := s.open(); err != nil {
		return nil, err
	}
	defer func() { s.close() }()
	ops = map[string]int{}
	var log []string
	defer func() {
		if err != nil {
			err = fmt.Errorf("seed %d: after %v: %w", seed, log, err)
		}
	}()
	frozen := map[string]bool{}
	exports := map[string]string{}
	recordings := map[string]bool{}
	serial := 0
	pick := func(m map[string]bool) string {
		names := slices.Sorted(maps.Keys(m))
		if len(names) == 0 {
			return ""
		}
		return names[r.IntN(len(names))]
	}
	mirrorName := func() string { return string(s.mirrors[r.IntN(len(s.mirrors))].Name) }
	some := func() []string {
		names := slices.Clone(packageNames)
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		return names[:1+r.IntN(3)]
	}
	snapshot := func() (*meta.Snapshot, error) {
		snaps, err := s.store.SnapshotsBefore(ctx, meta.MirrorName(mirrorName()), time.Time{}, 0)
		if err != nil || len(snaps) == 0 {
			return nil, err
		}
		return snaps[r.IntN(len(snaps))], nil
	}
	// refused reports whether the operation was rightly refused in this state.
	refused := func(err error) bool {
		var e *api.Error
		return errors.Is(err, meta.ErrExists) || errors.Is(err, meta.ErrNotFound) || errors.Is(err, meta.ErrGone) ||
			gone(err) || errors.As(err, &e) && (e.Code == api.CodeInUse || e.Code == api.CodeExists)
	}
	for _, m := range s.mirrors {
		if err := s.sync(ctx, string(m.Name)); err != nil {
			return ops, err
		}
	}
	for range length {
		s.now = s.now.Add(time.Duration(1+r.IntN(90)) * time.Minute)
		op := []string{
			"upgrade+sync", "upgrade+sync", "upgrade+sync", "sync", "freeze exact", "freeze whole", "freeze lazy", "rm frozen", "rm snapshot",
			"pin", "unpin", "record", "record rm", "gc", "gc", "export", "import", "restart", "on demand",
		}[r.IntN(19)]
		ops[op]++
		log = append(log, op)
		var err error
		switch op {
		case "upgrade+sync":
			u.upgrade(some()...)
			for _, m := range s.mirrors {
				if r.IntN(3) > 0 {
					err = errors.Join(err, s.sync(ctx, string(m.Name)))
				}
			}
		case "sync":
			err = s.sync(ctx, mirrorName())
		case "freeze exact", "freeze whole", "freeze lazy":
			serial++
			name := fmt.Sprint("f", serial)
			var snap *meta.Snapshot
			if snap, err = snapshot(); err != nil || snap == nil {
				break
			}
			req := api.FreezeRequest{Name: name, Mirrors: []string{string(snap.Mirror) + "@" + meta.FormatTimestamp(snap.Timestamp)}, AllowMissing: true}
			if op == "freeze exact" {
				req.Packages = some()
			} else {
				req.All = true
			}
			// Upstream removes old packages, so a mirror that never downloaded them
			// cannot get them.
			if err = s.freeze(ctx, req); err == nil {
				frozen[name] = true
			} else if snap.Mirror == "lazy" {
				log[len(log)-1] += " (refused)"
				err = nil
			}
		case "rm frozen":
			if name := pick(frozen); name != "" {
				err = s.call(ctx, "rm", api.RefRequest{Ref: name})
				delete(frozen, name)
			}
		case "rm snapshot", "pin", "unpin":
			var snap *meta.Snapshot
			if snap, err = snapshot(); err != nil || snap == nil {
				break
			}
			switch op {
			case "pin":
				req := api.PinRequest{Ref: snap.ID()}
				if r.IntN(2) == 0 {
					until := s.now.Add(time.Duration(1+r.IntN(12)) * time.Hour)
					req.Until = &until
				}
				err = s.call(ctx, "pin", req)
			case "unpin":
				err = s.call(ctx, "unpin", api.PinRequest{Ref: snap.ID()})
			default:
				err = s.call(ctx, "rm", api.RefRequest{Ref: snap.ID()})
			}
		case "record":
			serial++
			name := fmt.Sprint("r", serial)
			if err = s.record(ctx, name, some()...); err == nil {
				recordings[name] = true
			} else if errors.Is(err, errStatus) {
				err = nil // an old package of the lazy mirror
				recordings[name] = true
			}
		case "record rm":
			if name := pick(recordings); name != "" {
				err = s.call(ctx, "record/rm", api.RecordRef{Name: name})
				delete(recordings, name)
			}
		case "export":
			if name := pick(frozen); name != "" && exports[name] == "" {
				to := filepath.Join(dir, "export-"+name)
				if _, err = s.freezer.Export(ctx, name, to, nil); err == nil {
					exports[name] = to
				}
			}
		case "import":
			// This includes freezes that were removed after their export.
			for _, name := range slices.Sorted(maps.Keys(exports)) {
				if _, err = s.freezer.Import(ctx, &api.ImportRequest{Dir: exports[name]}, nil); err != nil {
					break
				}
				frozen[name] = true
			}
		case "restart":
			s.close()
			err = s.open()
		case "on demand":
			// Request files that a sync does not download.
			for _, p := range []string{"dists/stable/main/binary-amd64/Packages.gz", "dists/stable/main/binary-amd64/Packages"} {
				if _, _, gerr := s.get(ctx, "/archive/"+mirrorName()+"/latest/"+p); gerr != nil {
					err = gerr
				}
			}
		case "gc":
			err = s.checkedGC(ctx, frozen)
		}
		if err != nil && !refused(err) {
			return ops, err
		}
	}
	log = append(log, "gc")
	ops["gc"]++
	if err := s.checkedGC(ctx, frozen); err != nil {
		return ops, err
	}
	// Without freezes and recordings, two collections remove all snapshots but the newest,
	// and their blobs.
	for name := range frozen {
		if err := s.call(ctx, "rm", api.RefRequest{Ref: name}); err != nil {
			return ops, err
		}
	}
	for name := range recordings {
		if err := s.call(ctx, "record/rm", api.RecordRef{Name: name}); err != nil {
			return ops, err
		}
	}
	s.now = s.now.Add(48 * time.Hour)
	log = append(log, "nothing held", "gc")
	return ops, errors.Join(s.checkedGC(ctx, nil), os.RemoveAll(s.dir))
}

// checkedGC collects garbage twice and checks the result.
func (s *system) checkedGC(ctx context.Context, frozen map[string]bool) error {
	for range 2 {
		if err := s.collect(ctx); err != nil {
			return fmt.Errorf("gc: %w", err)
		}
		if _, err := s.check(ctx); err != nil {
			return fmt.Errorf("after gc: %w", err)
		}
	}
	for name := range frozen {
		if _, err := s.freezer.Describe(ctx, meta.FreezeName(name)); err != nil {
			return fmt.Errorf("after gc: %w", err)
		}
	}
	left, err := s.orphans(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d unreferenced blobs are left after two collections: %v", len(left), left)
	}
	return s.spare(ctx)
}

// spare returns an error if there is unreferenced metadata.
func (s *system) spare(ctx context.Context) error {
	p, err := s.store.PreviewCollection(ctx, nil, s.now, s.now, func(string) bool { return false })
	if err != nil {
		return err
	}
	if p.Generations > 0 {
		return fmt.Errorf("%d unreferenced generations are left", p.Generations)
	}
	trees, err := s.store.OrphanTrees(ctx)
	if err == nil && len(trees) > 0 {
		err = fmt.Errorf("trees that belong to no freeze are left: %v", trees)
	}
	return err
}

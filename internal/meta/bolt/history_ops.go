package bolt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// answers calls f for each question.
func answers[Q, A any](questions []Q, f func(Q) (A, error)) ([]A, error) {
	out := make([]A, len(questions))
	for i, q := range questions {
		var err error
		if out[i], err = f(q); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// PackagesByName implements meta.History.
func (s *Store) PackagesByName(ctx context.Context, snap *meta.Snapshot, names []string) ([][]meta.Entry, error) {
	return ask(ctx, s, func(tx *txn) ([][]meta.Entry, error) {
		return answers(names, func(name string) ([]meta.Entry, error) { return tx.namedAt(snap, name) })
	})
}

// PackagesByDigest implements meta.History.
func (s *Store) PackagesByDigest(ctx context.Context, snap *meta.Snapshot, digests []cas.Digest) ([][]meta.Entry, error) {
	return ask(ctx, s, func(tx *txn) ([][]meta.Entry, error) {
		return answers(digests, func(d cas.Digest) ([]meta.Entry, error) {
			facts, err := tx.ByDigest(d)
			if err != nil {
				return nil, err
			}
			return tx.presentOf(snap, facts)
		})
	})
}

// presentOf returns the stanzas that are present in a snapshot.
func (t *txn) presentOf(snap *meta.Snapshot, facts []*meta.Fact) (out []meta.Entry, err error) {
	for _, f := range facts {
		places, err := t.PlacesAt(snap, f.PID)
		if err != nil {
			return nil, err
		}
		if len(places) > 0 {
			out = append(out, meta.Entry{Fact: f, Places: places})
		}
	}
	return out, nil
}

// PackagesByPath implements meta.History.
func (s *Store) PackagesByPath(ctx context.Context, snap *meta.Snapshot, paths []string) ([]meta.PathEntry, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.PathEntry, error) {
		return answers(paths, func(path string) (e meta.PathEntry, err error) {
			hit, err := tx.PathAt(snap, path)
			if errors.Is(err, meta.ErrNotFound) {
				return e, nil
			} else if err != nil {
				return e, err
			}
			e.Fact, e.File = hit.Fact, hit.File
			e.Places, err = tx.PlacesAt(snap, hit.Fact.PID)
			return e, err
		})
	})
}

// UnusablePackages implements meta.History.
func (s *Store) UnusablePackages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		page, next, err = tx.Unusable(snap, after, limit)
		return err
	})
	return page, next, err
}

// FactsByName implements meta.History.
func (s *Store) FactsByName(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error) {
	return ask(ctx, s, func(tx *txn) ([][]*meta.Fact, error) {
		return answers(names, func(name string) ([]*meta.Fact, error) { return tx.ByName(mirror, name) })
	})
}

// SourceNames implements meta.History.
func (s *Store) SourceNames(ctx context.Context, mirror meta.MirrorName, after string, limit int) ([]string, error) {
	return ask(ctx, s, func(tx *txn) ([]string, error) { return tx.SourceNames(mirror, after, limit), nil })
}

// PackageNames implements meta.History.
func (s *Store) PackageNames(ctx context.Context, mirror meta.MirrorName, prefix, after string, limit int) ([]string, error) {
	return ask(ctx, s, func(tx *txn) (names []string, _ error) {
		tx.Names(mirror, max(prefix, after), func(name string) bool {
			if !strings.HasPrefix(name, prefix) || len(names) == limit {
				return false
			}
			if name != after {
				names = append(names, name)
			}
			return true
		})
		return names, nil
	})
}

// FactsBySource implements meta.History.
func (s *Store) FactsBySource(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error) {
	return ask(ctx, s, func(tx *txn) ([][]*meta.Fact, error) {
		return answers(names, func(name string) ([]*meta.Fact, error) { return tx.BySource(mirror, name) })
	})
}

// Presences implements meta.History.
func (s *Store) Presences(ctx context.Context, stanzas []meta.PID) ([][]meta.Presence, error) {
	return ask(ctx, s, func(tx *txn) ([][]meta.Presence, error) {
		return answers(stanzas, func(pid meta.PID) ([]meta.Presence, error) { return answers(tx.Spans(pid), tx.presence) })
	})
}

// FactsByStanza implements meta.History.
func (s *Store) FactsByStanza(ctx context.Context, mirror meta.MirrorName, keys []meta.StanzaKey) ([]*meta.Fact, error) {
	return ask(ctx, s, func(tx *txn) ([]*meta.Fact, error) {
		named := map[string][]*meta.Fact{}
		return answers(keys, func(k meta.StanzaKey) (*meta.Fact, error) {
			facts, ok := named[k.Name]
			if !ok {
				var err error
				if facts, err = tx.ByName(mirror, k.Name); err != nil {
					return nil, err
				}
				named[k.Name] = facts
			}
			if i := slices.IndexFunc(facts, func(f *meta.Fact) bool { return f.Digest == k.Digest }); i >= 0 {
				return facts[i], nil
			}
			return nil, nil
		})
	})
}

// OwnersOf implements meta.History.
func (s *Store) OwnersOf(ctx context.Context, digests []cas.Digest) ([][]meta.OwnedFact, error) {
	return ask(ctx, s, func(tx *txn) ([][]meta.OwnedFact, error) {
		return answers(digests, func(d cas.Digest) (owners []meta.OwnedFact, err error) {
			facts, err := tx.ByDigest(d)
			if err != nil {
				return nil, err
			}
			return answers(facts, func(f *meta.Fact) (meta.OwnedFact, error) {
				mirror, err := tx.MirrorOf(f.PID)
				return meta.OwnedFact{Fact: f, Mirror: meta.MirrorName(mirror)}, err
			})
		})
	})
}

// snapshotPage limits the snapshots that one transaction of NewestWith reads.
const snapshotPage = 200

// NewestWith implements meta.History.
func (s *Store) NewestWith(ctx context.Context, mirror meta.MirrorName, stanzas [][]meta.PID) ([]*meta.Snapshot, error) {
	presences, err := ask(ctx, s, func(tx *txn) ([]meta.Version, error) {
		return answers(stanzas, func(pids []meta.PID) (v meta.Version, err error) {
			for _, pid := range pids {
				some, err := answers(tx.Spans(pid), tx.presence)
				if err != nil {
					return v, err
				}
				v.Presences = append(v.Presences, some...)
			}
			return v, nil
		})
	})
	if err != nil {
		return nil, err
	}
	newest := make([]*meta.Snapshot, len(stanzas))
	var before time.Time
	for {
		page, err := s.SnapshotsBefore(ctx, mirror, before, snapshotPage)
		if err != nil {
			return nil, err
		}
		for _, snap := range page {
			for i := range presences {
				if newest[i] == nil && presences[i].Has(snap) {
					newest[i] = snap
				}
			}
		}
		if len(page) < snapshotPage || !slices.Contains(newest, nil) {
			return newest, nil
		}
		before = page[len(page)-1].Timestamp
	}
}

// Stanzas implements meta.History.
func (s *Store) Stanzas(ctx context.Context, pids []meta.PID) ([][]byte, error) {
	return ask(ctx, s, func(tx *txn) ([][]byte, error) {
		// Read in the order of their numbers, so that each block is decompressed once:
		// the stanzas of a name are in blocks that arrived at different times.
		order := make([]int, len(pids))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(pids[a], pids[b]) })
		r := tx.Stanzas()
		var all []byte // one piece of memory for whole indices
		ends := make([]int, len(pids))
		for i, at := range order {
			pid := pids[at]
			b, err := r.Get(pid)
			if err != nil {
				if f, unknown := tx.Fact(pid); unknown == nil {
					err = fmt.Errorf("%s %s %s: %w", f.Name, f.Version, f.Arch, err)
				}
				return nil, err
			}
			all = append(all, b...)
			ends[i] = len(all)
		}
		out := make([][]byte, len(pids))
		begin := 0
		for i, end := range ends {
			out[order[i]], begin = all[begin:end:end], end
		}
		return out, nil
	})
}

// Differences implements meta.History.
func (s *Store) Differences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32) ([]meta.Difference, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.Difference, error) {
		changes, err := tx.Changes(mirror, suite, from, to)
		if err != nil {
			return nil, err
		}
		return answers(changes, func(c meta.Change) (meta.Difference, error) {
			f, err := tx.Fact(c.PID)
			return meta.Difference{Fact: f, Index: c.Index, Added: c.Added}, err
		})
	})
}

// CountDifferences implements meta.History.
func (s *Store) CountDifferences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32, limit int) (int, error) {
	return ask(ctx, s, func(tx *txn) (int, error) { return tx.countChanges(mirror, suite, from, to, limit) })
}

// Versions implements meta.History.
func (s *Store) Versions(ctx context.Context, mirror meta.MirrorName, names []string) ([][]meta.Version, error) {
	return ask(ctx, s, func(tx *txn) ([][]meta.Version, error) {
		return answers(names, func(name string) ([]meta.Version, error) {
			facts, err := tx.ByName(mirror, name)
			if err != nil {
				return nil, err
			}
			return answers(facts, func(f *meta.Fact) (meta.Version, error) {
				presences, err := answers(tx.Spans(f.PID), tx.presence)
				return meta.Version{Fact: f, Presences: presences, Frozen: tx.frozenWith(f.Files)}, err
			})
		})
	})
}

func (t *txn) presence(sp meta.Span) (meta.Presence, error) {
	info, err := t.index(sp.Index)
	return meta.Presence{Place: meta.Place{Suite: info.suite, Index: info.name}, Intervals: sp.Intervals}, err
}

// frozenWith names the freezes that refer to any of the files, in order.
func (t *txn) frozenWith(files []repo.File) (names []string) {
	for _, f := range files {
		for _, r := range t.Refs(f.SHA256, 0) {
			if r.Kind == meta.OwnerFrozen {
				names = append(names, r.Owner)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// RecordingEntries implements meta.History.
func (s *Store) RecordingEntries(ctx context.Context, name string) ([]meta.RecordEntry, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.RecordEntry, error) {
		if _, err := tx.Recording(name); err != nil {
			return nil, err
		}
		return tx.RecordEntries(name)
	})
}

// RecordingTotals implements meta.History.
func (s *Store) RecordingTotals(ctx context.Context, names []string) ([]meta.RecordingTotal, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.RecordingTotal, error) { return answers(names, tx.recordTotal) })
}

// TreeFiles implements meta.History.
func (s *Store) TreeFiles(ctx context.Context, name meta.FreezeName, prefix, after string, limit int) ([]meta.Node, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.Node, error) { return tx.Nodes(name, prefix, after, limit), nil })
}

// treePage limits the files of a tree that one transaction reads or writes.
const treePage = 5000

// TreeFaults implements meta.History.
func (s *Store) TreeFaults(ctx context.Context, name meta.FreezeName, listed []meta.Node) ([]meta.TreeFault, error) {
	return meta.CompareTree(ctx, s, name, listed, treePage)
}

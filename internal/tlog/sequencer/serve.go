package sequencer

import (
	"context"
	"fmt"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/meta"
	logfmt "example.org/snapd/internal/tlog"
)

// Checkpoint returns the signed state of the log with its cosignatures.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	h, err := l.head(ctx)
	if err != nil {
		return nil, err
	}
	return h.Checkpoint, nil
}

// Tile returns the file at a path below the log's URL, as tlog-tiles names it. If there
// is no such tile, the error is meta.ErrNotFound.
func (l *Log) Tile(ctx context.Context, path string) ([]byte, error) {
	missing := fmt.Errorf("%q of the transparency log: %w", path, meta.ErrNotFound)
	t, err := torchwood.ParseTilePath(path)
	if err != nil || torchwood.TilePath(t) != path {
		return nil, missing
	}
	h, err := l.head(ctx)
	if err != nil {
		return nil, err
	}
	// At level L the tree has a hash for every 256^L entries.
	width := h.Size
	for range max(t.L, 0) {
		width >>= torchwood.TileHeight
	}
	if t.N > width>>torchwood.TileHeight || t.N<<torchwood.TileHeight+int64(t.W) > width {
		return nil, missing
	}
	// A damaged tile would make an honest log look like a rewritten one.
	data, err := l.intact(h, newHashes(ctx, l.store), t.L, t.N)
	if err != nil {
		return nil, l.noticed(err)
	}
	size := t.W * tlog.HashSize
	if t.L == meta.EntriesLevel {
		rest := data
		for range t.W {
			if _, rest, err = torchwood.ReadTileEntry(rest); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", meta.ErrCorrupt, path, err)
			}
		}
		size = len(data) - len(rest)
	}
	if len(data) < size {
		return nil, fmt.Errorf("%w: %s has %d bytes, expected %d", meta.ErrCorrupt, path, len(data), size)
	}
	return data[:size], nil
}

// Proof proves the last entry about a subject, with the newest checkpoint that has a
// quorum of witnesses. If that checkpoint lacks the entry, Proof uses the newest
// checkpoint. If there is no entry, the error is meta.ErrNotFound.
func (l *Log) Proof(ctx context.Context, subject string) (leaf []byte, p *logfmt.Proof, err error) {
	found, err := l.store.LogNamed(ctx, []string{subject})
	if err != nil {
		return nil, nil, err
	}
	if found[0] < 0 {
		return nil, nil, fmt.Errorf("entry of the transparency log: %w", meta.ErrNotFound)
	}
	h, err := l.head(ctx)
	if err != nil {
		return nil, nil, err
	}
	p = &logfmt.Proof{Index: found[0], Checkpoint: h.Checkpoint}
	size := h.Size
	if p.Index < h.WitnessedSize {
		p.Checkpoint, size = h.Witnessed, h.WitnessedSize
	}
	tree := newHashes(ctx, l.store)
	if p.Hashes, err = tlog.ProveRecord(size, p.Index, tree); err != nil {
		return nil, nil, l.noticed(fmt.Errorf("prove entry %d of the transparency log: %w", p.Index, err))
	}
	if leaf, err = tree.entry(p.Index); err != nil {
		return nil, nil, l.noticed(err)
	}
	// The stored data may be damaged: no proof is better than a wrong one.
	if _, err := p.Check(leaf, logfmt.LogPolicy(l.Key())); err != nil {
		return nil, nil, l.noticed(fmt.Errorf("%w: %w", meta.ErrCorrupt, err))
	}
	return leaf, p, nil
}

// Verify computes the tree from all entries and compares it with every tile and the
// signed state. It returns the number of entries.
func (l *Log) Verify(ctx context.Context) (int64, error) {
	h, err := l.head(ctx)
	if err != nil {
		return 0, err
	}
	if err := l.check(ctx, h); err != nil {
		return h.Size, err
	}
	stored := newHashes(ctx, l.store)
	for from := int64(0); from < h.Size; from += torchwood.TileWidth {
		if err := ctx.Err(); err != nil {
			return h.Size, err
		}
		clear(stored.tiles) // memory is bounded by a tile
		for n := from; n < min(h.Size, from+torchwood.TileWidth); n++ {
			entry, err := stored.entry(n)
			if err != nil {
				return h.Size, err
			}
			want, err := tlog.StoredHashesForRecordHash(n, tlog.RecordHash(entry), stored)
			if err != nil {
				return h.Size, err
			}
			first := tlog.StoredHashIndex(0, n)
			for i := range want {
				got, err := stored.ReadHashes([]int64{first + int64(i)})
				if err != nil {
					return h.Size, err
				}
				if got[0] != want[i] {
					return h.Size, fmt.Errorf("%w: %w: entry %d has hash %s, its tile has %s", meta.ErrCorrupt, logfmt.ErrProof, n, want[i], got[0])
				}
			}
		}
	}
	return h.Size, nil
}

// Entries calls f for each entry, starting at the number from.
func (l *Log) Entries(ctx context.Context, from int64, f func(n int64, entry []byte) error) error {
	h, err := l.head(ctx)
	if err != nil {
		return err
	}
	tree := newHashes(ctx, l.store)
	for n := from; n < h.Size; n++ {
		if n%torchwood.TileWidth == 0 {
			clear(tree.tiles)
		}
		entry, err := tree.entry(n)
		if err != nil {
			return err
		}
		if err := f(n, entry); err != nil {
			return err
		}
	}
	return nil
}

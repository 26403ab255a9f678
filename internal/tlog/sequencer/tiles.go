package sequencer

import (
	"context"
	"errors"
	"fmt"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/meta"
)

type tileID struct {
	level int
	n     int64
}

// hashes reads the hashes of the tree from the tiles of a store. It is used for one
// answer only, because tiles grow.
type hashes struct {
	ctx   context.Context
	store meta.Log
	tiles map[tileID][]byte
	added map[int64]tlog.Hash // not stored yet
}

func newHashes(ctx context.Context, store meta.Log) *hashes {
	return &hashes{ctx: ctx, store: store, tiles: map[tileID][]byte{}, added: map[int64]tlog.Hash{}}
}

// ReadHashes implements tlog.HashReader.
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if v, ok := h.added[x]; ok {
			out[i] = v
			continue
		}
		t := tlog.TileForIndex(torchwood.TileHeight, x)
		data, err := h.tile(tileID{t.L, t.N})
		if err != nil {
			return nil, err
		}
		if len(data) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("%w: tile %d of level %d of the transparency log has %d bytes, expected at least %d", meta.ErrCorrupt, t.N, t.L, len(data), t.W*tlog.HashSize)
		}
		if out[i], err = tlog.HashFromTile(t, data[:t.W*tlog.HashSize], x); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (h *hashes) tile(id tileID) ([]byte, error) {
	if data, ok := h.tiles[id]; ok {
		return data, nil
	}
	data, err := h.store.LogTile(h.ctx, id.level, id.n)
	if errors.Is(err, meta.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", meta.ErrCorrupt, err) // the size of the log says that the tile exists
	}
	if err != nil {
		return nil, err
	}
	h.tiles[id] = data
	return data, nil
}

// add adds the hashes of an entry, the n-th of the tree.
func (h *hashes) add(n int64, entry []byte) error {
	stored, err := tlog.StoredHashesForRecordHash(n, tlog.RecordHash(entry), h)
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, n)
	for i, v := range stored {
		h.added[first+int64(i)] = v
	}
	return nil
}

// grown returns the tiles that change when entries are added.
func (h *hashes) grown(from int64, entries [][]byte) ([]meta.LogTile, error) {
	to := from + int64(len(entries))
	var out []meta.LogTile
	for _, t := range tlog.NewTiles(torchwood.TileHeight, from, to) {
		data, err := tlog.ReadTileData(t, h)
		if err != nil {
			return nil, err
		}
		out = append(out, meta.LogTile{Level: t.L, N: t.N, Data: data})
	}
	for n := from / torchwood.TileWidth; n*torchwood.TileWidth < to; n++ {
		var data []byte
		if first := n * torchwood.TileWidth; first < from {
			old, err := h.checkedEntries(n, from-first)
			if err != nil {
				return nil, err
			}
			data = append(data, old...)
		}
		var err error
		for i := max(from, n*torchwood.TileWidth); i < min(to, (n+1)*torchwood.TileWidth); i++ {
			if data, err = torchwood.AppendTileEntry(data, entries[i-from]); err != nil {
				return nil, err
			}
		}
		out = append(out, meta.LogTile{Level: meta.EntriesLevel, N: n, Data: data})
	}
	return out, nil
}

// checkedEntries returns the n-th tile of entries, whose width is known, if its entries
// match the hashes of the tree.
func (h *hashes) checkedEntries(n, width int64) ([]byte, error) {
	data, err := h.tile(tileID{meta.EntriesLevel, n})
	if err != nil {
		return nil, err
	}
	rest := data
	for i := n * torchwood.TileWidth; i < n*torchwood.TileWidth+width; i++ {
		var entry []byte
		if entry, rest, err = torchwood.ReadTileEntry(rest); err != nil {
			return nil, fmt.Errorf("%w: entry %d of the transparency log: %w", meta.ErrCorrupt, i, err)
		}
		want, err := h.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		if err != nil {
			return nil, err
		}
		if got := tlog.RecordHash(entry); got != want[0] {
			return nil, fmt.Errorf("%w: entry %d of the transparency log has hash %s, expected %s", meta.ErrCorrupt, i, got, want[0])
		}
	}
	return data[:len(data)-len(rest)], nil
}

// entry returns the n-th entry.
func (h *hashes) entry(n int64) ([]byte, error) {
	data, err := h.tile(tileID{meta.EntriesLevel, n / torchwood.TileWidth})
	if err != nil {
		return nil, err
	}
	for i := int64(0); ; i++ {
		entry, rest, err := torchwood.ReadTileEntry(data)
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d of the transparency log: %w", meta.ErrCorrupt, n, err)
		}
		if i == n%torchwood.TileWidth {
			return entry, nil
		}
		data = rest
	}
}

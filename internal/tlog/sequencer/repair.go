package sequencer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/meta"
	logfmt "example.org/snapd/internal/tlog"
)

// Repair rebuilds the tiles of a log that cannot be opened, as Fsck does.
func Repair(ctx context.Context, cfg Config) (faults, repaired []string, err error) {
	l := Broken(cfg, nil)
	defer l.Close()
	return l.Fsck(ctx, true)
}

// Fsck checks every tile of the log against the signed state, and returns the damaged
// ones. Tiles of hashes can be computed from the level below, those of the lowest level
// from the entries. Tiles of entries can be rebuilt if only their lengths are wrong. With
// repair, Fsck replaces such tiles, provided that they lead to the signed root.
func (l *Log) Fsck(ctx context.Context, repair bool) (faults, repaired []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, err := l.store.LogHead(ctx)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case l.cfg.Signer == nil:
		return []string{l.broken.Error()}, nil, nil
	}
	signed, err := logfmt.OpenCheckpoint(h.Checkpoint, l.Key())
	if err == nil && signed.Size != h.Size {
		err = fmt.Errorf("%w: it has %d entries, expected %d", logfmt.ErrProof, signed.Size, h.Size)
	}
	if err != nil {
		return []string{fmt.Sprintf("signed state: %v", err)}, nil, nil
	}
	r := &rebuilder{ctx: ctx, store: l.store, size: h.Size}
	fits, err := r.all(signed.Root)
	if err == nil && !fits {
		// The last tiles of each level have no hash above them that decides which of two
		// versions is right.
		r = &rebuilder{ctx: ctx, store: l.store, size: h.Size, stored: true}
		fits, err = r.all(signed.Root)
	}
	if err != nil {
		return nil, nil, err
	}
	if !fits {
		return append(r.lost, fmt.Sprintf("the tiles of %d entries do not lead to the signed root %s", h.Size, signed.Root)), nil, nil
	}
	for _, t := range r.changed {
		text := tileName(t.Level, t.N)
		if repair {
			repaired = append(repaired, "transparency log: "+text)
		} else {
			faults = append(faults, text+" is damaged, and can be rebuilt")
		}
	}
	if repair && len(r.changed) > 0 {
		if err := l.replace(ctx, h, r.changed); err != nil {
			return nil, nil, fmt.Errorf("rebuild tiles of the transparency log: %w", err)
		}
		l.log.Warn("rebuilt tiles of the transparency log", "tiles", strings.Join(repaired, ", "))
	}
	if faults = append(faults, r.lost...); len(faults) == 0 {
		l.damage.Store(nil)
	}
	return faults, repaired, nil
}

// replace replaces tiles, if the log has not grown since they were computed.
func (l *Log) replace(ctx context.Context, then *meta.LogHead, tiles []meta.LogTile) error {
	// The signed state stays the same, including cosignatures that were added meanwhile.
	l.witnesses.file.Lock()
	defer l.witnesses.file.Unlock()
	h, err := l.store.LogHead(ctx)
	if err != nil {
		return err
	}
	return l.store.AppendLog(ctx, &meta.LogAppend{Origin: then.Origin, From: then.Size, Size: then.Size, Checkpoint: h.Checkpoint, Tiles: tiles})
}

// tileName names a tile as tlog-tiles does.
func tileName(level int, n int64) string {
	return torchwood.TilePath(tlog.Tile{H: torchwood.TileHeight, L: level, N: n, W: torchwood.TileWidth})
}

// rebuilder computes a tree from its stored parts, one tile of each level at a time.
type rebuilder struct {
	ctx    context.Context
	store  meta.Log
	size   int64
	stored bool // if no hash decides, use the stored tile instead of the computed one

	changed []meta.LogTile
	lost    []string // tiles that cannot be rebuilt
}

// all computes the whole tree, and reports whether its root is the given one.
func (r *rebuilder) all(root tlog.Hash) (bool, error) {
	top := 0
	for r.width(top+1) > 0 {
		top++
	}
	edge := newHashes(r.ctx, r.store)
	for level := top; level >= 0; level-- {
		if r.width(level)%torchwood.TileWidth == 0 {
			continue // the tile above contains all their hashes
		}
		n := r.width(level) / torchwood.TileWidth
		data, changed, err := r.tile(level, n)
		if err != nil {
			return false, err
		}
		r.changed = append(r.changed, changed...)
		edge.tiles[tileID{level, n}] = data
	}
	got, err := tlog.TreeHash(r.size, edge)
	if errors.Is(err, meta.ErrCorrupt) {
		return false, nil
	}
	return got == root, err
}

// width returns the number of hashes of a level.
func (r *rebuilder) width(level int) int64 { return r.size >> (torchwood.TileHeight * level) }

// tile returns the hashes of a tile, and the tiles to replace, this one or below it. The
// hashes are nil if the tile is lost.
func (r *rebuilder) tile(level int, n int64) (data []byte, changed []meta.LogTile, err error) {
	if err := r.ctx.Err(); err != nil {
		return nil, nil, err
	}
	count := int(min(r.width(level)-n*torchwood.TileWidth, torchwood.TileWidth))
	stored, err := r.read(level, n)
	if err != nil {
		return nil, nil, err
	}
	if len(stored) >= count*tlog.HashSize {
		stored = stored[:count*tlog.HashSize]
	} else {
		stored = nil
	}
	var computed, entries []byte
	below := make([][]meta.LogTile, count)
	if level == 0 {
		if entries, err = r.read(meta.EntriesLevel, n); err != nil {
			return nil, nil, err
		}
		computed = leafHashes(entries, count)
	} else if computed, below, err = r.children(level, n, count, stored); err != nil {
		return nil, nil, err
	}
	if data, err = r.choose(level, n, stored, computed); err != nil || data == nil {
		return nil, nil, err
	}
	if !bytes.Equal(data, stored) {
		changed = append(changed, meta.LogTile{Level: level, N: n, Data: data})
	}
	for i, c := range below {
		at := i * tlog.HashSize
		if len(computed) > 0 && bytes.Equal(computed[at:at+tlog.HashSize], data[at:at+tlog.HashSize]) {
			changed = append(changed, c...)
		} else if level > 0 {
			r.lost = append(r.lost, tileName(level-1, n*torchwood.TileWidth+int64(i))+" is damaged, and cannot be rebuilt")
		}
	}
	if level == 0 && !bytes.Equal(data, computed) {
		if framed, missing := framedAgain(entries, data, n*torchwood.TileWidth); missing == "" {
			changed = append(changed, meta.LogTile{Level: meta.EntriesLevel, N: n, Data: framed})
		} else {
			r.lost = append(r.lost, fmt.Sprintf("%s is damaged: %s cannot be rebuilt", tileName(meta.EntriesLevel, n), missing))
		}
	}
	return data, changed, nil
}

// read reads a stored tile; nil if it is lost.
func (r *rebuilder) read(level int, n int64) ([]byte, error) {
	data, err := r.store.LogTile(r.ctx, level, n)
	if errors.Is(err, meta.ErrNotFound) || errors.Is(err, meta.ErrCorrupt) {
		return nil, nil
	}
	return data, err
}

// children computes the hashes of a tile from the tiles below it, and the tiles to
// replace for each. For a lost tile it uses the stored hash.
func (r *rebuilder) children(level int, n int64, count int, stored []byte) (computed []byte, changed [][]meta.LogTile, err error) {
	for i := range count {
		data, c, err := r.tile(level-1, n*torchwood.TileWidth+int64(i))
		if err != nil {
			return nil, nil, err
		}
		changed = append(changed, c)
		switch {
		case data != nil:
			top := topHash(data)
			computed = append(computed, top[:]...)
		case stored != nil:
			computed = append(computed, stored[i*tlog.HashSize:(i+1)*tlog.HashSize]...)
		default:
			computed = append(computed, make([]byte, tlog.HashSize)...)
		}
	}
	return computed, changed, nil
}

// choose decides between stored hashes and hashes that were computed from the level below.
// The hash above, if it exists, decides. choose returns nil if both are missing.
func (r *rebuilder) choose(level int, n int64, stored, computed []byte) ([]byte, error) {
	switch {
	case stored == nil:
		if computed == nil {
			r.lost = append(r.lost, tileName(level, n)+" is lost, and cannot be rebuilt")
		}
		return computed, nil
	case computed == nil || bytes.Equal(stored, computed):
		return stored, nil
	}
	if len(stored) == torchwood.TileWidth*tlog.HashSize {
		above, err := r.read(level+1, n/torchwood.TileWidth)
		if err != nil {
			return nil, err
		}
		if at := int(n%torchwood.TileWidth) * tlog.HashSize; len(above) >= at+tlog.HashSize {
			switch tlog.Hash(above[at : at+tlog.HashSize]) {
			case topHash(stored):
				return stored, nil
			case topHash(computed):
				return computed, nil
			}
		}
	}
	if r.stored {
		return stored, nil
	}
	return computed, nil
}

// topHash is the hash of a full tile, which is in the tile above.
func topHash(data []byte) tlog.Hash {
	level := make([]tlog.Hash, len(data)/tlog.HashSize)
	for i := range level {
		level[i] = tlog.Hash(data[i*tlog.HashSize : (i+1)*tlog.HashSize])
	}
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = tlog.NodeHash(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
	}
	return level[0]
}

// leafHashes computes the hashes of the first entries of a tile; nil if the entries
// cannot be read.
func leafHashes(entries []byte, count int) []byte {
	var out []byte
	for range count {
		entry, rest, err := torchwood.ReadTileEntry(entries)
		if err != nil {
			return nil
		}
		h := tlog.RecordHash(entry)
		out, entries = append(out, h[:]...), rest
	}
	return out
}

// framedAgain finds the entries with these hashes in a tile whose lengths may be wrong.
// missing describes the entries that it does not find; first is the number of the first
// entry.
func framedAgain(data, hashes []byte, first int64) (framed []byte, missing string) {
	found := map[tlog.Hash][]byte{}
	for at := 0; at+2 <= len(data); at++ {
		// The two bytes at this position may be a correct length. If they are not, look for
		// the entry itself.
		n := int(binary.BigEndian.Uint16(data[at:]))
		if n <= logfmt.MaxLeaf && at+2+n <= len(data) {
			found[tlog.RecordHash(data[at+2:at+2+n])] = data[at+2 : at+2+n]
		}
		if data[at] != '{' {
			continue
		}
		if end := bytes.IndexByte(data[at:min(len(data), at+logfmt.MaxLeaf)], '}'); end >= 0 {
			found[tlog.RecordHash(data[at:at+end+1])] = data[at : at+end+1]
		}
	}
	var gone []string
	for i := range len(hashes) / tlog.HashSize {
		entry, ok := found[tlog.Hash(hashes[i*tlog.HashSize:(i+1)*tlog.HashSize])]
		if !ok {
			gone = append(gone, fmt.Sprint(first+int64(i)))
			continue
		}
		var err error
		if framed, err = torchwood.AppendTileEntry(framed, entry); err != nil {
			gone = append(gone, fmt.Sprint(first+int64(i)))
		}
	}
	if len(gone) > 0 {
		return nil, "entry " + strings.Join(gone, ", ")
	}
	return framed, ""
}

// intact returns a tile of a state of the log if it matches the signed root.
func (l *Log) intact(h *meta.LogHead, tree *hashes, level int, n int64) ([]byte, error) {
	data, err := tree.tile(tileID{level, n})
	if err != nil {
		return nil, err
	}
	hashed := max(level, 0)
	width := h.Size >> (torchwood.TileHeight * hashed)
	if (n+1)*torchwood.TileWidth > width {
		if err := l.checkTree(h, tree); err != nil {
			return nil, err
		}
	} else {
		of, err := tree.tile(tileID{hashed, n})
		if err != nil {
			return nil, err
		}
		above, err := tree.tile(tileID{hashed + 1, n / torchwood.TileWidth})
		if err != nil {
			return nil, err
		}
		at := int(n%torchwood.TileWidth) * tlog.HashSize
		if len(of) < torchwood.TileWidth*tlog.HashSize || len(above) < at+tlog.HashSize || topHash(of) != tlog.Hash(above[at:at+tlog.HashSize]) {
			return nil, fmt.Errorf("%w: %s of the transparency log does not have the hash that is in %s", meta.ErrCorrupt, tileName(hashed, n), tileName(hashed+1, n/torchwood.TileWidth))
		}
	}
	if level == meta.EntriesLevel {
		return tree.checkedEntries(n, min(h.Size-n*torchwood.TileWidth, torchwood.TileWidth))
	}
	return data, nil
}

// noticed records the latest sign of damage, for Status, and returns it.
func (l *Log) noticed(err error) error {
	if errors.Is(err, meta.ErrCorrupt) {
		text := err.Error()
		if old := l.damage.Swap(&text); old == nil || *old != text {
			l.log.Error("the transparency log is damaged", "err", err)
		}
	}
	return err
}

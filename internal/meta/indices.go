package meta

import (
	"context"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Made says how to make the variants of an index of which the generation keeps none: the
// uncompressed one from stanzas in a stored order, and the compressed one from that by a
// program.
type Made struct {
	// Order lists the blobs of the order, including the orders that it is a difference
	// to.
	Order []cas.Digest `json:"order"`
	// Recipe says how to make Variant. Program is the version of the program that made the
	// same bytes.
	Recipe  string `json:"recipe"`
	Program string `json:"program"`
}

// CompactIndex is an index of a generation whose stored variant can be made again.
type CompactIndex struct {
	Mirror  MirrorName
	Suite   repo.SuiteName
	Gen     uint32
	Index   string
	Variant cas.Digest // the variant that the generation keeps
	Made    Made
}

// Indices replaces the compressed indices of old generations by the order of their
// stanzas.
type Indices interface {
	// GenerationHeld reports whether a freeze, a recording, or a pin at the time now
	// names a generation. ErrNotFound if the suite is unknown.
	GenerationHeld(ctx context.Context, mirror MirrorName, suite repo.SuiteName, gen uint32, now time.Time) (bool, error)
	// CompactIndex records how to make an index. The generation then refers to the blobs
	// of its order, which must be durable and held, and no longer to the variant that it
	// kept. done is false and nothing changes if the generation is held at the time now,
	// is the newest of its suite, or does not keep that variant. ErrNotFound if the
	// generation does not exist.
	CompactIndex(ctx context.Context, c *CompactIndex, now time.Time) (done bool, err error)
	// KeepIndex reverses CompactIndex: the generation refers to the variant of the index,
	// which must be durable and held, and no longer to its order. done is false and
	// nothing changes if the index was not compacted. ErrNotFound if the generation does
	// not exist.
	KeepIndex(ctx context.Context, mirror MirrorName, suite repo.SuiteName, gen uint32, index string) (done bool, err error)
}

// Compact replaces the stored variant of an index. It returns the blobs that the
// generation now refers to, and those that it no longer refers to. done is false if the
// index does not keep that variant.
func (g *Generation) Compact(c *CompactIndex) (added, dropped []cas.Digest, done bool) {
	return g.change(func(gr *Group) bool {
		if gr.Index != c.Index || gr.Variant.SHA256 != c.Variant || gr.Made != nil || gr.Plain.SHA256.IsZero() || len(c.Made.Order) == 0 {
			return false
		}
		made := c.Made
		gr.Made = &made
		return true
	})
}

// Keep reverses Compact for an index.
func (g *Generation) Keep(index string) (added, dropped []cas.Digest, done bool) {
	return g.change(func(gr *Group) bool {
		if gr.Index != index || gr.Made == nil {
			return false
		}
		gr.Made = nil
		return true
	})
}

// change calls f for each index. It returns the blobs that the generation refers to only
// after the change, and those that it referred to only before it.
func (g *Generation) change(f func(*Group) (changed bool)) (added, dropped []cas.Digest, done bool) {
	before := g.Blobs()
	for i := range g.Groups {
		done = f(&g.Groups[i]) || done
	}
	after := g.Blobs()
	return without(after, before), without(before, after), done
}

// without returns the digests in all that are not in others, without repetition.
func without(all, others []cas.Digest) (out []cas.Digest) {
	for _, d := range all {
		if !slices.Contains(others, d) && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// Spare reports whether a generation can be served without the blob of a path: the path
// is a variant of an index, and the generation keeps another variant or can make it.
func (g *Generation) Spare(path string) bool {
	for i := range g.Groups {
		gr := &g.Groups[i]
		at := strings.LastIndex(path, gr.Index)
		if at < 0 || at > 0 && path[at-1] != '/' {
			continue
		}
		rest := path[at+len(gr.Index):]
		if rest != "" && (rest[0] != '.' || strings.Contains(rest, "/")) {
			continue
		}
		if gr.Made != nil || !strings.HasSuffix(gr.Variant.Path, gr.Index+rest) {
			return true
		}
	}
	return false
}

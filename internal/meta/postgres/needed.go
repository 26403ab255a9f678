package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// needed returns which of the blobs something refers to, or which a suite lists and could
// not serve without them. after is what a collection will have deleted; nil: nothing.
func (t *tx) needed(ctx context.Context, digests [][]byte, after *deletion) (map[cas.Digest]bool, error) {
	out := map[cas.Digest]bool{}
	limit := 1
	if after != nil {
		limit = 0
	}
	refs, err := t.refs(ctx, digests, limit)
	if err != nil {
		return nil, err
	}
	var rest [][]byte
	for _, d := range digests {
		if slices.ContainsFunc(refs[cas.Digest(d)], func(r meta.Ref) bool { return !after.ref(r) }) {
			out[cas.Digest(d)] = true
		} else {
			rest = append(rest, d)
		}
	}
	var listed []cas.Digest
	var sum []byte
	err = t.each(ctx, []any{&sum}, func() error { listed = append(listed, cas.Digest(sum)); return nil }, "select distinct sha256 from listed where sha256 = any($1)", rest)
	if err != nil {
		return nil, err
	}
	for _, d := range listed {
		all, err := t.listings(ctx, d, nil, nil)
		if err != nil {
			return nil, err
		}
		for _, l := range all {
			l.sum = d
			yes, err := t.neededListing(ctx, &l, after)
			if err != nil {
				return nil, err
			}
			if yes {
				out[d] = true
				break
			}
		}
	}
	return out, nil
}

func (t *tx) neededListing(ctx context.Context, l *listing, after *deletion) (bool, error) {
	if l.Last == meta.Unended {
		return true, nil // of the newest generation
	}
	gone := after.gens(l.sid)
	if len(gone) > 0 {
		var ends bool
		_, err := t.one(ctx, []any{&ends}, `select exists (select from listed l where suite = $1 and sha256 = $3 and `+listingEnds+")", l.sid, gone, l.sum[:])
		if err != nil || ends {
			return false, err
		}
	}
	var g meta.Generation
	err := t.doc(ctx, &g, "select doc from generation where suite = $1 and gen <= $2 and not gen = any($3) order by gen desc limit 1", l.sid, int64(l.Last), gone)
	if errors.Is(err, meta.ErrNotFound) {
		return true, nil
	} else if err != nil {
		return false, fmt.Errorf("listing %s: %w", l.Path, err)
	}
	return !g.Spare(l.Path), nil
}

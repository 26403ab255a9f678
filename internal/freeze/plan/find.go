package plan

import (
	"context"
	"encoding/hex"
	"slices"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
)

// found are the stanzas that match an entry, and how they were found.
type found struct {
	picks []*Pick
	by    string // "hash" or "version"
}

// find looks up a page of entries in the chosen states: by SHA-256 or another strong
// digest if the entry has one, otherwise by name.
func (p *Planner) find(ctx context.Context, pl *Plan, page []namedEntry) ([]found, error) {
	out := make([]found, len(page))
	if err := p.findByDigest(ctx, pl, page, out); err != nil {
		return nil, err
	}
	var at []int
	var names []string
	for i, e := range page {
		if out[i].by == "" {
			at, names = append(at, i), append(names, e.entry.Name)
		}
	}
	named, err := p.picksByName(ctx, pl.states(), names)
	if err != nil {
		return nil, err
	}
	for n, i := range at {
		picks, err := p.fitting(page[i].entry, named[n])
		if err != nil {
			return nil, err
		}
		out[i] = found{picks, "version"}
	}
	return out, nil
}

// findByDigest looks up the entries that have digests. An entry with a SHA-256 is found
// by it or not at all.
func (p *Planner) findByDigest(ctx context.Context, pl *Plan, page []namedEntry, out []found) error {
	digests := make([][]cas.Digest, len(page)) // for each entry, the strongest first
	for i, e := range page {
		if e.entry.SHA256 == "" {
			continue
		}
		d, err := cas.ParseDigest(e.entry.SHA256)
		if err != nil {
			return err
		}
		digests[i] = []cas.Digest{d}
		out[i].by = "hash"
	}
	for _, a := range []alias{
		{meta.AliasSHA512, func(e *buildlist.Entry) []byte { return []byte(e.SHA512) }},
		{meta.AliasSHA1, func(e *buildlist.Entry) []byte { b, _ := hex.DecodeString(e.SHA1); return b }},
	} {
		if err := p.addAliases(ctx, a, page, digests); err != nil {
			return err
		}
	}
	picks, err := p.picksByDigest(ctx, pl.states(), slices.Concat(digests...))
	if err != nil {
		return err
	}
	n := 0
	for i := range page {
		for range digests[i] {
			if len(out[i].picks) == 0 && len(picks[n]) > 0 {
				out[i] = found{picks[n], "hash"}
			}
			n++
		}
	}
	return nil
}

// alias is another digest of blobs that entries use.
type alias struct {
	algo byte
	of   func(*buildlist.Entry) []byte
}

// addAliases adds the SHA-256 for entries that only have another digest.
func (p *Planner) addAliases(ctx context.Context, a alias, page []namedEntry, digests [][]cas.Digest) error {
	var at []int
	var others [][]byte
	for i, e := range page {
		if other := a.of(e.entry); e.entry.SHA256 == "" && len(other) > 0 {
			at, others = append(at, i), append(others, other)
		}
	}
	if len(others) == 0 {
		return nil
	}
	known, err := p.meta.Aliases(ctx, a.algo, others)
	if err != nil {
		return err
	}
	for n, d := range known {
		if !d.IsZero() {
			digests[at[n]] = append(digests[at[n]], d)
		}
	}
	return nil
}

// fitting returns the packages of an entry's name that match the entry.
func (p *Planner) fitting(e *buildlist.Entry, named []*Pick) (out []*Pick, err error) {
	for _, pick := range named {
		f, err := p.cfg.Formats.Of(pick.From.Type)
		if err != nil {
			return nil, err
		}
		if (e.Ecosystem == "" || string(e.Ecosystem) == pick.From.Type) && history.Fits(f, e, &pick.Record) {
			out = append(out, pick)
		}
	}
	// An entry of architecture amd64 matches arch:all only if no package is amd64.
	if e.Arch != "" && slices.ContainsFunc(out, func(p *Pick) bool { return p.Arch == e.Arch }) {
		out = slices.DeleteFunc(out, func(p *Pick) bool { return p.Arch != e.Arch && !e.Source })
	}
	return out, nil
}

package acquire

import (
	"context"
	"slices"
	"strings"
	"sync"

	"example.org/snapd/internal/fetch/remote"
)

// MaxAlternateBases bounds the alternate base URLs of a mirror's packages.
const MaxAlternateBases = 16

// places are the locations where a file may be.
type places struct {
	bases []remote.URL // base URLs, in the order in which they are tried
	// earlier returns further base URLs, which are tried if none of the bases has the
	// file. It may be nil.
	earlier func(context.Context) ([]remote.URL, error)
}

// placesOf returns the places of one file.
func (a *Acquirer) placesOf(ctx context.Context, u *upstream, f File) (places, error) {
	bases, err := a.baseURLs(ctx, u)
	if err != nil {
		return places{}, err
	}
	if !f.From.IsZero() && !slices.Contains(bases, f.From) {
		bases = append(slices.Clone(bases), f.From)
	}
	if f.Record == nil {
		return places{bases: bases}, nil
	}
	return a.packagePlaces(ctx, u, bases)
}

// packagePlaces returns the places of the packages of a mirror: its base URLs, the
// alternate base URLs of its newest snapshot, and then those of older snapshots, which
// may still have files that upstream has moved or deleted.
func (a *Acquirer) packagePlaces(ctx context.Context, u *upstream, bases []remote.URL) (places, error) {
	alternate, err := a.cfg.Meta.AlternateBases(ctx, u.Name)
	if err != nil {
		return places{}, err
	}
	p := places{bases: append(slices.Clone(bases), Foreign(alternate)...)}
	var once sync.Mutex
	var asked bool
	var earlier []remote.URL
	p.earlier = func(ctx context.Context) ([]remote.URL, error) {
		once.Lock()
		defer once.Unlock()
		if asked {
			return earlier, nil
		}
		all, err := a.cfg.Meta.EarlierAlternateBases(ctx, u.Name, alternate, MaxAlternateBases)
		if err != nil {
			return nil, err
		}
		asked = true
		for _, url := range Foreign(all) {
			if !slices.Contains(p.bases, url) {
				earlier = append(earlier, url)
			}
		}
		return earlier, nil
	}
	return p, nil
}

// Foreign returns the URLs where the indices of a repository place packages outside of
// it.
func Foreign(list []string) []remote.URL {
	out := remote.NewURLs(list...)
	for i := range out {
		out[i] = out[i].Foreign()
	}
	return out
}

// treeOf returns the directory that file URLs must stay in: the first base URL with the
// scheme file.
func treeOf(bases []remote.URL) string {
	for _, b := range bases {
		if b.Scheme() == "file" {
			return b.String() // the path of a file URL contains no secret
		}
	}
	return ""
}

// below prepends a directory to a path and its alternates.
func below(dir string, paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = dir + strings.TrimPrefix(p, "/")
	}
	return out
}

package mirror

import (
	"context"
	"fmt"
	"time"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
)

// get is fetch.Client.Get for a file of a mirror that its signed documents list. A
// file that every URL withholds, by 403 or 400 in place of 404, is fetch.ErrNotFound
// where the same servers give other files.
func (e *Engine) get(ctx context.Context, m config.Mirror, req fetch.Request) (fetch.Result, error) {
	res, err := e.cfg.Client.Get(ctx, req)
	if err == nil {
		return res, nil
	}
	denied, ok := fetch.Withheld(err)
	if !ok || len(denied) == 0 {
		return res, err
	}
	for _, i := range denied {
		if !e.serves(ctx, m, req.URLs[i]) {
			return res, err
		}
	}
	return res, fmt.Errorf("%w: %v, while other files are there", fetch.ErrNotFound, err)
}

// servesFor is how long it is remembered whether a base URL serves files.
const servesFor = 5 * time.Minute

type served struct {
	ok bool
	at time.Time
}

// serves reports whether the base URL that a file's URL is below gives the signed
// document of one of the mirror's suites.
func (e *Engine) serves(ctx context.Context, m config.Mirror, file remote.URL) bool {
	f := e.formats[m.Type]
	suites, err := f.Suites(m)
	if err != nil || len(suites) == 0 {
		return false
	}
	bases, err := e.bases(ctx, m)
	if err != nil {
		return false
	}
	for _, base := range bases {
		if !file.Below(base) {
			continue
		}
		e.mu.Lock()
		known := e.serving[base]
		e.mu.Unlock()
		if age := e.cfg.Now().Sub(known.at); age >= 0 && age < servesFor {
			return known.ok
		}
		ok := false
		g := &getter{s: &syncer{e: e, m: m}, base: base}
		for _, docs := range f.RootDocs(suites[0]) {
			if _, err := g.Get(ctx, docs[0], catalog.MaxDocument, nil); err == nil {
				ok = true
				break
			}
		}
		e.mu.Lock()
		e.serving[base] = served{ok, e.cfg.Now()}
		e.mu.Unlock()
		return ok
	}
	return false
}

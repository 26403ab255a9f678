package acquire

import (
	"context"
	"fmt"
	"time"

	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
)

// maxDocument limits a signed document, in bytes.
const maxDocument = 64 << 20

// request is fetch.Client.Get for a file that the signed documents of a mirror
// list. If all URLs answer 403 or 400 instead of 404, but serve other files, it
// returns fetch.ErrNotFound.
func (a *Acquirer) request(ctx context.Context, u *upstream, req fetch.Request) (fetch.Result, error) {
	res, err := a.cfg.Client.Get(ctx, req)
	if err == nil {
		return res, nil
	}
	denied, ok := fetch.Withheld(err)
	if !ok || len(denied) == 0 {
		return res, err
	}
	for _, i := range denied {
		if !a.serves(ctx, u, req.URLs[i]) {
			return res, err
		}
	}
	return res, fmt.Errorf("%w: %v, but other files are served", fetch.ErrNotFound, err)
}

// servesFor is how long it is remembered whether a base URL serves files.
const servesFor = 5 * time.Minute

// served records whether a base URL served files when it was last asked.
type served struct {
	ok bool
	at time.Time
}

// serves reports whether the base URL above a file's URL serves the signed
// document of one of the mirror's suites.
func (a *Acquirer) serves(ctx context.Context, u *upstream, file remote.URL) bool {
	suites, err := u.format.Suites(u.Mirror)
	if err != nil || len(suites) == 0 {
		return false
	}
	bases, err := a.baseURLs(ctx, u)
	if err != nil {
		return false
	}
	for _, base := range bases {
		if !file.Below(base) {
			continue
		}
		u.mu.Lock()
		known := u.serving[base]
		u.mu.Unlock()
		if age := a.cfg.Now().Sub(known.at); age >= 0 && age < servesFor {
			return known.ok
		}
		ok := false
		g := a.session(u, SessionOptions{}).Documents(base)
		for _, docs := range u.format.RootDocs(suites[0]) {
			if _, err := g.Get(ctx, docs[0], maxDocument, nil); err == nil {
				ok = true
				break
			}
		}
		u.mu.Lock()
		u.serving[base] = served{ok, a.cfg.Now()}
		u.mu.Unlock()
		return ok
	}
	return false
}

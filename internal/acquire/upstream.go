package acquire

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/sign"
)

// upstream is a mirror, seen as a source of files.
type upstream struct {
	config.Mirror
	format Format
	access *remote.Access // nil: no credentials
	scope  *fetch.Scope

	mu       sync.Mutex
	keyring  *sign.Keyring
	named    []remote.URL          // base URLs that a metalink or mirrorlist named
	namedAsk time.Time             // when the metalink or mirrorlist was fetched
	serving  map[remote.URL]served // by base URL
}

// upstream returns the mirror with a name. config.ErrUnknownMirror.
func (a *Acquirer) upstream(name meta.MirrorName) (*upstream, error) {
	mirrors := a.current.Load().mirrors
	if u := mirrors[name]; u != nil {
		return u, nil
	}
	return nil, config.UnknownMirror(name, mirrors)
}

// Keyring returns the keyring of a mirror, or nil if it has none. It is read once.
func (a *Acquirer) Keyring(mirror config.MirrorName) (*sign.Keyring, error) {
	u, err := a.upstream(mirror)
	if err != nil {
		return nil, err
	}
	return u.loadKeyring()
}

func (u *upstream) loadKeyring() (*sign.Keyring, error) {
	if len(u.Mirror.Keyring) == 0 {
		return nil, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keyring != nil {
		return u.keyring, nil
	}
	k, err := sign.LoadKeyring(u.Mirror.Keyring...)
	if err != nil {
		return nil, fmt.Errorf("keyring of mirror %s: %w", u.Name, err)
	}
	u.keyring = k
	return k, nil
}

// namedFor is how long the base URLs in a metalink are used before it is fetched
// again.
const namedFor = 10 * time.Minute

// baseURLs returns the base URLs of a mirror; none if it is local.
func (a *Acquirer) baseURLs(ctx context.Context, u *upstream) ([]remote.URL, error) {
	if urls := u.BaseURLs(); len(urls) > 0 || u.Local {
		return urls, nil
	}
	u.mu.Lock()
	earlier, at := u.named, u.namedAsk
	u.mu.Unlock()
	if age := a.cfg.Now().Sub(at); age >= 0 && age < namedFor {
		return earlier, nil
	}
	urls, err := u.format.BaseURLs(ctx, a.session(u, SessionOptions{}).Documents(remote.URL{}), u.Mirror)
	switch {
	case err != nil && len(earlier) > 0 && ctx.Err() == nil:
		a.cfg.Log.Warn("using an earlier mirror list", "repo", u.Name, "err", err)
		return earlier, nil // every file from them is verified
	case err != nil:
		return nil, err
	}
	for i := range urls {
		urls[i] = urls[i].Trim()
	}
	u.mu.Lock()
	u.named, u.namedAsk = urls, a.cfg.Now()
	u.mu.Unlock()
	return urls, nil
}

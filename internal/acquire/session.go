package acquire

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// SessionOptions adjust a Session.
type SessionOptions struct {
	Progress *Progress // counts bytes; may be nil
	// IgnorePauses and OnClock are as in fetch.Request. OnClock is called only
	// for responses to document requests.
	IgnorePauses int64
	OnClock      func(url string, at time.Time)
}

// Session is the work of one sync with upstream. It counts what was downloaded,
// and is safe for concurrent use.
type Session struct {
	a *Acquirer
	u *upstream
	o SessionOptions

	files, bytes atomic.Int64

	mu    sync.Mutex
	links map[remote.URL]repo.Doc // documents by absolute URL
}

// Session starts a session with the upstream of a mirror.
func (a *Acquirer) Session(mirror meta.MirrorName, o SessionOptions) (*Session, error) {
	u, err := a.upstream(mirror)
	if err != nil {
		return nil, err
	}
	return a.session(u, o), nil
}

func (a *Acquirer) session(u *upstream, o SessionOptions) *Session {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	return &Session{a: a, u: u, o: o}
}

// Fetched returns the number of files and bytes downloaded so far.
func (s *Session) Fetched() (files, bytes int64) { return s.files.Load(), s.bytes.Load() }

// Count adds files that were acquired in another way.
func (s *Session) Count(files, bytes int64) {
	s.files.Add(files)
	s.bytes.Add(bytes)
}

// FetchListed acquires a file into a batch, from the directory dir of the first base URL
// that has it.
func (s *Session) FetchListed(ctx context.Context, batch cas.Batch, bases []remote.URL, dir string, l repo.Listed) (Acquired, error) {
	l.Path, l.Alternates = dir+l.Path, below(dir, l.Alternates)
	return s.fetch(ctx, &transfer{listed: l, places: places{bases: bases}, batch: batch})
}

// FetchPackage acquires a package file into a batch, from the first base URL that
// has it.
func (s *Session) FetchPackage(ctx context.Context, batch cas.Batch, bases []remote.URL, rec *repo.Record, f repo.File) (Acquired, error) {
	return s.fetch(ctx, &transfer{listed: listedOf(f), record: rec, places: places{bases: bases}, batch: batch})
}

func (s *Session) fetch(ctx context.Context, t *transfer) (Acquired, error) {
	t.upstream, t.ignorePauses = s.u, s.o.IgnorePauses
	t.onBytes = func(n int64) { s.o.Progress.Bytes.Add(n) }
	got, err := s.a.run(ctx, t)
	if err == nil {
		s.Count(1, got.Size)
	}
	return got, err
}

// Documents returns a repo.Getter for small documents below a base URL, which may
// be zero.
func (s *Session) Documents(base remote.URL) repo.Getter { return &documents{s: s, base: base} }

// documents implements repo.Getter with the fetch client.
type documents struct {
	s    *Session
	base remote.URL
}

func (d *documents) BaseURL() remote.URL { return d.base }

func (d *documents) Get(ctx context.Context, path string, max int64, prev *repo.Doc) (repo.Doc, error) {
	return d.get(ctx, d.base.Join(path), path, max, prev)
}

// GetURL downloads each URL once per session: a metalink names the mirrors, and is later
// used to verify a file of one of them.
func (d *documents) GetURL(ctx context.Context, url remote.URL, max int64) (repo.Doc, error) {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if doc, ok := s.links[url]; ok {
		return doc, nil
	}
	doc, err := d.get(ctx, url, "", max, nil)
	if err == nil {
		if s.links == nil {
			s.links = map[remote.URL]repo.Doc{}
		}
		s.links[url] = doc
	}
	return doc, err
}

func (d *documents) get(ctx context.Context, url remote.URL, path string, max int64, prev *repo.Doc) (repo.Doc, error) {
	cfg := &d.s.a.cfg
	// Documents are small. A very slow one would keep the mirror's other URLs,
	// and all later syncs, waiting.
	timed, cancel := context.WithTimeoutCause(ctx, cfg.DocTime, fmt.Errorf("get %s: %w: not complete within %v", url, fetch.ErrUnavailable, cfg.DocTime))
	defer cancel()
	data, res, err := cfg.Client.GetBytes(timed, d.request(url, max, prev))
	if err != nil {
		return repo.Doc{}, err
	}
	if res.NotModified && prev != nil && (!res.LastModified.IsZero() && !prev.LastModified.IsZero() && !res.LastModified.Equal(prev.LastModified) ||
		res.ETag != "" && res.ETag != prev.ETag) {
		// The server answers "not modified", but not for the file that we hold: it, or
		// another server with the same name, serves an older state.
		return d.get(ctx, url, path, max, nil)
	}
	if res.NotModified {
		return repo.Doc{}, repo.ErrNotModified
	}
	d.s.Count(1, int64(len(data)))
	return repo.Doc{Path: path, Data: data, LastModified: res.LastModified, ETag: res.ETag, URL: url.String()}, nil
}

// request returns the request for a document, conditional on a change of the held
// one.
func (d *documents) request(url remote.URL, max int64, prev *repo.Doc) fetch.Request {
	u := d.s.u
	req := fetch.Request{
		URLs: []remote.URL{url}, Size: -1, MaxSize: max, Access: u.access, Scope: u.scope,
		IgnorePauses: d.s.o.IgnorePauses, OnClock: d.s.o.OnClock,
	}
	if !d.base.IsZero() {
		req.Tree = treeOf([]remote.URL{d.base})
	}
	if prev != nil {
		req.ETag = prev.ETag
		if prev.URL == url.String() && url.Scheme() != "file" && !prev.LastModified.After(d.s.a.cfg.Now()) {
			// Use a condition only for the same URL: with the time of another URL's file,
			// which may be older, some servers would answer "not modified". Copied trees
			// have arbitrary times, and nothing is newer than a time in the future.
			req.IfModifiedSince = prev.LastModified
		}
	}
	return req
}

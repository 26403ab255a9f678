package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog/sequencer"
)

// system is the parts of snapd on a data directory, without listeners and in this
// process, so that each write can be made to fail.
type system struct {
	dir     string
	mirrors []config.Mirror
	signer  *sign.Signer
	now     time.Time
	fault   func(where, what string) (apply bool, err error) // called before each write; nil: no faults
	keep    int                                              // number of generations that are not compacted; 0: all

	store     *bolt.Store
	tlog      *sequencer.Log
	logged    *sequencer.Store
	blobs     cas.Store
	client    *fetch.Client
	parts     *mirrortest.Parts
	freezer   *freezer.Freezer
	collector *gc.Collector
	control   *control.Control
	httpd     *httpd.Server
}

// open opens the system on its directory, as snapd does when it starts.
func (s *system) open() error {
	var so bolt.Options
	now := func() time.Time { return s.now }
	co := casdir.Options{Now: now}
	if s.fault != nil {
		// Indices of a freeze are compressed concurrently.
		var mu sync.Mutex
		fault := func(where, what string) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			return s.fault(where, what)
		}
		so.Fault = func(op string) (bool, error) { return fault("commit", op) }
		co.Fault = func(op, name string) (bool, error) { return fault("blob", op) }
	}
	var err error
	if s.blobs, err = casdir.Open(s.dir, co); err != nil {
		return err
	}
	if s.store, err = bolt.Open(filepath.Join(s.dir, "meta.db"), so); err != nil {
		s.blobs.Close()
		return err
	}
	if s.keep > 0 {
		made, err := indices.Open(indices.Options{Blobs: s.blobs, Meta: s.store, Dir: filepath.Join(s.dir, "indices"), Size: 64 << 20, Now: now})
		if err != nil {
			return errors.Join(err, s.store.Close(), s.blobs.Close())
		}
		s.blobs = made
	}
	if err := s.openLog(context.Background()); err != nil {
		return errors.Join(err, s.store.Close(), s.blobs.Close())
	}
	s.client = fetch.New(fetch.Config{Retries: -1})
	if s.parts, err = mirrortest.Compose(mirrortest.Config{
		// Use one connection, so that equal runs write in the same order.
		Mirrors: s.mirrors, Formats: []repo.Format{deb.Format{}, rpm.Format{}}, Store: s.logged, Blobs: s.blobs, Client: s.client, Now: now,
	}); err != nil {
		return err
	}
	s.freezer = freezer.New(freezer.Config{Formats: s.parts.Formats(), Catalog: s.parts.Catalog, Acquirer: s.parts.Acquirer, Meta: s.logged, Blobs: s.blobs, Signer: s.signer, TLog: s.tlog, PublicURL: "http://snapd.example.org", Version: "torture", Now: now})
	s.collector = gc.New(gc.Config{Formats: repo.ByType[gc.Format](s.parts.Formats()...), Catalog: s.parts, Acquirer: s.parts, Meta: s.logged, Blobs: s.blobs, Making: s.freezer.Making, Now: now, Quarantine: -time.Hour, KeepIndices: s.keep})
	conf := &config.Config{DataDir: s.dir, Mirrors: s.mirrors}
	s.control = control.New(control.Config{
		Formats: repo.ByType[control.Format](s.parts.Formats()...), Engine: s.parts.Engine, Catalog: s.parts.Catalog, Acquirer: s.parts, Meta: s.logged, Blobs: s.blobs, Freezer: s.freezer, Collector: s.collector, Signer: s.signer, TLog: s.tlog, Conf: conf, Version: "torture", Now: now,
	})
	s.httpd, err = httpd.New(httpd.Config{
		Control: s.control,
		Catalog: s.parts.Catalog, Acquirer: s.parts, Meta: s.logged, Blobs: s.blobs, Freezer: s.freezer, Signer: s.signer, TLog: s.tlog, Conf: conf, Version: "torture", Now: now,
	})
	return err
}

// close closes the system; its data stays on disk.
func (s *system) close() {
	if s.parts == nil {
		return
	}
	s.httpd.Close()
	s.parts.Close()
	s.tlog.Close()
	s.store.Close()
	s.blobs.Close()
	s.client.Close()
	s.parts = nil
}

// sync syncs a mirror.
func (s *system) sync(ctx context.Context, name string) error {
	s.now = s.now.Add(time.Minute)
	_, err := s.parts.Sync(ctx, meta.MirrorName(name), mirror.SyncOptions{AcceptClock: true}) // upstream uses the machine's clock
	return err
}

func (s *system) freeze(ctx context.Context, req api.FreezeRequest) error {
	_, err := s.freezer.Freeze(ctx, &req, nil)
	return err
}

// call runs a verb of the control API.
func (s *system) call(ctx context.Context, verb string, req any) error {
	c, err := client.Remote("http://localhost", "", controlTransport{s.httpd})
	if err != nil {
		return err
	}
	return c.Call(ctx, verb, req, nil, nil)
}

// controlTransport passes requests to the control API in this process.
type controlTransport struct{ s *httpd.Server }

func (c controlTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	c.s.Control().ServeHTTP(w, r.WithContext(httpd.WithPeer(r.Context(), &httpd.Peer{UID: uint32(os.Getuid())})))
	return w.Result(), nil
}

// publish publishes a file below /iuk/.
func (s *system) publish(ctx context.Context, file, path string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = s.control.PublishKits(ctx, &api.KitPublish{Files: []api.KitFile{{Path: path}}}, func() (io.Reader, error) { return f, nil })
	return err
}

// get requests a path from the public server.
func (s *system) get(ctx context.Context, path string) (status int, body []byte, err error) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil { // http.ErrAbortHandler aborts the response
			err = fmt.Errorf("get %s: aborted: %v", path, p)
		}
	}()
	s.httpd.Public().ServeHTTP(w, r)
	return w.Code, w.Body.Bytes(), nil
}

// record starts a recording, requests some packages through it, and stops it.
func (s *system) record(ctx context.Context, name string, packages ...string) error {
	var exists *api.Error
	err := s.call(ctx, "record/start", api.RecordStart{Name: name})
	if err != nil && !(errors.As(err, &exists) && exists.Code == api.CodeExists) {
		return err
	}
	r, err := s.store.Recording(ctx, name)
	if err != nil || !r.Stopped.IsZero() {
		return err
	}
	// A sync may have added newer packages since the recording was started.
	for _, pin := range r.Pins {
		for _, p := range packages {
			file, err := s.path(ctx, pin, p)
			if err != nil {
				return err
			}
			status, _, err := s.get(ctx, "/record/"+name+"/"+string(pin.Mirror)+"/"+file)
			if err != nil {
				return err
			}
			if status != http.StatusOK {
				return fmt.Errorf("recording %s: %s of %s: %w: %d", name, file, pin.Mirror, errStatus, status)
			}
		}
	}
	return s.call(ctx, "record/stop", api.RecordRef{Name: name})
}

// path returns the path of a binary package in the snapshot that a recording serves.
func (s *system) path(ctx context.Context, pin meta.RecordingPin, name string) (string, error) {
	snap, err := s.store.Snapshot(ctx, pin.Mirror, pin.Timestamp)
	if err != nil {
		return "", err
	}
	found, err := s.store.PackagesByName(ctx, snap, []string{name})
	if err != nil {
		return "", err
	}
	for _, e := range found[0] {
		if e.Kind == repo.KindBinary {
			return e.Files[0].Path, nil
		}
	}
	return "", fmt.Errorf("package %s is not in %s", name, pin.Mirror)
}

// errStatus is an answer other than 200.
var errStatus = errors.New("status")

// checked counts what a check examined.
type checked struct {
	Snapshots, Packages, Frozen, Blobs int
}

var hrefs = regexp.MustCompile(`href="(repodata/[^"]*)"`)

// check checks that nothing is lost: fsck finds no fault, every byte of each freeze
// verifies, the log and the channels are consistent, and the metadata of each snapshot
// are served, as are its packages if the mirror downloads all of them. Long because the
// order of its steps is the test.
func (s *system) check(ctx context.Context) (n checked, err error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	res, err := s.collector.Fsck(ctx, &api.FsckRequest{}, s.client, nil)
	if err != nil {
		return n, fmt.Errorf("fsck: %w", err)
	}
	n.Blobs = res.Blobs
	for _, f := range res.Faults {
		fault("fsck: %s: %s", f.Object, f.Message)
	}
	frozen, snaps, err := s.contents(ctx)
	if err != nil {
		return n, err
	}
	if err := s.checkLog(ctx); err != nil {
		fault("log: %w", err)
	}
	for _, f := range frozen {
		n.Frozen++
		v, err := s.freezer.Verify(ctx, &api.VerifyRequest{Ref: string(f.Name), Deep: true}, nil)
		if err != nil {
			fault("verify %s: %w", f.Name, err)
			continue
		}
		for _, x := range v.Faults {
			fault("verify %s: %s: %s", f.Name, x.Object, x.Message)
		}
	}
	if err := s.checkChannels(ctx); err != nil {
		fault("%w", err)
	}
	for _, snap := range snaps {
		n.Snapshots++
		m, err := s.parts.Mirror(snap.Mirror)
		if err != nil {
			return n, err
		}
		var paths []string
		if err := freeze.EachPackage(ctx, s.store, snap, func(e meta.Entry) error {
			for _, f := range e.Files {
				paths = append(paths, f.Path)
			}
			return nil
		}); err != nil {
			fault("packages of %s: %w", snap.ID(), err)
		}
		if len(paths) == 0 {
			fault("%s has no packages", snap.ID())
		}
		serve := func(p string) []byte {
			n.Packages++
			status, body, err := s.get(ctx, "/archive/"+string(snap.Mirror)+"/"+meta.FormatTimestamp(snap.Timestamp)+"/"+p)
			if err != nil || status != http.StatusOK {
				fault("%s of %s: status %d: %v", p, snap.ID(), status, err)
			}
			return body
		}
		if m.Download == config.All {
			for _, p := range paths {
				serve(p)
			}
		}
		if snap.Type == "deb" {
			for _, p := range []string{"dists/stable/InRelease", "dists/stable/InRelease.tlog-proof", "dists/stable/main/binary-amd64/Packages.xz", "dists/stable/main/source/Sources.xz"} {
				serve(p)
			}
			continue
		}
		serve("repodata/repomd.xml.asc")
		serve("repodata/repomd.xml.tlog-proof")
		named := hrefs.FindAllSubmatch(serve("repodata/repomd.xml"), -1)
		if len(named) < 3 {
			fault("repomd.xml of %s names %d files", snap.ID(), len(named))
		}
		for _, h := range named {
			serve(string(h[1]))
		}
	}
	return n, errors.Join(faults...)
}

// contents lists all freezes and snapshots.
func (s *system) contents(ctx context.Context) (frozen []*meta.Frozen, snaps []*meta.Snapshot, err error) {
	if frozen, err = s.store.Freezes(ctx); err != nil {
		return nil, nil, err
	}
	mirrors, err := s.store.Mirrors(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range mirrors {
		all, err := s.store.SnapshotsBefore(ctx, m, time.Time{}, 0)
		if err != nil {
			return nil, nil, err
		}
		snaps = append(snaps, all...)
	}
	return frozen, snaps, nil
}

// has returns an error if a snapshot or freeze does not exist.
func (s *system) has(ctx context.Context, ref string) error {
	name, at, snapshot := strings.Cut(ref, "@")
	if !snapshot {
		_, err := s.store.Freeze(ctx, meta.FreezeName(name))
		return err
	}
	t, err := time.Parse(meta.TimestampFormat, at)
	if err != nil {
		return err
	}
	_, err = s.store.Snapshot(ctx, meta.MirrorName(name), t)
	return err
}

// blobsOf lists the blobs to which a freeze refers.
func (s *system) blobsOf(ctx context.Context, name string) ([]cas.Digest, error) {
	f, err := s.store.Freeze(ctx, meta.FreezeName(name))
	if err != nil {
		return nil, err
	}
	nodes, err := s.store.TreeFiles(ctx, meta.FreezeName(name), "", "", math.MaxInt)
	if err != nil {
		return nil, err
	}
	images, err := s.store.Images(ctx, meta.FreezeName(name))
	if err != nil {
		return nil, err
	}
	blobs := f.Blobs()
	for _, n := range nodes {
		blobs = append(blobs, n.Digest)
	}
	for _, im := range images {
		blobs = append(blobs, im.SHA256, im.Statement)
	}
	return blobs, nil
}

// orphans describes the unreferenced blobs.
func (s *system) orphans(ctx context.Context) (out []string, err error) {
	err = s.blobs.Walk(ctx, cas.Digest{}, func(i cas.Info) error {
		referenced, err := s.store.Referenced(ctx, []cas.Digest{i.Digest})
		if err != nil || len(referenced) > 0 {
			return err
		}
		listings, err := s.store.ListedAs(ctx, i.Digest)
		if err != nil {
			return err
		}
		if current, err := s.listed(ctx, listings); err != nil || current {
			return err
		}
		needed, err := s.store.Needed(ctx, i.Digest)
		out = append(out, fmt.Sprintf("%s (%d bytes, needed: %v, %+v)", i.Digest.Short(), i.Size, needed, listings))
		return err
	})
	slices.Sort(out)
	return out, err
}

// listed reports whether an existing generation may contain one of the listings.
func (s *system) listed(ctx context.Context, listings []meta.ListedIn) (bool, error) {
	for _, l := range listings {
		if l.Last == meta.Unended {
			return true, nil
		}
		for gen := l.First; gen <= l.Last; gen++ {
			_, err := s.store.Generation(ctx, l.Mirror, l.Suite, gen)
			if err == nil || !errors.Is(err, meta.ErrNotFound) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

// collect collects garbage without any delay, and without a quarantine.
func (s *system) collect(ctx context.Context) error {
	_, err := s.collector.Run(ctx, false)
	return err
}

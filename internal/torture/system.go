package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
)

// system is the inside of a snapd on a data directory, without its listeners,
// so that each of its writes can be made to fail.
type system struct {
	dir     string
	mirrors []config.Mirror
	signer  *sign.Signer
	now     time.Time
	fault   func(where, what string) (apply bool, err error) // of every write; nil: none

	store     *bolt.Store
	blobs     *cas.Dir
	client    *fetch.Client
	engine    *mirror.Engine
	freezer   *freezer.Freezer
	collector *gc.Collector
	httpd     *httpd.Server
}

// open starts the system on its directory, as after a restart.
func (s *system) open() error {
	var so bolt.Options
	now := func() time.Time { return s.now }
	co := cas.Options{Now: now}
	if s.fault != nil {
		// A freeze compresses its indices beside each other.
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
	if s.blobs, err = cas.OpenDir(s.dir, co); err != nil {
		return err
	}
	if s.store, err = bolt.Open(filepath.Join(s.dir, "meta.db"), so); err != nil {
		s.blobs.Close()
		return err
	}
	s.client = fetch.New(fetch.Config{Retries: -1})
	if s.engine, err = mirror.New(mirror.Config{
		// One connection: equal runs write in equal order.
		Mirrors: s.mirrors, Formats: []repo.Format{deb.Format{}, rpm.Format{}}, Store: s.store, Blobs: s.blobs, Client: s.client, Now: now,
	}); err != nil {
		return err
	}
	s.freezer = freezer.New(freezer.Config{Engine: s.engine, Signer: s.signer, PublicURL: "http://snapd.example.org", Version: "torture", Now: now})
	s.collector = gc.New(gc.Config{Engine: s.engine, Making: s.freezer.Making, Now: now, Quarantine: -time.Hour})
	conf := &config.Config{DataDir: s.dir, Mirrors: s.mirrors}
	s.httpd, err = httpd.New(httpd.Config{
		Control: control.New(control.Config{
			Engine: s.engine, Freezer: s.freezer, Collector: s.collector, Signer: s.signer, Conf: conf, Version: "torture", Now: now,
		}),
		Engine: s.engine, Freezer: s.freezer, Signer: s.signer, Conf: conf, Version: "torture", Now: now,
	})
	return err
}

// close ends the system; what is on the disk stays.
func (s *system) close() {
	if s.engine == nil {
		return
	}
	s.httpd.Close()
	s.engine.Close()
	s.store.Close()
	s.blobs.Close()
	s.client.Close()
	s.engine = nil
}

// sync takes upstream's state into a mirror.
func (s *system) sync(ctx context.Context, name string) error {
	s.now = s.now.Add(time.Minute)
	_, err := s.engine.Sync(ctx, name, mirror.SyncOptions{AcceptClock: true}) // upstream's is the machine's
	return err
}

func (s *system) freeze(ctx context.Context, req api.FreezeRequest) error {
	_, err := s.freezer.Freeze(ctx, &req, nil)
	return err
}

// call runs a verb of the control API.
func (s *system) call(ctx context.Context, verb string, req any) error {
	body, err := jsonBody(req)
	if err != nil {
		return err
	}
	ctx = httpd.WithPeer(ctx, &unix.Ucred{Uid: uint32(os.Getuid())})
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://snapd/v1/"+verb, body)
	w := httptest.NewRecorder()
	s.httpd.Control().ServeHTTP(w, r)
	return lastLine(w.Body)
}

// get asks the public tree for a path.
func (s *system) get(ctx context.Context, path string) (status int, body []byte, err error) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil { // http.ErrAbortHandler: the connection is cut
			err = fmt.Errorf("get %s: cut: %v", path, p)
		}
	}()
	s.httpd.Public().ServeHTTP(w, r)
	return w.Code, w.Body.Bytes(), nil
}

// record makes a recording of some packages, from its start to its end.
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
	// A sync may have brought newer packages since the recording was started.
	for _, pin := range r.Pins {
		for _, p := range packages {
			file, err := s.path(ctx, pin, p)
			if err != nil {
				return err
			}
			status, _, err := s.get(ctx, "/record/"+name+"/"+pin.Mirror+"/"+file)
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

// path is where a binary package is in the snapshot that a recording shows.
func (s *system) path(ctx context.Context, pin meta.RecordingPin, name string) (file string, err error) {
	err = s.store.View(ctx, func(tx *bolt.Tx) error {
		snap, err := tx.Snapshot(pin.Mirror, pin.Timestamp)
		if err != nil {
			return err
		}
		facts, err := tx.ByName(pin.Mirror, name)
		for _, f := range facts {
			if places, err := tx.PlacesAt(snap, f.PID); err == nil && len(places) > 0 && f.Kind == repo.KindBinary {
				file = f.Files[0].Path
			}
		}
		return err
	})
	if err == nil && file == "" {
		err = fmt.Errorf("package %s is not in %s", name, pin.Mirror)
	}
	return file, err
}

// errStatus is an answer other than 200.
var errStatus = errors.New("status")

// checked counts what a check looked at.
type checked struct {
	Snapshots, Packages, Frozen, Blobs int
}

var hrefs = regexp.MustCompile(`href="(repodata/[^"]*)"`)

// check proves that nothing is lost: the metadata agrees with itself and with
// the blobs, each frozen snapshot verifies with every byte, and each package of
// each snapshot of a mirror that takes everything is served.
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
	var frozen []*meta.Frozen
	var snaps []*meta.Snapshot
	err = s.store.View(ctx, func(tx *bolt.Tx) (err error) {
		if frozen, err = tx.Frozens(); err != nil {
			return err
		}
		for _, m := range tx.Mirrors() {
			all, err := tx.Snapshots(m, time.Time{}, 0)
			if err != nil {
				return err
			}
			snaps = append(snaps, all...)
		}
		return nil
	})
	if err != nil {
		return n, err
	}
	for _, f := range frozen {
		n.Frozen++
		v, err := s.freezer.Verify(ctx, &api.VerifyRequest{Ref: f.Name, Deep: true}, nil)
		if err != nil {
			fault("verify %s: %w", f.Name, err)
			continue
		}
		for _, x := range v.Faults {
			fault("verify %s: %s: %s", f.Name, x.Object, x.Message)
		}
	}
	for _, snap := range snaps {
		n.Snapshots++
		m, err := s.engine.Mirror(snap.Mirror)
		if err != nil {
			return n, err
		}
		var paths []string
		if err := s.engine.EachPackage(ctx, snap, func(e meta.Entry) error {
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
			status, body, err := s.get(ctx, "/archive/"+snap.Mirror+"/"+meta.FormatTimestamp(snap.Timestamp)+"/"+p)
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
			for _, p := range []string{"dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz", "dists/stable/main/source/Sources.xz"} {
				serve(p)
			}
			continue
		}
		serve("repodata/repomd.xml.asc")
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

// orphans lists blobs that nothing refers to.
func (s *system) orphans(ctx context.Context) (out []string, err error) {
	err = s.blobs.Walk(ctx, cas.Digest{}, func(i cas.Info) error {
		return s.store.View(ctx, func(tx *bolt.Tx) error {
			if len(tx.Refs(i.Digest, 1)) == 0 && !listed(tx, i.Digest) {
				out = append(out, fmt.Sprintf("%s (%d bytes, needed: %v, %+v)", i.Digest.Short(), i.Size, tx.Needed(i.Digest), tx.Listings(i.Digest)))
			}
			return nil
		})
	})
	slices.Sort(out)
	return out, err
}

// listed tells whether a generation that is left may list a digest.
func listed(tx *bolt.Tx, d cas.Digest) bool {
	for _, l := range tx.Listings(d) {
		if l.Last == meta.Unended {
			return true
		}
		for gen := l.First; gen <= l.Last; gen++ {
			if _, err := tx.Generation(l.Mirror, l.Suite, gen); err == nil {
				return true
			}
		}
	}
	return false
}

// collect runs a collection that has no patience.
func (s *system) collect(ctx context.Context) error {
	_, err := s.collector.Run(ctx, false)
	return err
}

func lastLine(r io.Reader) error { return decodeLines(r, nil) }

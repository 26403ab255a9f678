package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
)

// url is the public address of a path of the public tree.
func (s *Server) url(parts ...string) string {
	u := s.cfg.Conf.Server.PublicURL
	for _, p := range parts {
		u += "/" + url.PathEscape(p)
	}
	return u + "/"
}

func (s *Server) list(ctx context.Context, req api.ListRequest, _ func(api.Progress)) (api.SnapshotList, error) {
	out := api.SnapshotList{Snapshots: []api.Snapshot{}, Frozen: []api.Frozen{}}
	var names []string
	if err := s.view(ctx, func(tx *bolt.Tx) error { names = tx.Mirrors(); return nil }); err != nil {
		return out, err
	}
	if req.Mirror != "" {
		if !slices.Contains(names, req.Mirror) {
			if _, err := s.e.Mirror(req.Mirror); err != nil {
				return out, err
			}
		}
		names = []string{req.Mirror}
	}
	frozen, recordings, err := s.users(ctx)
	if err != nil {
		return out, err
	}
	if !req.Frozen {
		for _, n := range names {
			var serr error
			err := s.eachSnapshot(ctx, n, func(snap *meta.Snapshot) bool {
				one, err := s.snapshot(ctx, snap, false)
				one.UsedBy = usedBy(snap, frozen, recordings)
				out.Snapshots = append(out.Snapshots, one)
				serr = err
				return err == nil
			})
			if err := errors.Join(err, serr); err != nil {
				return out, err
			}
		}
		slices.SortStableFunc(out.Snapshots, byNewest)
	}
	for _, f := range frozen {
		if req.Mirror != "" && frozenMirror(f, req.Mirror) < 0 {
			continue
		}
		one, err := s.frozenView(ctx, f)
		if err != nil {
			return out, err
		}
		out.Frozen = append(out.Frozen, one)
	}
	slices.SortStableFunc(out.Frozen, func(a, b api.Frozen) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// users are the frozen snapshots and recordings, which rest on snapshots.
func (s *Server) users(ctx context.Context) (frozen []*meta.Frozen, recordings []*meta.Recording, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) (err error) {
		if frozen, err = tx.Frozens(); err != nil {
			return err
		}
		recordings, err = tx.Recordings()
		return err
	})
	return frozen, recordings, err
}

func usedBy(snap *meta.Snapshot, frozen []*meta.Frozen, recordings []*meta.Recording) []string {
	var out []string
	for _, f := range frozen {
		if slices.ContainsFunc(f.Mirrors, func(m meta.FrozenMirror) bool { return m.Mirror == snap.Mirror && m.Timestamp.Equal(snap.Timestamp) }) {
			out = append(out, "frozen snapshot "+f.Name)
		}
	}
	for _, r := range recordings {
		if shows(r, snap) {
			out = append(out, "recording "+r.Name)
		}
	}
	return out
}

func shows(r *meta.Recording, snap *meta.Snapshot) bool {
	return slices.ContainsFunc(r.Pins, func(p meta.RecordingPin) bool { return p.Mirror == snap.Mirror && p.Timestamp.Equal(snap.Timestamp) })
}

func (s *Server) snapshot(ctx context.Context, snap *meta.Snapshot, deep bool) (api.Snapshot, error) {
	out := api.Snapshot{
		ID: snap.ID(), Mirror: snap.Mirror, Type: snap.Type, Timestamp: snap.Timestamp, FromURL: remote.Redact(snap.FromURL),
		URL: s.url("archive", snap.Mirror, meta.FormatTimestamp(snap.Timestamp)),
	}
	if snap.Pinned != nil {
		out.Pinned, out.Until = true, optional(*snap.Pinned)
	}
	var err error
	out.Suites, err = s.suites(ctx, snap, deep)
	return out, err
}

func (s *Server) frozenView(ctx context.Context, f *meta.Frozen) (api.Frozen, error) {
	out := api.Frozen{
		Name: f.Name, Date: f.Date, Created: f.Created, Manifest: f.Manifest.SHA256.String(), Key: f.Key,
		Mirrors: []api.FrozenMirror{}, Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, URL: s.url("frozen", f.Name),
		Images: []api.Image{}, Imported: f.Imported,
	}
	for i := range f.Mirrors {
		m := &f.Mirrors[i]
		fm := api.FrozenMirror{Mirror: m.Mirror, Type: m.Type, Kind: "exact", Suites: []string{}}
		if m.Whole {
			fm.Kind = "whole"
		}
		if !m.Timestamp.IsZero() {
			fm.Snapshot = m.Mirror + "@" + meta.FormatTimestamp(m.Timestamp)
		}
		for _, su := range m.Suites {
			fm.Suites = append(fm.Suites, string(su.Suite))
			if su.Gen == 0 {
				continue
			}
			err := s.view(ctx, func(tx *bolt.Tx) error {
				g, err := tx.Generation(m.Mirror, su.Suite, su.Gen)
				if err != nil {
					return err
				}
				fm.Trust = weakest(fm.Trust, string(g.Trust))
				if m.Whole {
					fm.Packages += g.Packages
					fm.Sources += g.Sources
				}
				return nil
			})
			if err != nil {
				return out, err
			}
		}
		out.Mirrors = append(out.Mirrors, fm)
	}
	for _, st := range f.Statements {
		out.Statements = append(out.Statements, st.Path)
	}
	err := s.view(ctx, func(tx *bolt.Tx) error {
		images, err := tx.Images(f.Name)
		for _, im := range images {
			out.Images = append(out.Images, api.Image{Name: im.Name, Variant: im.Variant, SHA256: im.SHA256.String(), Size: im.Size})
		}
		return err
	})
	if err != nil {
		return out, err
	}
	if s.cfg.Services.FrozenDetail != nil {
		err = s.cfg.Services.FrozenDetail(ctx, f, &out)
	}
	return out, err
}

// weakest of two levels of trust.
func weakest(a, b string) string {
	order := []string{string(repo.TrustSignature), string(repo.TrustMetalink), string(repo.TrustNone)}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

func (s *Server) show(ctx context.Context, req api.RefRequest, _ func(api.Progress)) (api.ShowResult, error) {
	ref, _, err := s.e.ResolvePast(ctx, req.Ref)
	if err != nil {
		return api.ShowResult{}, err
	}
	if ref.Frozen != nil {
		f, err := s.frozenView(ctx, ref.Frozen)
		return api.ShowResult{Frozen: &f}, err
	}
	snap, err := s.snapshot(ctx, ref.Snapshot, true)
	if err != nil {
		return api.ShowResult{}, err
	}
	frozen, recordings, err := s.users(ctx)
	snap.UsedBy = usedBy(ref.Snapshot, frozen, recordings)
	return api.ShowResult{Snapshot: &snap}, err
}

func (s *Server) packages(ctx context.Context, req api.RefRequest, _ func(api.Progress)) (api.PackageList, error) {
	out := api.PackageList{Packages: []api.Package{}}
	ref, _, err := s.e.ResolvePast(ctx, req.Ref)
	if err != nil {
		return out, err
	}
	out.Ref = ref.String()
	err = s.eachPackage(ctx, ref, func(p api.Package) error {
		out.Packages = append(out.Packages, p)
		return nil
	})
	return out, err
}

// eachPackage calls f for each package of a reference, by mirror and name.
func (s *Server) eachPackage(ctx context.Context, ref mirror.Ref, f func(api.Package) error) error {
	if ref.Frozen != nil {
		if s.cfg.Services.FrozenPackages == nil {
			return fmt.Errorf("packages of frozen snapshot %s: %w", ref.Frozen.Name, meta.ErrNotFound)
		}
		return s.cfg.Services.FrozenPackages(ctx, ref.Frozen, f)
	}
	// The engine goes by name; one name's are put in order here.
	var same []api.Package
	flush := func() error {
		slices.SortStableFunc(same, func(a, b api.Package) int {
			return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.SHA256, b.SHA256))
		})
		for _, p := range same {
			if err := f(p); err != nil {
				return err
			}
		}
		same = same[:0]
		return nil
	}
	err := s.e.EachPackage(ctx, ref.Snapshot, func(en meta.Entry) error {
		if len(same) > 0 && same[0].Name != en.Name {
			if err := flush(); err != nil {
				return err
			}
		}
		same = append(same, PackageOf(ref.Snapshot.Mirror, en))
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// PackageOf is a stanza as the API shows it.
func PackageOf(mirrorName string, en meta.Entry) api.Package {
	p := packageOf(mirrorName, en.Fact)
	for _, pl := range en.Places {
		if !slices.Contains(p.Suites, string(pl.Suite)) {
			p.Suites = append(p.Suites, string(pl.Suite))
		}
		if c, _, ok := strings.Cut(pl.Index, "/"); ok && c != "repodata" && !slices.Contains(p.Components, c) {
			p.Components = append(p.Components, c)
		}
	}
	slices.Sort(p.Suites)
	slices.Sort(p.Components)
	return p
}

func packageOf(mirrorName string, f *meta.Fact) api.Package {
	p := api.Package{Mirror: mirrorName, Name: f.Name, Version: f.Version, Arch: f.Arch}
	if len(f.Sources) > 0 && f.Kind != repo.KindSource {
		p.Source, p.SourceVersion = f.Sources[0].Name, f.Sources[0].Version
	}
	for i, file := range f.Files {
		if f.Kind == repo.KindSource {
			p.Files = append(p.Files, apiFile(file))
		}
		// A source package is known by its .dsc, which Debian lists first or not,
		// and as large as all its files.
		if i == 0 || strings.HasSuffix(file.Path, ".dsc") {
			p.Path, p.SHA256 = file.Path, file.SHA256.String()
		}
		p.Size += file.Size
	}
	return p
}

func (s *Server) find(ctx context.Context, req api.FindRequest, _ func(api.Progress)) (api.FindResult, error) {
	out := api.FindResult{Matches: []api.Match{}}
	if req.Name == "" {
		return out, fmt.Errorf("%w: find needs a package's name", ErrUsage)
	}
	var mirrors []string
	if err := s.view(ctx, func(tx *bolt.Tx) error { mirrors = tx.Mirrors(); return nil }); err != nil {
		return out, err
	}
	frozen, _, err := s.users(ctx)
	if err != nil {
		return out, err
	}
	for _, m := range mirrors {
		found, err := s.findIn(ctx, m, req, frozen)
		if err != nil {
			return out, err
		}
		out.Matches = append(out.Matches, found...)
	}
	return out, nil
}

// history is one stanza with where it is and was.
type history struct {
	fact        *meta.Fact
	spans       map[repo.SuiteName][]meta.Span
	components  []string
	suites      []string
	frozen      []string
	first, last *meta.Snapshot
}

func (h *history) at(snap *meta.Snapshot) bool {
	for _, e := range snap.Suites {
		for _, sp := range h.spans[e.Suite] {
			if sp.Has(e.Gen) {
				return true
			}
		}
	}
	return false
}

func (s *Server) findIn(ctx context.Context, name string, req api.FindRequest, frozen []*meta.Frozen) ([]api.Match, error) {
	var all []*history
	err := s.view(ctx, func(tx *bolt.Tx) error {
		facts, err := tx.ByName(name, req.Name)
		if err != nil {
			return err
		}
		for _, f := range facts {
			if req.Version != "" && f.Version != req.Version {
				continue
			}
			h := &history{fact: f, spans: map[repo.SuiteName][]meta.Span{}}
			for _, sp := range tx.Spans(f.PID) {
				_, suite, index, err := tx.IndexName(sp.Index)
				if err != nil {
					return err
				}
				h.spans[suite] = append(h.spans[suite], sp)
				h.suites = append(h.suites, string(suite))
				if c, _, ok := strings.Cut(index, "/"); ok && c != "repodata" {
					h.components = append(h.components, c)
				}
			}
			for _, file := range f.Files {
				for _, r := range tx.Refs(file.SHA256, 0) {
					if r.Kind == meta.OwnerFrozen {
						h.frozen = append(h.frozen, r.Owner)
					}
				}
			}
			for _, fr := range frozen {
				if i := frozenMirror(fr, name); i >= 0 && fr.Mirrors[i].Whole {
					if v := wholeView(fr, i); v != nil && h.at(v) {
						h.frozen = append(h.frozen, fr.Name)
					}
				}
			}
			all = append(all, h)
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if err := s.eachSnapshot(ctx, name, func(snap *meta.Snapshot) bool {
		for _, h := range all {
			if h.at(snap) {
				h.first = snap
				if h.last == nil {
					h.last = snap
				}
			}
		}
		return true
	}); err != nil {
		return nil, err
	}
	var out []api.Match
	for _, h := range all {
		m := api.Match{Package: packageOf(name, h.fact), Here: true, Frozen: []string{}}
		m.Suites, m.Components, m.Frozen = sortedSet(h.suites), sortedSet(h.components), append(m.Frozen, sortedSet(h.frozen)...)
		if h.first == nil && len(m.Frozen) == 0 {
			continue // only in snapshots that were removed
		}
		if h.first != nil {
			m.First, m.Last = h.first.ID(), h.last.ID()
		}
		for _, file := range h.fact.Files {
			if _, err := s.blobs().Stat(ctx, file.SHA256); err != nil {
				m.Here = false
			}
		}
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b api.Match) int {
		return cmp.Or(strings.Compare(b.Last[strings.IndexByte(b.Last, '@')+1:], a.Last[strings.IndexByte(a.Last, '@')+1:]), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version))
	})
	return out, nil
}

func sortedSet(in []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(in)))
}

func (s *Server) pin(ctx context.Context, req api.PinRequest, _ func(api.Progress)) (api.Snapshot, error) {
	snap, err := s.exact(ctx, req.Ref)
	if err != nil {
		return api.Snapshot{}, err
	}
	var until time.Time
	if req.Until != nil {
		if until = req.Until.UTC().Truncate(time.Second); !until.After(s.now()) {
			return api.Snapshot{}, fmt.Errorf("%w: --until %s lies in the past", ErrUsage, until.Format(time.RFC3339))
		}
	}
	return s.repin(ctx, snap, func(tx *bolt.Tx) error { return tx.Pin(snap.Mirror, snap.Timestamp, until) })
}

func (s *Server) unpin(ctx context.Context, req api.PinRequest, _ func(api.Progress)) (api.Snapshot, error) {
	snap, err := s.exact(ctx, req.Ref)
	if err != nil {
		return api.Snapshot{}, err
	}
	return s.repin(ctx, snap, func(tx *bolt.Tx) error { return tx.Unpin(snap.Mirror, snap.Timestamp) })
}

func (s *Server) repin(ctx context.Context, snap *meta.Snapshot, f func(*bolt.Tx) error) (api.Snapshot, error) {
	if err := s.e.Store().Update(ctx, "pin", f); err != nil {
		return api.Snapshot{}, err
	}
	var now *meta.Snapshot
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		now, err = tx.Snapshot(snap.Mirror, snap.Timestamp)
		return err
	})
	if err != nil {
		return api.Snapshot{}, err
	}
	return s.snapshot(ctx, now, true)
}

// exact finds the snapshot that a reference names, for verbs that change it.
func (s *Server) exact(ctx context.Context, ref string) (*meta.Snapshot, error) {
	r, _, err := s.e.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Snapshot == nil {
		return nil, fmt.Errorf("%w: %s is a frozen snapshot, which stays until it is removed: expected MIRROR@TIMESTAMP", ErrUsage, ref)
	}
	return r.Snapshot, nil
}

// clearPage bounds the files of a frozen tree that one transaction drops.
const clearPage = 1000

func (s *Server) remove(ctx context.Context, req api.RefRequest, _ func(api.Progress)) (api.RemoveResult, error) {
	ref, err := s.e.ResolveRef(ctx, req.Ref)
	if err != nil {
		return api.RemoveResult{}, err
	}
	if ref.Frozen != nil {
		name := ref.Frozen.Name
		if err := s.publish(ctx, "rm", func(tx *bolt.Tx) error { return tx.RemoveFrozen(name) }); err != nil {
			return api.RemoveResult{}, err
		}
		// If we stop here, the next freeze of that name or the next collection
		// clears the tree, which nothing shows any more.
		for more := true; more; {
			err := s.e.Store().Update(ctx, "rm", func(tx *bolt.Tx) (err error) {
				// A freeze is being made from before its first file: one of this name
				// that begins after this question finds the tree cleared.
				if s.cfg.Services.Making != nil && s.cfg.Services.Making(name) {
					more = false
					return nil
				}
				more, err = tx.ClearFrozenTree(name, clearPage)
				return err
			})
			if err != nil {
				return api.RemoveResult{}, err
			}
		}
		return api.RemoveResult{Removed: name}, nil
	}
	snap := ref.Snapshot
	if at := req.Ref[strings.IndexByte(req.Ref, '@')+1:]; at != mirror.Latest {
		// What is removed must be named exactly, not by what comes before it.
		if t, err := mirror.ParseTimestamp(at); err != nil || !t.Equal(snap.Timestamp) {
			return api.RemoveResult{}, fmt.Errorf("%w: no snapshot is exactly %s; the one before is %s", ErrUsage, req.Ref, snap.ID())
		}
	}
	err = s.publish(ctx, "rm", func(tx *bolt.Tx) error {
		now, err := tx.Snapshot(snap.Mirror, snap.Timestamp)
		if err != nil {
			return err
		}
		if now.Pinned != nil && (now.Pinned.IsZero() || now.Pinned.After(s.now())) {
			return fmt.Errorf("snapshot %s: %w: it is pinned", snap.ID(), ErrInUse)
		}
		recs, err := tx.Recordings()
		if err != nil {
			return err
		}
		for _, r := range recs {
			if shows(r, snap) {
				return fmt.Errorf("snapshot %s: %w: recording %s shows it", snap.ID(), ErrInUse, r.Name)
			}
		}
		if last, err := tx.Latest(snap.Mirror); err != nil {
			return err
		} else if _, cerr := s.e.Mirror(snap.Mirror); cerr == nil && last.Timestamp.Equal(snap.Timestamp) {
			// `latest` never goes back.
			return fmt.Errorf("snapshot %s: %w: it is the newest of its mirror", snap.ID(), ErrInUse)
		}
		return tx.RemoveSnapshot(snap.Mirror, snap.Timestamp)
	})
	return api.RemoveResult{Removed: snap.ID()}, err
}

func (s *Server) keyInfo() api.KeyInfo {
	k := s.cfg.Signer.Public()
	out := api.KeyInfo{
		Fingerprint: k.Fingerprint, UserID: k.UserID, Created: k.Created, Expires: optional(k.Expires), Algorithm: k.Algorithm,
		Armored: s.cfg.Signer.PublicKeyArmored(),
	}
	if len(s.cfg.Conf.Signing.Command) == 0 {
		out.File = s.cfg.Conf.Signing.KeyFile
	}
	return out
}

func (s *Server) keyShow(context.Context, api.Empty, func(api.Progress)) (api.KeyInfo, error) {
	return s.keyInfo(), nil
}

// kitPublish stores files and puts them below /iuk/. All of them appear at once.
func (s *Server) kitPublish(ctx context.Context, req api.KitPublish, progress func(api.Progress)) (api.KitPublish, error) {
	if len(req.Files) == 0 {
		return req, fmt.Errorf("%w: no file to publish", ErrUsage)
	}
	batch := s.blobs().NewBatch()
	defer batch.Discard()
	kits := make([]meta.Kit, len(req.Files))
	for i, f := range req.Files {
		p, ok := cleanPath("/" + f.Path)
		if !ok || p == "/" || strings.HasSuffix(p, "/") || len(p) > 1024 {
			return req, fmt.Errorf("%w: path %q below /iuk/: expected a relative path that stays below it", ErrUsage, f.Path)
		}
		if !filepath.IsAbs(f.File) {
			return req, fmt.Errorf("%w: file %q: expected an absolute path", ErrUsage, f.File)
		}
		progress(api.Progress{Phase: "storing " + filepath.Base(f.File), Files: int64(i), FilesTotal: int64(len(req.Files))})
		info, err := storeFile(ctx, batch, f.File)
		if err != nil {
			return req, err
		}
		kits[i] = meta.Kit{Path: p[1:], Digest: info.Digest, Size: info.Size}
	}
	// Invariant 1: durable before metadata names them.
	if err := s.e.Flush(ctx, batch); err != nil {
		return req, err
	}
	return req, s.publish(ctx, "kit", func(tx *bolt.Tx) error {
		for _, k := range kits {
			if err := tx.PutKit(k); err != nil {
				return err
			}
		}
		return nil
	})
}

func storeFile(ctx context.Context, batch cas.Batch, name string) (cas.Info, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return cas.Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return cas.Info{}, err
	}
	w, err := batch.Create(ctx)
	if err != nil {
		return cas.Info{}, err
	}
	defer w.Abort()
	// One byte more shows a file that grows.
	if _, err := io.Copy(w, io.LimitReader(regfile.WithContext(ctx, f), st.Size()+1)); err != nil {
		return cas.Info{}, fmt.Errorf("store %s: %w", name, err)
	}
	return w.Commit(cas.Digest{}, st.Size(), st.ModTime())
}

// checkNewName refuses names that a recording cannot have.
func (s *Server) checkNewName(ctx context.Context, name string) error {
	if err := s.e.CheckName(ctx, name); err != nil {
		return err
	}
	return s.view(ctx, func(tx *bolt.Tx) error {
		if _, err := tx.Frozen(name); err == nil {
			return fmt.Errorf("recording %s: %w: a frozen snapshot has it", name, errTaken)
		} else if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		if _, err := tx.Recording(name); err == nil {
			return fmt.Errorf("recording %s: %w: another recording has it", name, errTaken)
		} else if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		return nil
	})
}

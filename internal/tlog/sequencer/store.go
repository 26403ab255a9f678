package sequencer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/retention"
	logfmt "example.org/snapd/internal/tlog"
)

// Store is metadata whose publications are logged: each operation that makes something
// visible appends its entry first. Removals by age, which the engine decides, are logged
// after they have taken effect; the next start logs those that a crash left out.
type Store struct {
	meta.Store
	log *Log
}

// Logged returns metadata whose publications are logged.
func (l *Log) Logged(st meta.Store) *Store { return &Store{st, l} }

// Seal implements meta.Writer.
func (s *Store) Seal(ctx context.Context, sealing *meta.Sealing, now time.Time) (*meta.Snapshot, error) {
	at, err := s.timestamp(ctx, sealing, now)
	if err != nil {
		return nil, err
	}
	var leaves []logfmt.Leaf
	for i := range sealing.Generations {
		leaves = append(leaves, generationLeaf(&sealing.Generations[i], at))
	}
	if err := s.log.Announce(ctx, leaves...); err != nil {
		return nil, err
	}
	snap, err := s.Store.Seal(ctx, sealing, at)
	if err != nil {
		return nil, s.withdraw(ctx, err, leaves)
	}
	s.log.Settle(leaves...)
	if !snap.Timestamp.Equal(at) {
		return nil, fmt.Errorf("%w: snapshot %s was sealed, the transparency log has %s", meta.ErrCorrupt, snap.ID(), meta.FormatTimestamp(at))
	}
	return snap, nil
}

// timestamp returns the timestamp that the engine will choose. It is later than all in
// the log, even those that were announced and never sealed, which are not used again.
func (s *Store) timestamp(ctx context.Context, sealing *meta.Sealing, now time.Time) (time.Time, error) {
	mirror := sealing.Snapshot.Mirror
	if sealing.History {
		at := sealing.Snapshot.Timestamp.UTC().Truncate(time.Second)
		_, err := s.Snapshot(ctx, mirror, at)
		switch {
		case errors.Is(err, meta.ErrNotFound):
			return at, nil
		case err != nil:
			return at, err
		}
		return at, fmt.Errorf("snapshot %s: %w", sealing.Snapshot.ID(), meta.ErrExists)
	}
	at := now.UTC().Truncate(time.Second)
	later := func(t time.Time) {
		if !at.After(t) {
			at = t.Add(time.Second)
		}
	}
	switch last, err := s.Latest(ctx, mirror); {
	case err == nil:
		later(last.Timestamp)
	case !errors.Is(err, meta.ErrNotFound):
		return at, err
	}
	gone, err := s.RemovedTimestamps(ctx, mirror)
	if err != nil {
		return at, err
	}
	newest, err := s.log.Newest(ctx, mirror)
	if err != nil {
		return at, err
	}
	for _, t := range append(gone, newest) {
		later(t)
	}
	return at, nil
}

// withdraw logs that announced objects do not exist, and returns the error that prevented
// them. If the outcome is unknown, the next start logs it.
func (s *Store) withdraw(ctx context.Context, cause error, leaves []logfmt.Leaf) error {
	if errors.Is(cause, durable.ErrUnknown) {
		return cause
	}
	if err := s.log.Withdraw(context.WithoutCancel(ctx), leaves...); err != nil {
		s.log.log.Warn("a log entry could not be written, the next start writes it", "err", err)
	}
	return cause
}

// generationLeaf returns the entry for a generation.
func generationLeaf(g *meta.Generation, at time.Time) *logfmt.Snapshot {
	l := &logfmt.Snapshot{Mirror: string(g.Mirror), Suite: string(g.Suite), Timestamp: meta.FormatTimestamp(at), Date: g.Date.UTC().Format(time.RFC3339)}
	if len(g.Docs) > 0 {
		l.Release = g.Docs[0].SHA256
	}
	for _, k := range g.Signers {
		l.Signers = append(l.Signers, string(k.Fingerprint))
	}
	return l
}

// Publish implements meta.Publisher.
func (s *Store) Publish(ctx context.Context, f *meta.Frozen) error {
	_, err := s.Freeze(ctx, f.Name)
	if removed, ok := errors.AsType[*meta.RemovedError](err); ok && removed.Manifest != f.Manifest.SHA256 {
		return removed.Taken()
	}
	switch {
	case err == nil:
		return s.Store.Publish(ctx, f) // the freeze exists: the engine reports whether its contents differ
	case !errors.Is(err, meta.ErrNotFound):
		return err
	}
	_, err = s.Channel(ctx, string(f.Name))
	if err := meta.Vacant(err, (&meta.Channel{Name: string(f.Name)}).NameTaken("freeze")); err != nil {
		return err
	}
	leaf := freezeLeaf(f)
	if err := s.log.Announce(ctx, leaf); err != nil {
		return err
	}
	if len(f.Statements) > 0 {
		if err := s.log.Append(ctx, statementLeaves(f, nil)...); err != nil {
			return s.withdraw(ctx, err, []logfmt.Leaf{leaf})
		}
	}
	if err := s.Store.Publish(ctx, f); err != nil {
		return s.withdraw(ctx, err, []logfmt.Leaf{leaf})
	}
	s.log.Settle(leaf)
	return nil
}

// freezeLeaf returns the entry for a freeze.
func freezeLeaf(f *meta.Frozen) *logfmt.Frozen {
	return &logfmt.Frozen{Name: string(f.Name), Manifest: f.Manifest.SHA256, Signature: f.Signature.SHA256, Key: string(f.Key)}
}

// RemoveFreeze implements meta.Publisher. It appends the entry first. If the removal then
// fails, it appends another entry, saying that the freeze still exists. If the outcome is
// unknown, which ends the process, the next start appends that entry if the freeze does
// exist.
func (s *Store) RemoveFreeze(ctx context.Context, name meta.FreezeName, at time.Time) error {
	f, err := s.Freeze(ctx, name)
	if err != nil {
		return err
	}
	channels, err := s.Channels(ctx)
	if err != nil {
		return err
	}
	if err := retention.Freeze(name, channels, at); err != nil {
		return err
	}
	if err := s.log.Append(ctx, &logfmt.Removed{Kind: logfmt.KindFreeze, Name: string(name), Manifest: f.Manifest.SHA256}); err != nil {
		return err
	}
	if err := s.Store.RemoveFreeze(ctx, name, at); err != nil {
		return s.remains(ctx, err, freezeLeaf(f))
	}
	return nil
}

// remains logs that an object still exists, after an entry that announced its removal,
// and returns the error that prevented the removal.
func (s *Store) remains(ctx context.Context, cause error, leaf logfmt.Leaf) error {
	if errors.Is(cause, durable.ErrUnknown) {
		return cause
	}
	if err := s.log.Append(context.WithoutCancel(ctx), leaf); err != nil {
		s.log.log.Warn("a log entry could not be written, the next start writes it", "err", err)
	}
	return cause
}

// AddStatement implements meta.Publisher.
func (s *Store) AddStatement(ctx context.Context, st meta.StatementFiles) error {
	if leaf := statementLeaf(st); leaf != nil {
		if err := s.log.Append(ctx, leaf); err != nil {
			return err
		}
	}
	return s.Store.AddStatement(ctx, st)
}

// RemoveStatement implements meta.Publisher. It appends the entry first, like
// RemoveFreeze.
func (s *Store) RemoveStatement(ctx context.Context, name meta.FreezeName, manifest cas.Digest, file repo.File) error {
	f, err := s.Store.Freeze(ctx, name)
	if err != nil {
		return err
	}
	if f.Manifest.SHA256 != manifest || !slices.Contains(f.Statements, file) {
		return s.Store.RemoveStatement(ctx, name, manifest, file) // returns the right error
	}
	if err := s.log.Append(ctx, &logfmt.Removed{Kind: logfmt.KindAttestation, Name: string(name) + "/" + file.SHA256.String()}); err != nil {
		return err
	}
	if err := s.Store.RemoveStatement(ctx, name, manifest, file); err != nil {
		st := meta.StatementFiles{Freeze: name, Manifest: manifest, Files: []repo.File{file}}
		return s.remains(ctx, err, statementLeaf(st))
	}
	return nil
}

// statementLeaves returns the entries for the statements of a freeze with images.
func statementLeaves(f *meta.Frozen, images []meta.Image) (out []logfmt.Leaf) {
	for _, file := range f.Statements {
		if strings.HasSuffix(file.Path, ".asc") {
			continue
		}
		st := meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Files: []repo.File{file}}
		if i := slices.IndexFunc(images, func(im meta.Image) bool { return im.Statement == file.SHA256 }); i >= 0 {
			st.Image = &images[i]
		}
		out = append(out, statementLeaf(st))
	}
	return out
}

// statementLeaf returns the entry for a statement about a freeze.
func statementLeaf(st meta.StatementFiles) logfmt.Leaf {
	if len(st.Files) == 0 {
		return nil
	}
	l := &logfmt.Statement{About: string(st.Freeze), Kind: "attestation", Digest: st.Files[0].SHA256, Subject: st.Manifest}
	switch name := path.Base(st.Files[0].Path); {
	case st.Image != nil:
		l.Kind, l.Subject = "image", st.Image.SHA256
	case strings.HasPrefix(name, "image-"):
		l.Kind = "image"
	case strings.HasPrefix(name, "signature-"):
		l.Kind = "resign"
	case strings.HasPrefix(name, "comparison-"):
		l.Kind = "comparison"
	case strings.HasPrefix(name, "labels-"):
		l.Kind = "labels"
	}
	return l
}

// PutKits implements meta.Publisher.
func (s *Store) PutKits(ctx context.Context, kits []meta.Kit) error {
	var leaves []logfmt.Leaf
	for _, k := range kits {
		leaves = append(leaves, kitLeaf(k))
	}
	if err := s.log.Append(ctx, leaves...); err != nil {
		return err
	}
	return s.Store.PutKits(ctx, kits)
}

// maxAbout limits the path of a kit in an entry, in bytes.
const maxAbout = 400

// KitSubject returns the subject of the entry for a file below /iuk/.
func KitSubject(k meta.Kit) string { return kitLeaf(k).Subjects()[0] }

// kitLeaf returns the entry for a file below /iuk/. A path that is too long for an entry
// is replaced by its digest.
func kitLeaf(k meta.Kit) logfmt.Leaf {
	l := &logfmt.Statement{About: k.Path, Kind: "udf", Digest: k.Digest, Subject: k.Digest}
	if strings.HasSuffix(k.Path, ".iuk") {
		l.Kind = "kit"
	}
	if len(l.About) > maxAbout {
		l.About = "sha256:" + cas.Sum([]byte(k.Path)).String()
	}
	return l
}

// RemoveSnapshot implements meta.Keeper.
func (s *Store) RemoveSnapshot(ctx context.Context, mirror meta.MirrorName, at time.Time, keepNewest bool, now time.Time) error {
	if err := s.log.witnesses.refused(); err != nil {
		return err
	}
	if err := s.Store.RemoveSnapshot(ctx, mirror, at, keepNewest, now); err != nil {
		return err
	}
	return s.log.Append(context.WithoutCancel(ctx), removedSnapshot(mirror, at))
}

// RemoveExpired implements meta.Collection.
func (s *Store) RemoveExpired(ctx context.Context, keep []meta.Keep, now time.Time, limit int) ([]*meta.Snapshot, error) {
	if err := s.log.witnesses.refused(); err != nil {
		return nil, err
	}
	removed, err := s.Store.RemoveExpired(ctx, keep, now, limit)
	if err != nil {
		return removed, err
	}
	var leaves []logfmt.Leaf
	for _, snap := range removed {
		leaves = append(leaves, removedSnapshot(snap.Mirror, snap.Timestamp))
	}
	return removed, s.log.Append(context.WithoutCancel(ctx), leaves...)
}

func removedSnapshot(mirror meta.MirrorName, at time.Time) logfmt.Leaf {
	return &logfmt.Removed{Kind: logfmt.KindSnapshot, Name: string(mirror) + "@" + meta.FormatTimestamp(at)}
}

// Recover reconciles the log with the metadata at the start, before anything is
// published. It logs the removal of announced objects that do not exist, and logs
// existing objects that the log lacks, in the order in which they were made. It returns
// the names of the announced objects that do not exist. node is the name of this process
// in leases: it leaves alone what another node is making.
func (s *Store) Recover(ctx context.Context, node string) (withdrawn []string, err error) {
	alone := func(ctx context.Context, kind, name string, work func(context.Context) error) error {
		lease := meta.LeaseFreeze + name
		switch kind {
		case logfmt.KindSnapshot:
			mirror, _, _ := strings.Cut(name, "@")
			lease = meta.LeaseSync + mirror
		case logfmt.KindChannel:
			lease = meta.LeaseChannel + name
		}
		return meta.Lead(ctx, s.Store, lease, node, work)
	}
	withdrawn, err = s.log.Finish(ctx, alone, s.there)
	if err != nil {
		return withdrawn, err
	}
	held, err := s.held(ctx)
	if err != nil {
		return withdrawn, err
	}
	slices.SortFunc(held, func(a, b made) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.rank, b.rank), slices.Compare(a.leaf.Subjects(), b.leaf.Subjects()))
	})
	for page := range slices.Chunk(held, maxBatch) {
		leaves := make([]logfmt.Leaf, len(page))
		for i, m := range page {
			leaves[i] = m.leaf
		}
		if err := s.log.Append(ctx, leaves...); err != nil {
			return withdrawn, err
		}
	}
	return withdrawn, nil
}

// there reports whether an announced object is published.
func (s *Store) there(ctx context.Context, kind, name string, manifest cas.Digest) (bool, error) {
	var err error
	if kind == logfmt.KindChannel {
		// A channel counts as existing even if it shows another freeze: the current state
		// is logged later.
		if _, err = s.Channel(ctx, name); errors.Is(err, meta.ErrGone) {
			return false, nil // removed, and not created again yet
		}
	} else if kind == logfmt.KindFreeze {
		var f *meta.Frozen
		if f, err = s.Freeze(ctx, meta.FreezeName(name)); err == nil {
			return f.Manifest.SHA256 == manifest, nil
		} else if errors.Is(err, meta.ErrGone) {
			return false, nil // removed, and not created again yet
		}
	} else {
		mirror, timestamp, _ := strings.Cut(name, "@")
		var at time.Time
		if at, err = time.Parse(meta.TimestampFormat, timestamp); err == nil {
			_, err = s.Snapshot(ctx, meta.MirrorName(mirror), at)
		}
	}
	switch {
	case errors.Is(err, meta.ErrGone):
		return true, nil // the object was there
	case errors.Is(err, meta.ErrNotFound):
		return false, nil
	}
	return err == nil, err
}

// made is an object in the metadata, and the time when it was made.
type made struct {
	at   time.Time
	rank int // order among objects made at the same time
	leaf logfmt.Leaf
}

// held lists the objects in the metadata.
func (s *Store) held(ctx context.Context) (out []made, err error) {
	names, err := s.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if out, err = s.heldSnapshots(ctx, name, out); err != nil {
			return nil, err
		}
	}
	freezes, err := s.Freezes(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range freezes {
		out = append(out, made{f.Created, 1, freezeLeaf(f)})
		images, err := s.Images(ctx, f.Name)
		if err != nil {
			return nil, err
		}
		for _, leaf := range statementLeaves(f, images) {
			out = append(out, made{f.Created, 2, leaf})
		}
	}
	if out, err = s.heldChannels(ctx, out); err != nil {
		return nil, err
	}
	kits, err := s.Kits(ctx)
	if err != nil {
		return nil, err
	}
	last := time.Time{}
	for _, m := range out {
		if m.at.After(last) {
			last = m.at
		}
	}
	for _, k := range kits {
		out = append(out, made{last, 3, kitLeaf(k)})
	}
	return out, nil
}

// listPage limits one listing of snapshots.
const listPage = 1000

// sealed is a suite of the oldest snapshot that contains a generation.
type sealed struct {
	suite repo.SuiteName
	gen   uint32
	at    time.Time
}

// heldSnapshots adds the generations of a mirror that the log lacks, and its removed
// snapshots.
func (s *Store) heldSnapshots(ctx context.Context, mirror meta.MirrorName, out []made) ([]made, error) {
	first := map[string]sealed{}
	for before := (time.Time{}); ; {
		page, err := s.SnapshotsBefore(ctx, mirror, before, listPage)
		if err != nil {
			return nil, err
		}
		for _, snap := range page {
			before = snap.Timestamp
			for _, e := range snap.Suites {
				first[fmt.Sprint(e.Suite, "\x00", e.Gen)] = sealed{e.Suite, e.Gen, snap.Timestamp}
			}
		}
		if len(page) < listPage {
			break
		}
	}
	for page := range slices.Chunk(slices.Collect(maps.Values(first)), listPage) {
		names := make([]string, len(page))
		for i, e := range page {
			names[i] = logfmt.SnapshotSubject(string(mirror), string(e.suite), meta.FormatTimestamp(e.at))
		}
		known, err := s.LogNamed(ctx, names)
		if err != nil {
			return nil, err
		}
		for i, e := range page {
			if known[i] >= 0 {
				continue
			}
			g, err := s.Generation(ctx, mirror, e.suite, e.gen)
			if err != nil {
				return nil, err
			}
			out = append(out, made{g.Timestamp, 0, generationLeaf(g, g.Timestamp)})
		}
	}
	gone, err := s.RemovedTimestamps(ctx, mirror)
	if err != nil {
		return nil, err
	}
	for _, at := range gone {
		out = append(out, made{at, 4, removedSnapshot(mirror, at)})
	}
	return out, nil
}

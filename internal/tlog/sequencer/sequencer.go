// Package sequencer is the transparency log of a server: it gives entries their
// order, signs the state of the log, asks witnesses to cosign it, and answers with
// tiles and proofs.
//
// An entry is durable, with its tiles and a signed checkpoint, before the object that it
// describes is published: everything that is served has a proof. One transaction adds all
// of these, so that a crash leaves the log either unchanged or complete. The next start
// finds entries whose objects were not published, and logs that.
//
// Appending compares the size of the log. If several processes share the metadata, the
// second one reads what the first has added and appends behind it. A checkpoint never
// leaves the process before it is stored.
package sequencer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	logfmt "example.org/snapd/internal/tlog"
)

var (
	// ErrNamed means that the log has other contents under a name.
	ErrNamed = errclass.New(errclass.Conflict, "the transparency log has other contents under this name")
	// ErrBehind means that witnesses have seen more of the log, or another history, than
	// this server has.
	ErrBehind = errclass.New(errclass.Security, "the transparency log differs from the one that witnesses have seen")
	// ErrOrigin means that the log was started under another origin.
	ErrOrigin = errclass.New(errclass.Usage, "the transparency log has another origin")
)

// maxBatch bounds the entries of one transaction.
const maxBatch = 4096

// Config has the parts of a Log.
type Config struct {
	Store  meta.Log
	Signer logfmt.Signer
	Policy *logfmt.Policy // its witnesses with a URL are asked; nil: none
	Client *http.Client   // for witnesses; nil: http.DefaultClient
	Log    *slog.Logger   // nil: none
	// Restart begins a new log if the stored one has another origin.
	Restart bool
}

// Log is a transparency log. It is safe for concurrent use.
type Log struct {
	cfg   Config
	store meta.Log
	log   *slog.Logger

	broken  error                  // why the log cannot be used, or nil
	mu      sync.Mutex             // one append at a time
	settled []string               // announced objects that were published since the last append
	damage  atomic.Pointer[string] // latest damage; nil: none since the last repair

	witnesses *witnesses
}

// Open opens the log, or starts it with an entry for its key. It checks that the stored
// log is the signed one. It returns ErrOrigin or tlog.ErrProof.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	l := &Log{cfg: cfg, store: cfg.Store, log: cfg.Log}
	h, err := l.store.LogHead(ctx)
	switch {
	case errors.Is(err, meta.ErrNotFound), err == nil && h.Origin != l.Origin() && cfg.Restart:
		l.witnesses = newWitnesses(l)
		key := &logfmt.Key{Use: "log", Fingerprint: cfg.Signer.Verifier().Text}
		return l, l.append(ctx, entries{{Leaf: key}}, h != nil)
	case err != nil:
		return nil, err
	case h.Origin != l.Origin():
		return nil, fmt.Errorf("%w: it was started as %s, but the key is of %s", ErrOrigin, h.Origin, l.Origin())
	}
	if err := l.check(ctx, h); err != nil {
		return nil, err
	}
	l.witnesses = newWitnesses(l)
	return l, nil
}

// Broken returns a log that cannot be used, because its stored data is damaged. It
// answers everything with the error, and refuses publications, which need an entry.
func Broken(cfg Config, err error) *Log {
	l := &Log{cfg: Config{Store: cfg.Store, Signer: cfg.Signer}, store: cfg.Store, log: cfg.Log, broken: err}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.witnesses = newWitnesses(l)
	return l
}

// check checks that the stored tree is the signed one.
func (l *Log) check(ctx context.Context, h *meta.LogHead) error {
	return l.checkTree(h, newHashes(ctx, l.store))
}

// checkTree is like check, with the tiles that a reader has.
func (l *Log) checkTree(h *meta.LogHead, tree *hashes) error {
	c, err := logfmt.OpenCheckpoint(h.Checkpoint, l.cfg.Signer.Verifier())
	if err != nil {
		return err
	}
	root, err := tlog.TreeHash(h.Size, tree)
	if err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	if c.Size != h.Size || root != c.Root {
		return fmt.Errorf("%w: %w: %d entries with root %s are stored, expected the signed %d with %s", meta.ErrCorrupt, logfmt.ErrProof, h.Size, root, c.Size, c.Root)
	}
	return nil
}

// head returns the state of a log that can be used.
func (l *Log) head(ctx context.Context) (*meta.LogHead, error) {
	if l.broken != nil {
		return nil, l.broken
	}
	return l.store.LogHead(ctx)
}

// Close ends all requests to witnesses.
func (l *Log) Close() { l.witnesses.close() }

// Origin is the name of the log.
func (l *Log) Origin() string { return l.cfg.Signer.Name() }

// Key is the public key of the log; nil if the log is broken.
func (l *Log) Key() *logfmt.VerifierKey {
	if l.cfg.Signer == nil {
		return nil
	}
	return l.cfg.Signer.Verifier()
}

// entry is a leaf to append.
type entry struct {
	logfmt.Leaf
	pending *logfmt.Removed // entry to log if the announced object is not published
}

type entries []entry

// Append appends leaves, except those that repeat the last leaf about the same subject.
// When it returns, they are durable. It returns ErrNamed or ErrBehind.
func (l *Log) Append(ctx context.Context, leaves ...logfmt.Leaf) error {
	all := make(entries, len(leaves))
	for i, leaf := range leaves {
		all[i].Leaf = leaf
	}
	return l.appendAll(ctx, all)
}

// Announce appends leaves like Append, before the objects that they describe are
// published. Call Settle once they are; the next start finds leaves that were not
// settled. It returns ErrNamed or ErrBehind.
func (l *Log) Announce(ctx context.Context, leaves ...logfmt.Leaf) error {
	all := make(entries, len(leaves))
	for i, leaf := range leaves {
		all[i].Leaf = leaf
		switch leaf := leaf.(type) {
		case *logfmt.Snapshot:
			all[i].pending = &logfmt.Removed{Kind: logfmt.KindSnapshot, Name: leaf.Mirror + "@" + leaf.Timestamp, Unfinished: true}
		case *logfmt.Frozen:
			all[i].pending = &logfmt.Removed{Kind: logfmt.KindFreeze, Name: leaf.Name, Manifest: leaf.Manifest, Unfinished: true}
		case *logfmt.Channel:
			all[i].pending = &logfmt.Removed{Kind: logfmt.KindChannel, Name: leaf.Name, Unfinished: true}
		}
	}
	return l.appendAll(ctx, all)
}

// Settle records that the announced objects of leaves have been published.
func (l *Log) Settle(leaves ...logfmt.Leaf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, leaf := range leaves {
		switch leaf := leaf.(type) {
		case *logfmt.Snapshot:
			l.settled = append(l.settled, pendingName(logfmt.KindSnapshot, leaf.Mirror+"@"+leaf.Timestamp))
		case *logfmt.Frozen:
			l.settled = append(l.settled, pendingName(logfmt.KindFreeze, leaf.Name))
		case *logfmt.Channel:
			l.settled = append(l.settled, pendingName(logfmt.KindChannel, leaf.Name))
		}
	}
}

// Withdraw logs that announced snapshots will never exist: their timestamps are not used
// again. An announced freeze can still be made, with the same manifest; otherwise the
// next start withdraws it.
func (l *Log) Withdraw(ctx context.Context, leaves ...logfmt.Leaf) error {
	var removed []logfmt.Leaf
	seen := map[string]bool{}
	for _, leaf := range leaves {
		if s, ok := leaf.(*logfmt.Snapshot); ok {
			name := s.Mirror + "@" + s.Timestamp
			if !seen[name] {
				removed = append(removed, &logfmt.Removed{Kind: logfmt.KindSnapshot, Name: name, Unfinished: true})
			}
			seen[name] = true
		}
	}
	if len(removed) == 0 {
		return nil
	}
	if err := l.Append(ctx, removed...); err != nil {
		return err
	}
	l.Settle(leaves...)
	return nil
}

func pendingName(kind, name string) string { return kind + "\x00" + name }

// Finish checks entries that were announced and not settled, before anything is
// published. If the object does not exist, it logs its removal. there reports whether a
// snapshot, or a freeze with that manifest, is published. alone runs the work for one
// name while nobody else makes the object; if somebody does, it returns meta.ErrLeased
// and Finish leaves the name to them.
func (l *Log) Finish(ctx context.Context, alone func(ctx context.Context, kind, name string, work func(context.Context) error) error,
	there func(ctx context.Context, kind, name string, manifest cas.Digest) (bool, error)) (withdrawn []string, err error) {
	pending, err := l.store.LogPending(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pending {
		leaf, err := logfmt.Decode(p.Doc)
		r, ok := leaf.(*logfmt.Removed)
		if err != nil || !ok {
			return withdrawn, fmt.Errorf("%w: pending entry of the transparency log: %w", meta.ErrCorrupt, err)
		}
		err = alone(ctx, r.Kind, r.Name, func(ctx context.Context) error {
			is, err := there(ctx, r.Kind, r.Name, r.Manifest)
			if err != nil || is {
				return err
			}
			if err := l.Append(ctx, r); err != nil {
				return err
			}
			withdrawn = append(withdrawn, r.Name)
			return nil
		})
		if errors.Is(err, meta.ErrLeased) {
			continue
		} else if err != nil {
			return withdrawn, err
		}
		l.mu.Lock()
		l.settled = append(l.settled, p.Name)
		l.mu.Unlock()
	}
	return withdrawn, nil
}

func (l *Log) appendAll(ctx context.Context, all entries) error {
	if l.broken != nil {
		return l.broken
	}
	if err := l.witnesses.refused(); err != nil {
		return err
	}
	l.mu.Lock()
	err := l.append(ctx, all, false)
	l.mu.Unlock()
	if err != nil {
		return l.noticed(fmt.Errorf("transparency log: %w", err))
	}
	return l.witnesses.wait(ctx)
}

// append appends in transactions of at most maxBatch entries.
func (l *Log) append(ctx context.Context, all entries, restart bool) error {
	for len(all) > 0 {
		n := min(len(all), maxBatch)
		for tries := 0; ; tries++ {
			err := l.appendBatch(ctx, all[:n], restart)
			if errors.Is(err, meta.ErrLogMoved) && tries < 10 && !restart {
				continue // by another process
			}
			if err != nil {
				return err
			}
			break
		}
		all, restart = all[n:], false
	}
	return nil
}

func (l *Log) appendBatch(ctx context.Context, all entries, restart bool) error {
	a := &meta.LogAppend{Origin: l.Origin(), Restart: restart, Names: map[string]int64{}, Settled: l.settled}
	tree := newHashes(ctx, l.store)
	if h, err := l.store.LogHead(ctx); err == nil && !restart {
		a.From = h.Size
		// Corrupt tiles would be signed as another history.
		if err := l.checkTree(h, tree); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	b := &batch{a: a, tree: tree, lastOf: map[string][]byte{}}
	if !restart {
		if err := b.lookUp(ctx, l.store, all); err != nil {
			return err
		}
	}
	for _, e := range all {
		if err := b.add(e); err != nil {
			return err
		}
	}
	if len(b.lines) == 0 {
		return nil
	}
	a.Size = a.From + int64(len(b.lines))
	var err error
	if a.Tiles, err = tree.grown(a.From, b.lines); err != nil {
		return err
	}
	root, err := tlog.TreeHash(a.Size, tree)
	if err != nil {
		return err
	}
	if a.Checkpoint, err = logfmt.SignCheckpoint(l.cfg.Signer, a.Size, root); err != nil {
		return err
	}
	// This notices a signing command that signs with another key, or not at all.
	if _, err := logfmt.OpenCheckpoint(a.Checkpoint, l.Key()); err != nil {
		return err
	}
	if err := l.store.AppendLog(ctx, a); err != nil {
		return err
	}
	l.settled = nil
	l.log.Info("logged", "log", a.Origin, "size", a.Size, "entries", len(b.lines))
	return nil
}

// batch builds one LogAppend.
type batch struct {
	a      *meta.LogAppend
	tree   *hashes
	lines  [][]byte
	lastOf map[string][]byte // the last entry about a subject, as far as it is known
}

// lookUp finds the last entries about the subjects of leaves.
func (b *batch) lookUp(ctx context.Context, store meta.Log, all entries) error {
	var names []string
	for _, e := range all {
		names = append(names, e.Subjects()...)
	}
	found, err := store.LogNamed(ctx, names)
	if err != nil {
		return err
	}
	for i, n := range found {
		if n < 0 {
			continue
		}
		if b.lastOf[names[i]], err = b.tree.entry(n); err != nil {
			return err
		}
	}
	return nil
}

// add adds a leaf unless it is a repetition. It returns ErrNamed if a name has other
// contents.
func (b *batch) add(e entry) error {
	line, err := logfmt.Encode(e.Leaf)
	if err != nil {
		return err
	}
	subjects := e.Subjects()
	last := b.lastOf[subjects[0]]
	if f, ok := e.Leaf.(*logfmt.Frozen); ok {
		if err := sameManifest(f, last); err != nil {
			return err
		}
	}
	if !bytes.Equal(last, line) || e.pending != nil && b.removed(subjects) {
		n := b.a.From + int64(len(b.lines))
		if err := b.tree.add(n, line); err != nil {
			return err
		}
		b.lines = append(b.lines, line)
		for i, name := range subjects {
			if i == 1 && !newer(line, b.lastOf[name]) {
				continue
			}
			b.lastOf[name] = line
			b.a.Names[name] = n
		}
	}
	if e.pending == nil {
		return nil
	}
	doc, err := logfmt.Encode(e.pending)
	if err != nil {
		return err
	}
	b.a.Pending = append(b.a.Pending, meta.LogPending{Name: pendingName(e.pending.Kind, e.pending.Name), Doc: doc})
	return nil
}

// removed reports whether the last entry about the snapshot of a generation records its
// removal.
func (b *batch) removed(subjects []string) bool {
	if len(subjects) < 3 {
		return false
	}
	leaf, _ := logfmt.Decode(b.lastOf[subjects[2]])
	_, ok := leaf.(*logfmt.Removed)
	return ok
}

// sameManifest checks that a freeze has the same manifest as in the last entry about its
// name.
func sameManifest(f *logfmt.Frozen, last []byte) error {
	if last == nil {
		return nil
	}
	leaf, err := logfmt.Decode(last)
	if err != nil {
		return err
	}
	var was cas.Digest
	switch leaf := leaf.(type) {
	case *logfmt.Frozen:
		was = leaf.Manifest
	case *logfmt.Removed:
		was = leaf.Manifest
	}
	if was != f.Manifest {
		return fmt.Errorf("freeze %s: %w: the logged manifest is %s, this one is %s", f.Name, ErrNamed, was, f.Manifest)
	}
	return nil
}

// newer reports whether line's snapshot is newer than than's.
func newer(line, than []byte) bool {
	if than == nil {
		return true
	}
	a, _ := logfmt.Decode(line)
	b, _ := logfmt.Decode(than)
	s, ok1 := a.(*logfmt.Snapshot)
	t, ok2 := b.(*logfmt.Snapshot)
	return !ok1 || !ok2 || s.Timestamp > t.Timestamp
}

// Newest returns the newest timestamp of a mirror in the log, or zero.
func (l *Log) Newest(ctx context.Context, mirror meta.MirrorName) (time.Time, error) {
	if l.broken != nil {
		return time.Time{}, l.broken
	}
	found, err := l.store.LogNamed(ctx, []string{logfmt.NewestSubject(string(mirror))})
	if err != nil || found[0] < 0 {
		return time.Time{}, err
	}
	line, err := newHashes(ctx, l.store).entry(found[0])
	if err != nil {
		return time.Time{}, err
	}
	leaf, err := logfmt.Decode(line)
	s, ok := leaf.(*logfmt.Snapshot)
	if err != nil || !ok {
		return time.Time{}, fmt.Errorf("%w: entry %d of the transparency log is not about mirror %s", meta.ErrCorrupt, found[0], mirror)
	}
	return time.Parse(meta.TimestampFormat, s.Timestamp)
}

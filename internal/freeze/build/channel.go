package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// ChannelMove is a request to make a channel show a freeze.
type ChannelMove struct {
	Channel, Freeze string
	By              string // who requested the move
	AllowMissing    bool   // the freeze may lack suites or architectures that the present one has
	AllowInfoChange bool   // fields that apt expects not to change may differ
}

// maxChannelAhead is how far the date of a channel may be ahead of the clock. apt
// refuses a date that is more than ten seconds in the future.
const maxChannelAhead = 5 * time.Second

// MoveChannel makes a channel show a freeze. It signs the Release files of the freeze
// again, with a date later than that of the last move, and then moves all mirrors at
// once. moved is false if the channel already shows the freeze. freeze.ErrLacks,
// freeze.ErrInfoChange, freeze.ErrBusy, mirror.ErrClock.
func (b *Builder) MoveChannel(ctx context.Context, m ChannelMove) (moved bool, warnings []string, err error) {
	if err := b.cat.CheckName(ctx, m.Channel); err != nil {
		return false, nil, err
	}
	err = b.lead(ctx, meta.LeaseChannel+m.Channel, "channel "+m.Channel, func(ctx context.Context) (err error) {
		moved, warnings, err = b.moveChannel(ctx, m)
		return err
	})
	return moved, warnings, err
}

// RemoveChannel removes a channel. mirror.ErrClock, freeze.ErrBusy.
func (b *Builder) RemoveChannel(ctx context.Context, name, by string) error {
	return b.lead(ctx, meta.LeaseChannel+name, "channel "+name, func(ctx context.Context) error {
		old, err := b.meta.Channel(ctx, name)
		if err != nil {
			return err
		}
		at, err := b.nextMove(old, name)
		if err != nil {
			return err
		}
		if err := b.meta.RemoveChannel(ctx, name, at, by); err != nil {
			return err
		}
		b.cfg.Log.Info("channel removed", "channel", name, "freeze", old.Freeze, "by", by)
		b.cat.Changed()
		return nil
	})
}

func (b *Builder) moveChannel(ctx context.Context, m ChannelMove) (moved bool, warnings []string, err error) {
	old, err := b.meta.Channel(ctx, m.Channel)
	if err != nil && !errors.Is(err, meta.ErrNotFound) && !errors.Is(err, meta.ErrGone) {
		return false, nil, err
	}
	f, err := b.meta.Freeze(ctx, meta.FreezeName(m.Freeze))
	if err != nil {
		return false, nil, err
	}
	if old != nil && old.Freeze == f.Name && old.Key == b.signer.Fingerprint() {
		return false, nil, nil
	}
	next := &meta.Channel{Name: m.Channel, Freeze: f.Name, By: m.By, Key: b.signer.Fingerprint()}
	if next.Moved, err = b.nextMove(old, m.Channel); err != nil {
		return false, nil, err
	}
	roots, err := b.frozenRoots(ctx, f)
	if err != nil {
		return false, nil, err
	}
	if old != nil && old.Freeze != "" {
		if warnings, err = b.compareShown(ctx, m, old.Freeze, f, roots); err != nil {
			return false, nil, err
		}
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	for _, r := range roots {
		docs, err := b.redate(r, next.Moved)
		if err != nil {
			return false, nil, fmt.Errorf("suite %s of %s: %w", r.root.Suite, r.mirror, err)
		}
		for _, d := range docs {
			info, err := cas.PutBatch(ctx, batch, d.Data, next.Moved)
			if err != nil {
				return false, nil, err
			}
			next.Documents = append(next.Documents, meta.Node{Path: string(r.mirror) + "/" + d.Path, Digest: info.Digest, Size: info.Size, ModTime: next.Moved})
		}
	}
	certificate, err := cas.PutBatch(ctx, batch, []byte(b.signer.PublicKeyArmored()), time.Time{})
	if err != nil {
		return false, nil, err
	}
	next.KeyBlob = certificate.Digest
	slices.SortFunc(next.Documents, func(a, b meta.Node) int { return cmp.Compare(a.Path, b.Path) })
	if err := b.keeper.Flush(ctx, batch); err != nil {
		return false, nil, err
	}
	if err := b.meta.MoveChannel(ctx, next); err != nil {
		return false, nil, err
	}
	from := ""
	if old != nil {
		from = string(old.Freeze)
	}
	b.cfg.Log.Info("channel moved", "channel", next.Name, "from", from, "to", next.Freeze, "date", next.Moved, "by", m.By)
	b.cat.Changed()
	return true, warnings, nil
}

// nextMove returns the date of the next move: now, or a second after the last move if
// that is later, because clients ignore documents that are not newer than theirs.
// mirror.ErrClock if clients would refuse the date as being in the future.
func (b *Builder) nextMove(old *meta.Channel, name string) (time.Time, error) {
	now := b.cfg.Now()
	at := now.UTC().Truncate(time.Second)
	if created := b.signer.CreatedAt(); created.After(at) {
		at = created
	}
	if old != nil && !at.After(old.Moved) {
		at = old.Moved.Add(time.Second)
	}
	if at.Sub(now) <= maxChannelAhead {
		return at, nil
	}
	if old == nil || at.After(old.Moved.Add(time.Second)) {
		return at, fmt.Errorf("%w: it is at %s, but signing key %s was created at %s, and clients refuse a date in the future", mirror.ErrClock,
			now.UTC().Format(time.RFC3339), b.signer.Fingerprint(), at.Format(time.RFC3339))
	}
	return at, &aheadError{channel: name, moved: old.Moved, now: now}
}

// aheadError is a mirror.ErrClock: a channel was moved too often within seconds, or while
// the clock was wrong.
type aheadError struct {
	channel    string
	moved, now time.Time
}

func (e *aheadError) Error() string {
	return fmt.Sprintf("channel %s was last moved at %s, and the system clock is at %s: the next move, a second later, would be more than %d seconds in the future, which clients refuse",
		e.channel, e.moved.UTC().Format(time.RFC3339), e.now.UTC().Format(time.RFC3339), int(maxChannelAhead.Seconds()))
}

func (e *aheadError) Unwrap() error { return mirror.ErrClock }

// frozenRoot is the signed root (Release or repomd.xml) of a suite of a freeze.
type frozenRoot struct {
	mirror meta.MirrorName
	typ    string
	format Format
	root   *repo.Root
}

// frozenRoots reads the signed roots of a freeze. It looks up only the signed documents,
// however many files the freeze has.
func (b *Builder) frozenRoots(ctx context.Context, f *meta.Frozen) ([]frozenRoot, error) {
	stored := &tree.Stored{Frozen: f, Files: b.meta, Blobs: b.blobs, Corrupt: b.keeper.Corrupt}
	key, err := stored.Key(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := sign.ParseKeyring(key)
	if err != nil {
		return nil, err
	}
	var out []frozenRoot
	for i := range f.Mirrors {
		m := &f.Mirrors[i]
		format, err := b.formats.Of(m.Type)
		if err != nil {
			return nil, err
		}
		r := &tree.Repository{Mirror: m.Mirror, Type: m.Type, Format: format, Tree: stored, Files: map[string]meta.Node{}}
		done := map[repo.SuiteName]bool{}
		for _, s := range m.Suites {
			if done[s.Suite] {
				continue
			}
			done[s.Suite] = true
			for _, p := range slices.Concat(format.RootDocs(s.Suite)...) {
				n, err := b.meta.TreeFile(ctx, f.Name, string(m.Mirror)+"/"+p)
				if err != nil {
					return nil, err
				}
				r.Files[p] = n
			}
			root, _, err := r.SignedRoot(ctx, s.Suite, keys)
			if err != nil {
				return nil, fmt.Errorf("suite %s of %s in freeze %s: %w", s.Suite, m.Mirror, f.Name, err)
			}
			out = append(out, frozenRoot{m.Mirror, m.Type, format, root})
		}
	}
	return out, nil
}

// redate signs a root again with a new date, and checks the signatures before anything is
// published (invariant 1).
func (b *Builder) redate(r frozenRoot, at time.Time) ([]repo.Doc, error) {
	docs, err := r.format.Redate(r.root, at, b.signer)
	if err != nil {
		return nil, err
	}
	for _, set := range r.format.RootDocs(r.root.Suite) {
		var some []repo.Doc
		for _, p := range set {
			i := slices.IndexFunc(docs, func(d repo.Doc) bool { return d.Path == p })
			if i < 0 {
				return nil, fmt.Errorf("signed document %s: %w", p, freeze.ErrMissing)
			}
			some = append(some, docs[i])
		}
		c := tree.EveryPackageIndex(r.mirror, r.typ, r.root.Suite)
		root, err := r.format.ParseRoot(c, r.root.Suite, some, repo.VerifyParams{Keyring: b.signer.Keyring()})
		if err != nil {
			return nil, fmt.Errorf("check own signature: %w", err)
		}
		if len(root.Files) != len(r.root.Files) {
			return nil, fmt.Errorf("%s lists %d files, expected %d: %w", set[0], len(root.Files), len(r.root.Files), repo.ErrMismatch)
		}
	}
	return docs, nil
}

// compareShown refuses a freeze that would break clients of a channel, or returns
// warnings instead if the request allows it.
func (b *Builder) compareShown(ctx context.Context, m ChannelMove, shown meta.FreezeName, f *meta.Frozen, roots []frozenRoot) (warnings []string, err error) {
	old, err := b.meta.Freeze(ctx, shown)
	if err != nil {
		return nil, err
	}
	if lacking := lacks(old, f); len(lacking) > 0 {
		list := strings.Join(lacking, "; ")
		if !m.AllowMissing {
			return nil, fmt.Errorf("freeze %s: %w: %s", f.Name, freeze.ErrLacks, list)
		}
		warnings = append(warnings, fmt.Sprintf("%s lacks what clients of %s may use: %s", f.Name, m.Channel, list))
	}
	before, err := b.frozenRoots(ctx, old)
	if err != nil {
		return nil, err
	}
	changes, err := infoChanges(before, roots)
	if err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		list := strings.Join(changes, "; ")
		if !m.AllowInfoChange {
			return nil, fmt.Errorf("freeze %s: %w: %s", f.Name, freeze.ErrInfoChange, list)
		}
		warnings = append(warnings, fmt.Sprintf("clients of %s need apt-get update --allow-releaseinfo-change once: %s", m.Channel, list))
	}
	return warnings, nil
}

// lacks lists the mirrors, suites, components and architectures that the old freeze has
// and f lacks. If a whole suite is missing, it does not list the parts of the suite.
func lacks(old, f *meta.Frozen) (out []string) {
	for i := range old.Mirrors {
		was := &old.Mirrors[i]
		j := f.MirrorIndex(was.Mirror)
		if j < 0 {
			out = append(out, "mirror "+string(was.Mirror))
			continue
		}
		is := &f.Mirrors[j]
		if was.Type != is.Type {
			out = append(out, fmt.Sprintf("mirror %s of type %s", was.Mirror, was.Type))
			continue
		}
		had, has := parts(was), parts(is)
		for _, p := range had {
			if lacking := p.kind != "" && !slices.Contains(has, part{suite: p.suite}); !lacking && !slices.Contains(has, p) {
				out = append(out, p.String()+" of mirror "+string(was.Mirror))
			}
		}
	}
	return out
}

// part is a suite, or a component or an architecture of one.
type part struct {
	suite      repo.SuiteName
	kind, name string
}

func (p part) String() string {
	if p.kind == "" {
		return "suite " + string(p.suite)
	}
	return p.kind + " " + p.name + " of suite " + string(p.suite)
}

// parts lists the suites of a mirror with their components and architectures.
func parts(m *meta.FrozenMirror) (out []part) {
	add := func(p part) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, s := range m.Suites {
		add(part{suite: s.Suite})
		for _, c := range s.Components {
			add(part{s.Suite, "component", c})
		}
		for _, a := range s.Archs {
			add(part{s.Suite, "architecture", a})
		}
		if s.Sources {
			add(part{s.Suite, "architecture", "source"})
		}
	}
	return out
}

// infoChanges lists the fields that differ between two freezes although clients expect
// them not to change, for the suites that both freezes have.
func infoChanges(before, after []frozenRoot) (out []string, err error) {
	for _, r := range after {
		i := slices.IndexFunc(before, func(o frozenRoot) bool { return o.mirror == r.mirror && o.typ == r.typ && o.root.Suite == r.root.Suite })
		if i < 0 {
			continue
		}
		was, err := r.format.Identity(before[i].root)
		if err != nil {
			return nil, err
		}
		is, err := r.format.Identity(r.root)
		if err != nil {
			return nil, err
		}
		for k := range is {
			if was[k] != is[k] {
				out = append(out, fmt.Sprintf("%s of suite %s of mirror %s changes from %q to %q", is[k].Name, r.root.Suite, r.mirror, was[k].Value, is[k].Value))
			}
		}
	}
	return out, nil
}

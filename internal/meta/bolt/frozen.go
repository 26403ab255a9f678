package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// Frozen looks up a freeze. ErrNotFound; a *meta.RemovedError if it was removed.
func (t *txn) Frozen(name meta.FreezeName) (*meta.Frozen, error) {
	var f meta.Frozen
	if err := getJSON(t.b("frozen"), []byte(name), &f); err != nil {
		if errors.Is(err, meta.ErrNotFound) {
			if removed, terr := t.tombstone(string(name)); terr != nil {
				return nil, terr
			} else if removed != nil {
				return nil, removed
			}
		}
		return nil, fmt.Errorf("freeze %s: %w", name, err)
	}
	return &f, nil
}

// Frozens lists all freezes by name.
func (t *txn) Frozens() ([]*meta.Frozen, error) {
	var out []*meta.Frozen
	b := t.b("frozen")
	err := b.ForEach(func(k, _ []byte) error {
		var f meta.Frozen
		out = append(out, &f)
		return getJSON(b, k, &f)
	})
	return out, err
}

// tombstone returns the tombstone of a removed freeze, or nil.
func (t *txn) tombstone(name string) (*meta.RemovedError, error) {
	var stone meta.Tombstone
	err := getJSON(t.b("tombstone"), []byte(name), &stone)
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("tombstone of freeze %s: %w", name, err)
	}
	return &meta.RemovedError{Tombstone: stone}, nil
}

func (t *txn) tombstones() (out []meta.Tombstone, err error) {
	b := t.b("tombstone")
	err = b.ForEach(func(k, _ []byte) error {
		var stone meta.Tombstone
		err := getJSON(b, k, &stone)
		out = append(out, stone)
		return err
	})
	return out, err
}

func (t *txn) putTombstone(stone *meta.Tombstone) error {
	return putJSON(t.b("tombstone"), []byte(stone.Name), stone)
}

// PutNodes adds files to a frozen tree that is being made. They become visible with
// PutFrozen; ClearFrozenTree removes a tree that an interrupted attempt left.
func (t *txn) PutNodes(name meta.FreezeName, nodes []meta.Node) error {
	b := t.b("ftree")
	for _, n := range nodes {
		if err := b.Put(key(nil).str(string(name)).raw([]byte(n.Path)), encodeNode(&n)); err != nil {
			return err
		}
		if err := t.PutRef(n.Digest, meta.OwnerFrozen, string(name)); err != nil {
			return err
		}
	}
	return nil
}

func encodeNode(n *meta.Node) []byte {
	var e enc
	e.Fixed(n.Digest[:])
	e.Uint(uint64(n.Size))
	e.Uint(uint64(n.ModTime.Unix()))
	return e
}

func decodeNode(path string, v []byte) meta.Node {
	d := dec{B: v}
	n := meta.Node{Path: path, Digest: cas.Digest(d.Fixed(32)), Size: int64(d.Uint())}
	n.ModTime = time.Unix(int64(d.Uint()), 0).UTC()
	return n
}

// Node looks up a file of a frozen tree: path is <mirror>/<path>. ErrNotFound.
func (t *txn) Node(name meta.FreezeName, path string) (meta.Node, error) {
	v := t.b("ftree").Get(key(nil).str(string(name)).raw([]byte(path)))
	if v == nil {
		return meta.Node{}, fmt.Errorf("%s in freeze %s: %w", path, name, meta.ErrNotFound)
	}
	return decodeNode(path, v), nil
}

// Nodes lists a frozen tree below a prefix, after the path `after`, at most
// limit files (0: all).
func (t *txn) Nodes(name meta.FreezeName, prefix, after string, limit int) []meta.Node {
	var out []meta.Node
	base := key(nil).str(string(name)).raw([]byte(prefix))
	c := t.b("ftree").Cursor()
	k, v := c.Seek(base)
	if after != "" {
		from := key(nil).str(string(name)).raw([]byte(after))
		if k, v = c.Seek(from); bytes.Equal(k, from) {
			k, v = c.Next()
		}
	}
	for ; k != nil && bytes.HasPrefix(k, base); k, v = c.Next() {
		out = append(out, decodeNode(string(k[len(name)+1:]), v))
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return out
}

// ClearFrozenTree removes at most limit files from the tree of a freeze that does not
// exist, and reports whether any are left.
func (t *txn) ClearFrozenTree(name meta.FreezeName, limit int) (more bool, err error) {
	if t.b("frozen").Get([]byte(name)) != nil {
		return false, fmt.Errorf("freeze %s: %w", name, meta.ErrExists)
	}
	return t.clearTree(name, limit)
}

// OrphanTrees lists the trees that belong to no freeze: of freezes that are being made or
// were interrupted.
func (t *txn) OrphanTrees() (out []string) {
	c := t.b("ftree").Cursor()
	for k, _ := c.First(); k != nil; {
		name, _, _ := bytes.Cut(k, []byte{0})
		if t.b("frozen").Get(name) == nil {
			out = append(out, string(name))
		}
		k, _ = c.Seek(append(clone(name), 1))
	}
	return out
}

func (t *txn) clearTree(name meta.FreezeName, limit int) (more bool, err error) {
	nodes := t.Nodes(name, "", "", limit)
	for _, n := range nodes {
		if err := t.b("ftree").Delete(key(nil).str(string(name)).raw([]byte(n.Path))); err != nil {
			return false, err
		}
		if err := t.DropRef(n.Digest, meta.OwnerFrozen, string(name)); err != nil {
			return false, err
		}
	}
	return len(nodes) == limit, nil
}

// PutFrozen makes a freeze visible (invariants 1, 2 and 5). Its tree must have been
// stored, and every blob must be durable and held. ErrExists if another freeze has the
// name.
func (t *txn) PutFrozen(f *meta.Frozen) error {
	if old, err := t.Frozen(f.Name); err == nil {
		if old.Manifest.SHA256 == f.Manifest.SHA256 {
			return nil
		}
		return fmt.Errorf("freeze %s: %w", f.Name, meta.ErrExists)
	} else if removed, ok := errors.AsType[*meta.RemovedError](err); ok {
		if removed.Manifest != f.Manifest.SHA256 {
			return removed.Taken()
		}
		if err := t.b("tombstone").Delete([]byte(f.Name)); err != nil {
			return err
		}
	} else if !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	if err := t.noChannel(string(f.Name), "freeze"); err != nil {
		return err
	}
	if err := t.replaceFrozen(f); err != nil {
		return err
	}
	return t.putEvent(meta.FreezeEvent(f))
}

func (t *txn) replaceFrozen(f *meta.Frozen) error {
	for _, m := range f.Mirrors {
		for _, s := range m.Suites {
			if s.Gen == 0 {
				continue
			}
			// A collection may have deleted the generation while the freeze was being
			// made.
			id, ok := t.SuiteID(m.Mirror, s.Suite)
			if !ok || t.b("gen").Get(key(nil).u32(uint32(id)).u32(s.Gen)) == nil {
				return fmt.Errorf("generation %d of suite %s of %s: %w", s.Gen, s.Suite, m.Mirror, meta.ErrGone)
			}
			if err := t.b("genref").Put(genRef(id, s.Gen, meta.OwnerFrozen, string(f.Name)), nil); err != nil {
				return err
			}
		}
	}
	for _, d := range f.Blobs() {
		if err := t.PutRef(d, meta.OwnerFrozen, string(f.Name)); err != nil {
			return err
		}
	}
	return putJSON(t.b("frozen"), []byte(f.Name), f)
}

// RemoveFrozen unpublishes a freeze. Its tree is cleared by
// ClearFrozenTree afterwards, in bounded transactions.
func (t *txn) RemoveFrozen(name meta.FreezeName) error {
	f, err := t.Frozen(name)
	if err != nil {
		return err
	}
	for _, m := range f.Mirrors {
		for _, s := range m.Suites {
			if id, ok := t.SuiteID(m.Mirror, s.Suite); ok && s.Gen != 0 {
				if err := t.b("genref").Delete(genRef(id, s.Gen, meta.OwnerFrozen, string(name))); err != nil {
					return err
				}
				if err := t.addGenCandidate(id, s.Gen); err != nil {
					return err
				}
			}
		}
	}
	for _, d := range f.Blobs() {
		if err := t.DropRef(d, meta.OwnerFrozen, string(name)); err != nil {
			return err
		}
	}
	images, err := t.Images(name)
	if err != nil {
		return err
	}
	for _, im := range images {
		if err := t.DropRef(im.SHA256, meta.OwnerImage, string(name)); err != nil {
			return err
		}
		if err := t.b("image").Delete(key(nil).str(string(name)).raw([]byte(im.Variant))); err != nil {
			return err
		}
	}
	return t.b("frozen").Delete([]byte(name))
}

// PutImage records an image of a freeze. Recording an equal one again succeeds; another
// one for the same variant is ErrExists.
func (t *txn) PutImage(im *meta.Image) error {
	k := key(nil).str(string(im.Name)).raw([]byte(im.Variant))
	var old meta.Image
	if err := getJSON(t.b("image"), k, &old); err == nil && old.SHA256 != im.SHA256 {
		return fmt.Errorf("image %q of %s: %w (SHA-256 %s)", im.Variant, im.Name, meta.ErrExists, old.SHA256)
	}
	if err := t.PutRef(im.SHA256, meta.OwnerImage, string(im.Name)); err != nil {
		return err
	}
	return putJSON(t.b("image"), k, im)
}

// Images lists the images of a freeze, or all with an empty name.
func (t *txn) Images(name meta.FreezeName) ([]meta.Image, error) {
	var out []meta.Image
	b := t.b("image")
	c := b.Cursor()
	var prefix key
	if name != "" {
		prefix = key(nil).str(string(name))
	}
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		var im meta.Image
		if err := getJSON(b, k, &im); err != nil {
			return nil, err
		}
		out = append(out, im)
	}
	return out, nil
}

// PutKit publishes a file below /iuk/.
func (t *txn) PutKit(k meta.Kit) error {
	var old meta.Kit
	if err := getJSON(t.b("kit"), []byte(k.Path), &old); err == nil && old.Digest != k.Digest {
		if err := t.DropRef(old.Digest, meta.OwnerKit, k.Path); err != nil {
			return err
		}
	}
	if err := t.PutRef(k.Digest, meta.OwnerKit, k.Path); err != nil {
		return err
	}
	return putJSON(t.b("kit"), []byte(k.Path), k)
}

// Kit looks up a published file. ErrNotFound.
func (t *txn) Kit(path string) (k meta.Kit, err error) {
	if err := getJSON(t.b("kit"), []byte(path), &k); err != nil {
		return k, fmt.Errorf("kit %s: %w", path, err)
	}
	return k, nil
}

// Kits lists the published files.
func (t *txn) Kits() (out []meta.Kit, err error) {
	b := t.b("kit")
	err = b.ForEach(func(k, _ []byte) error {
		var v meta.Kit
		err := getJSON(b, k, &v)
		out = append(out, v)
		return err
	})
	return out, err
}

// Recording looks up a recording. ErrNotFound.
func (t *txn) Recording(name string) (*meta.Recording, error) {
	var r meta.Recording
	if err := getJSON(t.b("recording"), []byte(name), &r); err != nil {
		return nil, fmt.Errorf("recording %s: %w", name, err)
	}
	return &r, nil
}

// Recordings lists all recordings by name.
func (t *txn) Recordings() ([]*meta.Recording, error) {
	var out []*meta.Recording
	b := t.b("recording")
	err := b.ForEach(func(k, _ []byte) error {
		var r meta.Recording
		out = append(out, &r)
		return getJSON(b, k, &r)
	})
	return out, err
}

// PutRecording creates or changes a recording, which keeps the generations that it shows.
// ErrGone if a snapshot that it newly shows was removed.
func (t *txn) PutRecording(r *meta.Recording) error {
	if t.b("recording").Get([]byte(r.Name)) == nil {
		for _, p := range r.Pins {
			if _, err := t.Snapshot(p.Mirror, p.Timestamp); err != nil {
				return fmt.Errorf("recording %s: %w", r.Name, err)
			}
		}
	}
	if err := t.pinGens(r, func(k key) error { return t.b("genref").Put(k, nil) }); err != nil {
		return err
	}
	return putJSON(t.b("recording"), []byte(r.Name), r)
}

func (t *txn) pinGens(r *meta.Recording, f func(key) error) error {
	for _, p := range r.Pins {
		s, err := t.Snapshot(p.Mirror, p.Timestamp)
		if errors.Is(err, meta.ErrGone) || errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		for _, e := range s.Suites {
			if id, ok := t.SuiteID(p.Mirror, e.Suite); ok {
				if err := f(genRef(id, e.Gen, meta.OwnerRecording, r.Name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func entryKey(name string, e *meta.RecordEntry) key {
	return key(nil).str(name).str(string(e.Mirror)).str(e.Path).raw(e.SHA256[:])
}

// NoteFetch adds one fetch to a recording. ErrNotFound if the recording does not exist.
func (t *txn) NoteFetch(name string, e meta.RecordEntry) error {
	if t.b("recording").Get([]byte(name)) == nil {
		return fmt.Errorf("recording %s: %w", name, meta.ErrNotFound)
	}
	b := t.b("rentry")
	k := entryKey(name, &e)
	var old meta.RecordEntry
	if err := getJSON(b, k, &old); err == nil {
		e.First = old.First
		e.Count += old.Count
	}
	if err := t.PutRef(e.SHA256, meta.OwnerRecording, name); err != nil {
		return err
	}
	return putJSON(b, k, e)
}

// RecordEntries lists the fetches of a recording, by mirror and path.
func (t *txn) RecordEntries(name string) ([]meta.RecordEntry, error) {
	var out []meta.RecordEntry
	b := t.b("rentry")
	prefix := key(nil).str(name)
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		var e meta.RecordEntry
		if err := getJSON(b, k, &e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// sizeKey comes before the size in an entry. A quotation mark within a string is escaped,
// so that it is always the key.
var sizeKey = []byte(`,"size":`)

// recordTotal counts the files of a recording. It does not parse their entries, which takes
// ten times as long.
func (t *txn) recordTotal(name string) (total meta.RecordingTotal, err error) {
	prefix := key(nil).str(name)
	c := t.b("rentry").Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		_, rest, ok := bytes.Cut(v, sizeKey)
		end := bytes.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if !ok || end < 0 {
			return total, fmt.Errorf("%w: key %q: no size", meta.ErrCorrupt, k)
		}
		n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
		if err != nil {
			return total, fmt.Errorf("%w: key %q: %w", meta.ErrCorrupt, k, err)
		}
		total.Files++
		total.Bytes += n
	}
	return total, nil
}

// RemoveRecording removes a recording and its fetches.
func (t *txn) RemoveRecording(name string) error {
	r, err := t.Recording(name)
	if err != nil {
		return err
	}
	err = t.pinGens(r, func(k key) error {
		if err := t.b("genref").Delete(k); err != nil {
			return err
		}
		return t.addGenCandidate(meta.SuiteID(be32(k)), be32(k[4:]))
	})
	if err != nil {
		return err
	}
	entries, err := t.RecordEntries(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := t.b("rentry").Delete(entryKey(name, &e)); err != nil {
			return err
		}
		if err := t.DropRef(e.SHA256, meta.OwnerRecording, name); err != nil {
			return err
		}
	}
	return t.b("recording").Delete([]byte(name))
}

// repin sets the pin of a snapshot, or removes it if until is nil.
func (t *txn) repin(mirror meta.MirrorName, at time.Time, until *time.Time) (*meta.Snapshot, error) {
	s, err := t.Snapshot(mirror, at)
	if err != nil {
		return nil, err
	}
	s.Pinned = until
	return s, putJSON(t.b("snapshot"), key(nil).str(string(mirror)).at(at), s)
}

// setCorrupt marks a blob as corrupt; reading it fails until clearCorrupt.
func (t *txn) setCorrupt(r meta.CorruptBlob) error { return putJSON(t.b("rotten"), r.Digest[:], r) }

// clearCorrupt removes the mark of a blob.
func (t *txn) clearCorrupt(d cas.Digest) error { return t.b("rotten").Delete(d[:]) }

// CorruptBlobs lists the blobs that are marked as corrupt.
func (t *txn) CorruptBlobs() (out []meta.CorruptBlob, err error) {
	b := t.b("rotten")
	err = b.ForEach(func(k, _ []byte) error {
		var r meta.CorruptBlob
		err := getJSON(b, k, &r)
		out = append(out, r)
		return err
	})
	return out, err
}

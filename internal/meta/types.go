package meta

import (
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// MirrorName is the name of a mirror.
type MirrorName = config.MirrorName

// FreezeName is the name of a freeze.
type FreezeName string

// SuiteID, IndexID and PID are the numbers that the store assigns to a suite of a mirror,
// to an index of a suite, and to a stanza.
type (
	SuiteID uint32
	IndexID uint32
	PID     uint64
)

// Snapshot is the immutable state of one mirror at one timestamp.
type Snapshot struct {
	Mirror    MirrorName      `json:"mirror"`
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"instant"`          // UTC second
	Suites    []SnapshotSuite `json:"suites"`           // in the configuration's order
	Pinned    *time.Time      `json:"pinned,omitempty"` // until; the zero time: forever
	// FromURL is the URL that an older state was taken from; empty for a sync.
	FromURL string `json:"from_url,omitempty"`
}

// SnapshotSuite is one suite of a snapshot.
type SnapshotSuite struct {
	Suite repo.SuiteName `json:"suite"`
	Gen   uint32         `json:"gen"`
	Date  time.Time      `json:"date"` // upstream's
}

// ID is the snapshot's name: debian@20261122T160000Z.
func (s *Snapshot) ID() string { return string(s.Mirror) + "@" + FormatTimestamp(s.Timestamp) }

// TimestampFormat is the form of timestamps in ids and URLs.
const TimestampFormat = "20060102T150405Z"

// FormatTimestamp writes t as in ids and URLs.
func FormatTimestamp(t time.Time) string { return t.UTC().Format(TimestampFormat) }

// Gen returns the generation of a suite in the snapshot.
func (s *Snapshot) Gen(suite repo.SuiteName) (uint32, bool) {
	for _, e := range s.Suites {
		if e.Suite == suite {
			return e.Gen, true
		}
	}
	return 0, false
}

// Generation is one signed Release or repomd.xml of a suite, and what was synced with it.
type Generation struct {
	Mirror    MirrorName     `json:"mirror"`
	Suite     repo.SuiteName `json:"suite"`
	Gen       uint32         `json:"gen"`
	Timestamp time.Time      `json:"instant"` // of the first snapshot with it
	Docs      []Doc          `json:"docs"`
	// Companions are further documents with the same contents as Docs, for clients that
	// cannot read those. They are served, but nothing is verified with them.
	Companions []Doc         `json:"companions,omitempty"`
	Date       time.Time     `json:"date"`
	Undated    bool          `json:"undated,omitempty"` // Date is the time of the signature
	ValidUntil time.Time     `json:"valid_until,omitzero"`
	Revision   string        `json:"revision,omitempty"`
	Trust      repo.Trust    `json:"trust"`
	Signers    []repo.Signer `json:"signers,omitempty"`
	ByHash     bool          `json:"by_hash,omitempty"`
	Groups     []Group       `json:"groups"`
	// Complete means that every package was stored when the snapshot was sealed.
	Complete bool `json:"complete,omitempty"`
	// Missing counts the package files that upstream listed but did not have when the
	// snapshot was sealed, for a mirror that downloads all.
	Missing int `json:"missing,omitempty"`
	// Selection identifies what the configuration selected of the suite. If it changes, a
	// sync reads the suite again.
	Selection string `json:"selection,omitempty"`
	// AlternateBases lists the alternate base URLs that upstream's indices name for
	// packages.
	AlternateBases []string `json:"elsewhere,omitempty"`
	// Warnings lists what was ignored, for display.
	Warnings []string `json:"warnings,omitempty"`
	// Metalink is the metalink by which an unsigned repomd.xml was verified.
	Metalink cas.Digest `json:"metalink,omitzero"`
	// Certificates is the blob of the certificates that verified the signed documents.
	Certificates cas.Digest `json:"certificates,omitzero"`
	Packages     int        `json:"packages"` // stanzas of binary packages
	Sources      int        `json:"sources"`  // stanzas of source packages
}

// Blobs lists the blobs that the generation refers to.
func (g *Generation) Blobs() []cas.Digest {
	var out []cas.Digest
	for _, d := range slices.Concat(g.Docs, g.Companions) {
		out = append(out, d.SHA256)
	}
	for _, gr := range g.Groups {
		if gr.Made == nil {
			out = append(out, gr.Variant.SHA256)
		} else {
			out = append(out, gr.Made.Order...)
		}
	}
	return named(append(out, g.Metalink, g.Certificates))
}

// named removes the zero digest, which means no blob.
func named(all []cas.Digest) []cas.Digest { return slices.DeleteFunc(all, cas.Digest.IsZero) }

// Doc is a signed document, such as a Release file.
type Doc struct {
	repo.File
	LastModified time.Time `json:"last_modified,omitzero"` // upstream's
	ETag         string    `json:"etag,omitempty"`
	URL          string    `json:"url,omitempty"`
	// Dated replaces LastModified for clients, where that is not later than the date of
	// the document that clients had before.
	Dated time.Time `json:"dated,omitzero"`
}

// DocDate returns the Last-Modified of a document of the generation: upstream's, or the
// time of the generation where upstream sent none.
func (g *Generation) DocDate(d *Doc) time.Time {
	switch {
	case !d.Dated.IsZero():
		return d.Dated
	case d.LastModified.Unix() > 0:
		return d.LastModified
	}
	return g.Timestamp
}

// Group is an index that the sync read, and the variant that is kept or made.
type Group struct {
	Index     string      `json:"index"`
	Component string      `json:"component,omitempty"`
	Arch      string      `json:"arch,omitempty"`
	Packages  bool        `json:"packages,omitempty"`
	Variant   repo.Listed `json:"form"` // as listed, SHA256 filled in
	Plain     repo.Listed `json:"plain,omitzero"`
	Count     int         `json:"count,omitempty"`   // records
	Sources   int         `json:"sources,omitempty"` // of these, source packages
	// Unusable counts the records of repo.KindUnusable, and FirstUnusable names the
	// first of them with the reason.
	Unusable      int      `json:"unusable,omitempty"`
	FirstUnusable string   `json:"first_unusable,omitempty"`
	Also          []string `json:"also,omitempty"` // groups that are parsed together with it
	// Made says how the variants are made; nil: Variant is stored.
	Made *Made `json:"made,omitempty"`
}

// Fact is the metadata of one stanza.
type Fact struct {
	PID PID
	repo.Record
	Digest [16]byte // the first half of the SHA-256 of the stanza's bytes
}

// Interval is a half-open range of generations: From <= gen < To.
type Interval struct{ From, To uint32 }

// Unended is the To of an interval that has not ended.
const Unended = ^uint32(0)

// Span says in which generations of an index a stanza is present.
type Span struct {
	PID       PID
	Index     IndexID
	Intervals []Interval
}

// Has reports whether the span covers a generation.
func (s *Span) Has(gen uint32) bool { return inIntervals(s.Intervals, gen) }

func inIntervals(list []Interval, gen uint32) bool {
	for _, iv := range list {
		if iv.From <= gen && gen < iv.To {
			return true
		}
	}
	return false
}

// Listing is what a Release file lists under a digest.
type Listing struct {
	Path string // relative to the mirror
	Size int64
	Last uint32 // the newest generation that listed it, or Unended
	// First is a generation before which no Release listed it; 0 if unknown.
	First uint32
}

// Kinds of owners of references to blobs and generations.
const (
	OwnerSnapshot  = 's' // timestamp
	OwnerPackage   = 'p' // pid
	OwnerGen       = 'g' // suite, generation
	OwnerFrozen    = 'f' // name
	OwnerRecording = 'r' // name
	OwnerImage     = 'i' // name of freeze
	OwnerKit       = 'k' // file name
	OwnerChannel   = 'c' // name
)

// Frozen is the record of a freeze. The manifest itself is a blob.
type Frozen struct {
	Name      FreezeName `json:"name"`
	Date      time.Time  `json:"date"`    // the freeze's date
	Created   time.Time  `json:"created"` // local: not part of the manifest
	Manifest  repo.File  `json:"manifest"`
	Signature repo.File  `json:"signature"`
	Prov      repo.File  `json:"provenance"`
	// ProvSignature is the signature of Prov; zero if Prov is not signed.
	ProvSignature repo.File        `json:"provenance_signature,omitzero"`
	Key           sign.Fingerprint `json:"key"` // the signing key
	KeyBlob       cas.Digest       `json:"key_blob"`
	Tree          repo.File        `json:"tree,omitzero"` // the listing of the tree
	Mirrors       []FrozenMirror   `json:"mirrors"`
	Packages      int              `json:"packages"`
	Sources       int              `json:"sources"`
	Bytes         int64            `json:"bytes"`
	Statements    []repo.File      `json:"statements,omitempty"` // signed statements beside the manifest
	Imported      bool             `json:"imported,omitempty"`
}

// Blobs lists the blobs that the record refers to, without those of its tree.
func (f *Frozen) Blobs() []cas.Digest {
	out := []cas.Digest{f.Manifest.SHA256, f.Signature.SHA256, f.Prov.SHA256, f.ProvSignature.SHA256, f.KeyBlob, f.Tree.SHA256}
	for _, m := range f.Mirrors {
		out = append(out, m.Certificates)
		for _, p := range m.Proof {
			out = append(out, p.SHA256)
		}
	}
	for _, s := range f.Statements {
		out = append(out, s.SHA256)
	}
	return named(out)
}

// MirrorIndex returns the index of a mirror in Mirrors, or -1 if the freeze contains
// nothing from it.
func (f *Frozen) MirrorIndex(name MirrorName) int {
	return slices.IndexFunc(f.Mirrors, func(m FrozenMirror) bool { return m.Mirror == name })
}

// View returns the upstream generations that the i-th mirror depends on, as a snapshot;
// nil if the freeze was imported.
func (f *Frozen) View(i int) *Snapshot {
	m := &f.Mirrors[i]
	snap := &Snapshot{Mirror: m.Mirror, Type: m.Type, Timestamp: m.Timestamp}
	for _, s := range m.Suites {
		if s.Gen != 0 {
			snap.Suites = append(snap.Suites, SnapshotSuite{Suite: s.Suite, Gen: s.Gen, Date: f.Date})
		}
	}
	if len(snap.Suites) == 0 {
		return nil
	}
	return snap
}

// FrozenMirror is one mirror of a freeze.
type FrozenMirror struct {
	Mirror    MirrorName    `json:"mirror"`
	Type      string        `json:"type"`
	Whole     bool          `json:"whole"`
	Timestamp time.Time     `json:"instant,omitzero"`   // of the first snapshot it was made from
	Others    []time.Time   `json:"instants,omitempty"` // of the other snapshots
	Suites    []FrozenSuite `json:"suites"`
	// Proof lists files that the proof depends on, by path relative to the mirror.
	Proof        []repo.File `json:"proof"`
	Certificates cas.Digest  `json:"certificates"`
}

// AddSnapshot records a snapshot that the mirror was made from.
func (m *FrozenMirror) AddSnapshot(at time.Time) {
	switch {
	case m.Timestamp.IsZero():
		m.Timestamp = at
	case !slices.ContainsFunc(m.Snapshots(), at.Equal):
		m.Others = append(m.Others, at)
	}
}

// Snapshots returns the timestamps of the snapshots that the mirror was made from; none
// if it was imported.
func (m *FrozenMirror) Snapshots() []time.Time {
	if m.Timestamp.IsZero() {
		return nil
	}
	return append([]time.Time{m.Timestamp}, m.Others...)
}

// FrozenSuite is one suite of a frozen mirror.
type FrozenSuite struct {
	Suite      repo.SuiteName `json:"suite"`
	Gen        uint32         `json:"gen,omitempty"` // 0 if it was imported
	Components []string       `json:"components,omitempty"`
	Archs      []string       `json:"archs,omitempty"`
	Sources    bool           `json:"sources,omitempty"`
}

// Tombstone is the remaining record of a removed freeze. Its URLs were served as
// immutable, so its name is never reused for other contents (invariant 2): only a freeze
// with the same manifest replaces it.
type Tombstone struct {
	Name     string     `json:"name"`
	Manifest cas.Digest `json:"manifest"`
	Removed  time.Time  `json:"removed"`
}

// Node is a file of a frozen tree.
type Node struct {
	Path    string // <mirror>/<path>
	Digest  cas.Digest
	Size    int64
	ModTime time.Time
}

// Recording is the view of a build, and the files that it fetched.
type Recording struct {
	Name     string         `json:"name"`
	Started  time.Time      `json:"started"`
	Stopped  time.Time      `json:"stopped,omitzero"`
	Resigned bool           `json:"resigned,omitempty"`
	Pins     []RecordingPin `json:"pins"`
}

// RecordingPin is the snapshot of one mirror that a recording shows.
type RecordingPin struct {
	Mirror    MirrorName `json:"mirror"`
	Timestamp time.Time  `json:"instant"`
}

// RecordEntry is one file that was fetched through a recording.
type RecordEntry struct {
	Mirror MirrorName `json:"mirror"`
	Path   string     `json:"path"`
	SHA256 cas.Digest `json:"sha256"`
	Size   int64      `json:"size"`
	First  time.Time  `json:"first"`
	Last   time.Time  `json:"last"`
	Count  int        `json:"count"`
}

// CorruptBlob is a blob that is known to be corrupt.
type CorruptBlob struct {
	Digest cas.Digest `json:"digest"`
	Found  time.Time  `json:"found"`
	By     string     `json:"by"` // fsck, scrub, freeze, export, import, read
	Why    string     `json:"why"`
}

// Check is the result of a mirror's last syncs.
type Check struct {
	Checked time.Time `json:"checked,omitzero"` // time of the last request to upstream
	OK      time.Time `json:"ok,omitzero"`      // the last success
	Error   string    `json:"error,omitempty"`
	URL     string    `json:"url,omitempty"`
	// Doubt is the time of a sync that was refused because the system clock seemed to be
	// ahead. Ahead is set if the user confirmed that the clock is right although the
	// newest snapshot is later: to the timestamp of that snapshot.
	Doubt time.Time `json:"doubt,omitzero"`
	Ahead time.Time `json:"ahead,omitzero"`
}

// Image is a root file system image recorded with a freeze.
type Image struct {
	Name      FreezeName `json:"name"` // of the freeze
	Variant   string     `json:"variant"`
	SHA256    cas.Digest `json:"sha256"`
	Size      int64      `json:"size"`
	File      string     `json:"file,omitempty"`
	Statement cas.Digest `json:"statement"`
}

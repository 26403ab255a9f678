package tlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
)

// The types of leaves.
const (
	SnapshotType  = "snapd/snapshot/v1"
	FrozenType    = "snapd/frozen/v1"
	StatementType = "snapd/statement/v1"
	ChannelType   = "snapd/channel/v1"
	RemovedType   = "snapd/removed/v1"
	KeyType       = "snapd/key/v1"
)

// Leaf is an entry of the log.
type Leaf interface {
	// kind returns the type of the leaf.
	kind() string
	// Subjects returns the subjects of the leaf. A leaf is a repetition if it equals the
	// last leaf with the same first subject.
	Subjects() []string
}

// Snapshot records which signed document of upstream a generation has. A generation in
// several snapshots has one leaf.
type Snapshot struct {
	Type      string     `json:"t"`
	Mirror    string     `json:"mirror"`
	Suite     string     `json:"suite"`
	Timestamp string     `json:"timestamp"` // of the first snapshot with the generation: 20261122T160000Z
	Release   cas.Digest `json:"release"`   // of InRelease, Release or repomd.xml
	Date      string     `json:"date"`      // upstream's, RFC 3339
	// Signers has the first MaxSigners fingerprints, in order.
	Signers []string `json:"signers"`
}

// MaxSigners limits the signers in a leaf.
const MaxSigners = 8

// Frozen records the manifest and the signature of a freeze.
type Frozen struct {
	Type      string     `json:"t"`
	Name      string     `json:"name"`
	Manifest  cas.Digest `json:"manifest"`
	Signature cas.Digest `json:"sig"` // of manifest.json.asc
	Key       string     `json:"key"` // fingerprint of the key that made the signature
}

// Statement records a statement about a freeze.
type Statement struct {
	Type    string     `json:"t"`
	About   string     `json:"about"`   // name of the freeze
	Kind    string     `json:"kind"`    // image, kit, udf, attestation, comparison, resign, labels
	Digest  cas.Digest `json:"sha256"`  // of the statement
	Subject cas.Digest `json:"subject"` // of its subject: the image, the kit, the manifest
}

// Channel records that a channel was moved to a freeze.
type Channel struct {
	Type      string `json:"t"`
	Name      string `json:"name"`
	Freeze    string `json:"freeze"`
	Timestamp string `json:"timestamp"` // of the move
}

// Kinds of removed objects.
const (
	KindSnapshot = "snapshot"
	KindFreeze   = "freeze"
	KindChannel  = "channel"
	// KindAttestation is the removal of an attestation. Its name is NAME/SHA256: the name
	// of the freeze and the digest of the attestation.
	KindAttestation = "attestation"
)

// Removed records that an object is no longer served, or never was because it was
// announced but not finished.
type Removed struct {
	Type string `json:"t"`
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Manifest is the manifest of a freeze. No other manifest may use its name.
	Manifest   cas.Digest `json:"manifest,omitzero"`
	Unfinished bool       `json:"unfinished,omitempty"` // the object was never served
}

// Key records that a key signs this server's publications.
type Key struct {
	Type        string     `json:"t"`
	Use         string     `json:"use"` // "freeze" or "log"
	Fingerprint string     `json:"key"` // the vkey of a log key
	Digest      cas.Digest `json:"sha256,omitzero"`
}

func (*Snapshot) kind() string  { return SnapshotType }
func (*Frozen) kind() string    { return FrozenType }
func (*Statement) kind() string { return StatementType }
func (*Channel) kind() string   { return ChannelType }
func (*Removed) kind() string   { return RemovedType }
func (*Key) kind() string       { return KeyType }

// SnapshotSubject returns the subject of the leaf of a generation.
func SnapshotSubject(mirror, suite, timestamp string) string {
	return "generation\x00" + mirror + "\x00" + suite + "\x00" + timestamp
}

// NewestSubject returns the subject of the newest timestamp of a mirror in the log.
func NewestSubject(mirror string) string { return "newest\x00" + mirror }

// FreezeSubject returns the subject of the leaf of a freeze. That leaf proves the freeze
// even after a later leaf records its removal.
func FreezeSubject(name string) string { return "frozen\x00" + name }

// StatementSubject returns the subject of the leaf of a statement.
func StatementSubject(about string, digest cas.Digest) string {
	return "statement\x00" + about + "\x00" + digest.String()
}

// Subjects implements Leaf.
func (l *Snapshot) Subjects() []string {
	return []string{SnapshotSubject(l.Mirror, l.Suite, l.Timestamp), NewestSubject(l.Mirror), KindSnapshot + "\x00" + l.Mirror + "@" + l.Timestamp}
}

// Subjects implements Leaf.
func (l *Frozen) Subjects() []string {
	return []string{KindFreeze + "\x00" + l.Name, FreezeSubject(l.Name)}
}

// Subjects implements Leaf.
func (l *Statement) Subjects() []string { return []string{StatementSubject(l.About, l.Digest)} }

// Subjects implements Leaf.
func (l *Channel) Subjects() []string { return []string{KindChannel + "\x00" + l.Name} }

// Subjects implements Leaf.
func (l *Removed) Subjects() []string {
	if about, digest, ok := strings.Cut(l.Name, "/"); ok && l.Kind == KindAttestation {
		return []string{"statement\x00" + about + "\x00" + digest}
	}
	return []string{l.Kind + "\x00" + l.Name}
}

// Subjects implements Leaf.
func (l *Key) Subjects() []string { return []string{"key\x00" + l.Use + "\x00" + l.Fingerprint} }

// Encode returns a leaf in the form in which it is logged: canonical JSON on one line of
// at most MaxLeaf bytes.
func Encode(l Leaf) ([]byte, error) {
	switch l := l.(type) {
	case *Snapshot:
		l.Type = SnapshotType
		l.Signers = slices.Sorted(slices.Values(l.Signers))
		l.Signers = slices.Compact(l.Signers)
		if len(l.Signers) > MaxSigners {
			l.Signers = l.Signers[:MaxSigners]
		}
		if l.Signers == nil {
			l.Signers = []string{}
		}
	case *Frozen:
		l.Type = FrozenType
	case *Statement:
		l.Type = StatementType
	case *Channel:
		l.Type = ChannelType
	case *Removed:
		l.Type = RemovedType
	case *Key:
		l.Type = KeyType
	}
	data, err := canonical.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("log entry %s: %w", l.kind(), err)
	}
	if len(data) > MaxLeaf {
		return nil, fmt.Errorf("log entry %s about %s: %d bytes, expected at most %d", l.kind(), readable(l), len(data), MaxLeaf)
	}
	return data, nil
}

// readable returns the first subject of a leaf for display.
func readable(l Leaf) string { return strings.ReplaceAll(l.Subjects()[0], "\x00", " ") }

// Decode reads a leaf. It returns ErrLeaf for a leaf that Encode did not write, and nil
// for a leaf of an unknown type, because later versions may have others.
func Decode(data []byte) (Leaf, error) {
	if len(data) > MaxLeaf || bytes.ContainsAny(data, "\n\r") {
		return nil, fmt.Errorf("%w: expected one line of at most %d bytes", ErrLeaf, MaxLeaf)
	}
	var head struct {
		Type string `json:"t"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLeaf, err)
	}
	var l Leaf
	switch head.Type {
	case SnapshotType:
		l = new(Snapshot)
	case FrozenType:
		l = new(Frozen)
	case StatementType:
		l = new(Statement)
	case ChannelType:
		l = new(Channel)
	case RemovedType:
		l = new(Removed)
	case KeyType:
		l = new(Key)
	default:
		return nil, nil
	}
	if err := canonical.Unmarshal(data, l); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrLeaf, head.Type, err)
	}
	return l, nil
}

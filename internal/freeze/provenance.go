package freeze

import (
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
)

// ProvenanceFormat is the version of the format of provenance.json.
const ProvenanceFormat = 1

// Provenance are the local facts of a freeze, outside of its identity. It is
// canonical JSON with a signature of its own.
type Provenance struct {
	// Format is 0 where an earlier version wrote it, which neither named the
	// manifest nor signed.
	Format    int                  `json:"format,omitempty"`
	Name      string               `json:"name"`
	Manifest  cas.Digest           `json:"manifest_sha256,omitzero"`
	Created   time.Time            `json:"created"`
	Program   string               `json:"program"`
	Mirrors   []ProvenanceMirror   `json:"mirrors"`
	Manifests []ProvenanceManifest `json:"manifests"` // build manifests that were read
	Recording string               `json:"recording,omitempty"`
	Base      string               `json:"base,omitempty"`
}

// ProvenanceMirror is a snapshot that packages were taken from.
type ProvenanceMirror struct {
	Mirror   string            `json:"mirror"`
	Snapshot string            `json:"snapshot"` // empty where only its parts are left
	Suites   []ProvenanceSuite `json:"suites"`
}

// ProvenanceSuite is one suite of a snapshot.
type ProvenanceSuite struct {
	Suite string `json:"suite"`
	URL   string `json:"url"` // without secrets
	Seen  string `json:"first_seen"`
}

// ProvenanceManifest is a build manifest.
type ProvenanceManifest struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// ParseProvenance reads a provenance.json. It refuses what a freeze does not have:
// a larger one, unknown or repeated fields, JSON that is not canonical.
func ParseProvenance(data []byte) (*Provenance, error) {
	if len(data) > MaxProvenance {
		return nil, fmt.Errorf("%d bytes, expected at most %d", len(data), MaxProvenance)
	}
	var p Provenance
	if err := DecodeCanonical(data, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Format < 0 || p.Format > ProvenanceFormat:
		return nil, fmt.Errorf("format %d, this program knows %d", p.Format, ProvenanceFormat)
	case (p.Format == 0) != p.Manifest.IsZero():
		return nil, fmt.Errorf("format %d and the digest of a manifest do not go together", p.Format)
	}
	return &p, nil
}

// Encode writes the provenance as canonical JSON. ErrUsage where that is too large.
func (p *Provenance) Encode() ([]byte, error) {
	data, err := Canonical(p)
	if err == nil && len(data) > MaxProvenance {
		err = fmt.Errorf("%w: provenance.json of %s would have %d bytes, expected at most %d: give fewer build manifests, or shorter names", ErrUsage, p.Name, len(data), MaxProvenance)
	}
	return data, err
}

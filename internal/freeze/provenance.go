package freeze

import (
	"fmt"
	"time"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// ProvenanceFormat is the version of the format of provenance.json.
const ProvenanceFormat = 1

// Provenance is the local facts of a freeze, which are not part of its identity. It is
// canonical JSON and has a separate signature.
type Provenance struct {
	// Format is 0 if an earlier version wrote the file: then it does not name the
	// manifest, and is not signed.
	Format    int                  `json:"format,omitempty"`
	Name      meta.FreezeName      `json:"name"`
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
	Mirror   meta.MirrorName   `json:"mirror"`
	Snapshot string            `json:"snapshot"` // empty if only its generations are left
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

// ParseProvenance parses a provenance.json. It refuses one that is too large, has
// unknown or repeated fields, or is not canonical.
func ParseProvenance(data []byte) (*Provenance, error) {
	if len(data) > MaxProvenance {
		return nil, fmt.Errorf("%d bytes, expected at most %d", len(data), MaxProvenance)
	}
	var p Provenance
	if err := canonical.Unmarshal(data, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Format < 0 || p.Format > ProvenanceFormat:
		return nil, fmt.Errorf("format %d, expected %d", p.Format, ProvenanceFormat)
	case (p.Format == 0) != p.Manifest.IsZero():
		return nil, fmt.Errorf("format %d cannot have the digest of a manifest", p.Format)
	}
	return &p, nil
}

// Encode encodes the provenance as canonical JSON. ErrUsage if the result is too large.
func (p *Provenance) Encode() ([]byte, error) {
	data, err := canonical.Marshal(p)
	if err == nil && len(data) > MaxProvenance {
		err = fmt.Errorf("%w: provenance.json of %s would have %d bytes, expected at most %d: use fewer build manifests, or shorter names", ErrUsage, p.Name, len(data), MaxProvenance)
	}
	return data, err
}

package freeze

import (
	"strings"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// The types of statements.
const (
	ImageStatement     = "image"
	SignatureStatement = "signature"
	LabelsStatement    = "labels"
)

// Statement is a signed statement beside a freeze manifest, about data that was added
// later. It is canonical JSON and has no time.
type Statement struct {
	Type     string            `json:"type"` // ImageStatement, SignatureStatement or LabelsStatement
	Freeze   meta.FreezeName   `json:"freeze"`
	Manifest cas.Digest        `json:"manifest_sha256"`
	Variant  string            `json:"variant,omitempty"`
	SHA256   cas.Digest        `json:"sha256,omitzero"`
	Size     int64             `json:"size,omitempty"`
	How      map[string]string `json:"how"`
	// Only in a LabelsStatement. Labels replace those in statements with lower numbers.
	Number      int               `json:"number,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
}

// Encode encodes the statement as canonical JSON.
func (s *Statement) Encode() ([]byte, error) {
	if s.How == nil {
		s.How = map[string]string{}
	}
	return canonical.Marshal(s)
}

// Attestations are beside the statements, each in a file named after its digest. They are
// signed only by builders.
const (
	attestationPrefix = StatementDir + "/attestation-"
	attestationSuffix = ".json"
)

// Lists of links of rebuilders about the packages are beside the attestations, in files
// that are named the same way. Rebuilders sign each link, but the list is not signed.
const (
	rebuildsPrefix = StatementDir + "/rebuilds-"
	rebuildsSuffix = ".json"
)

// RebuildsPath returns the path of the list of links with this digest.
func RebuildsPath(d cas.Digest) string { return rebuildsPrefix + d.String() + rebuildsSuffix }

// IsRebuilds reports whether a file beside a manifest is a list of links.
func IsRebuilds(path string) bool {
	return strings.HasPrefix(path, rebuildsPrefix) && strings.HasSuffix(path, rebuildsSuffix)
}

// Limits of the attestations, lists of links and comparisons of a freeze. Anybody who may
// record a build may add some, so the limits are far below what verify reads.
const (
	MaxAttestations     = 1000
	MaxAttestationBytes = 32 << 20 // of all together
)

// AttestationPath returns the path of the attestation with this digest.
func AttestationPath(d cas.Digest) string { return attestationPrefix + d.String() + attestationSuffix }

// IsAttestation reports whether a file beside a manifest is an attestation.
func IsAttestation(path string) bool {
	return strings.HasPrefix(path, attestationPrefix) && strings.HasSuffix(path, attestationSuffix)
}

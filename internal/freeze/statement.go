package freeze

import (
	"strings"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
)

// The types of statements.
const (
	ImageStatement     = "image"
	SignatureStatement = "signature"
	LabelsStatement    = "labels"
)

// Statement is a signed statement beside a freeze manifest, about something added
// later. It is canonical JSON and has no time.
type Statement struct {
	Type     string            `json:"type"` // ImageStatement, SignatureStatement or LabelsStatement
	Freeze   string            `json:"freeze"`
	Manifest cas.Digest        `json:"manifest_sha256"`
	Variant  string            `json:"variant,omitempty"`
	SHA256   cas.Digest        `json:"sha256,omitzero"`
	Size     int64             `json:"size,omitempty"`
	How      map[string]string `json:"how"`
	// Of LabelsStatement. Labels replace those in statements with lower numbers.
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

// Attestations are beside the statements, each in a file named after its digest. They
// are signed by builders, and by nobody else.
const (
	attestationPrefix = StatementDir + "/attestation-"
	attestationSuffix = ".json"
)

// Lists of what rebuilders say about the packages are beside the attestations, in files
// named likewise. Rebuilders sign each link of a list, and nobody the list.
const (
	rebuildsPrefix = StatementDir + "/rebuilds-"
	rebuildsSuffix = ".json"
)

// RebuildsPath returns the file of a list of links with this digest.
func RebuildsPath(d cas.Digest) string { return rebuildsPrefix + d.String() + rebuildsSuffix }

// IsRebuilds reports whether a file beside a manifest is a list of links.
func IsRebuilds(path string) bool {
	return strings.HasPrefix(path, rebuildsPrefix) && strings.HasSuffix(path, rebuildsSuffix)
}

// Limits of the attestations of a freeze, and of the lists of links. Anybody who may
// record a build may add some, so they are far below what verify reads.
const (
	MaxAttestations     = 1000
	MaxAttestationBytes = 32 << 20 // of all together
)

// AttestationPath returns the file of an attestation with this digest.
func AttestationPath(d cas.Digest) string { return attestationPrefix + d.String() + attestationSuffix }

// IsAttestation reports whether a file beside a manifest is an attestation.
func IsAttestation(path string) bool {
	return strings.HasPrefix(path, attestationPrefix) && strings.HasSuffix(path, attestationSuffix)
}

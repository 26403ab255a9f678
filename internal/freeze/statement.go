package freeze

import "example.org/snapd/internal/cas"

// The types of statements.
const (
	ImageStatement     = "image"
	SignatureStatement = "signature"
)

// Statement is a signed statement beside a freeze manifest, about something added
// later. It is canonical JSON and has no time.
type Statement struct {
	Type     string            `json:"type"` // ImageStatement or SignatureStatement
	Freeze   string            `json:"freeze"`
	Manifest cas.Digest        `json:"manifest_sha256"`
	Variant  string            `json:"variant,omitempty"`
	SHA256   cas.Digest        `json:"sha256,omitzero"`
	Size     int64             `json:"size,omitempty"`
	How      map[string]string `json:"how"`
}

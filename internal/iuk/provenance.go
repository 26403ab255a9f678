package iuk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"example.org/snapd/internal/cas"
)

// WriterFormat numbers the form of what Create writes. It goes up with every
// change after which equal inputs give other bytes.
const WriterFormat = 1

// maxAddedBytes bounds the names that provenance.json lists, in bytes.
const maxAddedBytes = 512 << 10

// Provenance is the content of a kit's provenance.json: what the kit was made
// of. It states no fact about where or when it was made.
type Provenance struct {
	WriterFormat int         `json:"writer_format"`
	Product      string      `json:"product"`
	Arch         string      `json:"arch"`
	Epoch        int64       `json:"epoch"` // seconds since 1970
	Base         ImageRecord `json:"base"`  // needed to apply the kit
	New          ImageRecord `json:"new"`   // what base and kit show together
	Diff         DiffRecord  `json:"diff"`
}

// ImageRecord names one SquashFS image.
type ImageRecord struct {
	Version string     `json:"version"`
	SHA256  cas.Digest `json:"sha256"` // of the SquashFS file
	Size    int64      `json:"size"`   // bytes of the SquashFS file
	// Manifest is the digest of the frozen manifest that the image was built
	// from, if the caller knows it.
	Manifest string `json:"manifest_sha256,omitempty"`
	// ISO is set when the image came out of an ISO image, with boot files.
	ISO bool `json:"iso,omitempty"`
}

// DiffRecord tells what the difference holds.
type DiffRecord struct {
	Path    string `json:"path"`    // in the kit
	Size    int64  `json:"size"`    // bytes
	Added   int64  `json:"added"`   // names, those below a new directory too
	Changed int64  `json:"changed"` // names of files that were there with other content or attributes
	Removed int64  `json:"removed"` // names, a removed directory as one
	Ignored int64  `json:"ignored,omitempty"`
	// IgnoreIfSameContent are the globs that Create was given. Files that match
	// may differ in attributes from the new image.
	IgnoreIfSameContent []string `json:"ignore_if_same_content,omitempty"`
	// AddedNames are the added names; one for all below a new directory. Bytes
	// that are no UTF-8, control characters and "%" stand as %XX. It is absent
	// when it would be larger than 512 KiB.
	AddedNames []string `json:"added_names,omitempty"`
}

// format gives the bytes of provenance.json: keys in the order of the struct,
// indented by one space, a newline at the end.
func (p *Provenance) format() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(p); err != nil {
		return nil, fmt.Errorf("write provenance.json: %w", err)
	}
	return b.Bytes(), nil
}

// parseProvenance reads provenance.json. Fields of later formats are ignored.
func parseProvenance(b []byte) (*Provenance, error) {
	var p Provenance
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	if p.WriterFormat < 1 {
		return nil, fmt.Errorf("writer_format: expected a positive number, found %d", p.WriterFormat)
	}
	if p.Base.SHA256.IsZero() || p.New.SHA256.IsZero() {
		return nil, fmt.Errorf("it does not name both images by SHA-256")
	}
	return &p, nil
}

// escapeName makes valid UTF-8 of a name.
func escapeName(s string) string {
	clean := utf8.ValidString(s)
	for i := 0; clean && i < len(s); i++ {
		clean = s[i] >= 0x20 && s[i] != 0x7f && s[i] != '%'
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n <= 1 || r < 0x20 || r == 0x7f || r == '%' {
			for _, c := range []byte(s[:n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

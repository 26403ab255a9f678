package iuk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"example.org/snapd/internal/cas"
)

// WriterFormat is the version of Create's output. It increases with every change after
// which equal inputs result in different bytes.
const WriterFormat = 1

// maxAddedBytes bounds the names that provenance.json lists, in bytes.
const maxAddedBytes = 512 << 10

// Provenance is the content of a kit's provenance.json, which describes the kit's
// inputs. It does not say where or when the kit was made.
type Provenance struct {
	WriterFormat int         `json:"writer_format"`
	Product      string      `json:"product"`
	Arch         string      `json:"arch"`
	Epoch        int64       `json:"epoch"` // seconds since 1970
	Base         ImageRecord `json:"base"`  // the image that the kit applies to
	New          ImageRecord `json:"new"`   // the result of base and kit
	Diff         DiffRecord  `json:"diff"`
}

// ImageRecord describes one SquashFS image.
type ImageRecord struct {
	Version string     `json:"version"`
	SHA256  cas.Digest `json:"sha256"` // of the SquashFS file
	Size    int64      `json:"size"`   // bytes of the SquashFS file
	// Manifest is the digest of the freeze manifest that the image was built from, if
	// it is known.
	Manifest string `json:"manifest_sha256,omitempty"`
	// ISO is set if the image is from an ISO image, with boot files.
	ISO bool `json:"iso,omitempty"`
}

// DiffRecord describes the difference.
type DiffRecord struct {
	Path    string `json:"path"`    // in the kit
	Size    int64  `json:"size"`    // bytes
	Added   int64  `json:"added"`   // names, including those below a new directory
	Changed int64  `json:"changed"` // names of files with other content or attributes
	Removed int64  `json:"removed"` // names; a removed directory counts once
	Ignored int64  `json:"ignored,omitempty"`
	// IgnoreIfSameContent are the globs of CreateOptions. Attributes of matching
	// files may differ from those in the new image.
	IgnoreIfSameContent []string `json:"ignore_if_same_content,omitempty"`
	// AddedNames are the added names, without those below a new directory. Bytes
	// that are not UTF-8, control characters and "%" are written as %XX. It is
	// absent if it would be larger than 512 KiB.
	AddedNames []string `json:"added_names,omitempty"`
}

// format returns the bytes of provenance.json: keys in the order of the struct,
// indented by one space, with a newline at the end.
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

// parseProvenance parses provenance.json. It ignores unknown fields.
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

// escapeName returns a name as valid UTF-8.
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

package attest

import (
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
)

// Attestation is an envelope with its statement.
type Attestation struct {
	Envelope  *Envelope
	Statement *Statement
}

// Parse parses an envelope and its statement. It verifies no signature. Errors wrap
// ErrMalformed.
func Parse(data []byte) (*Attestation, error) {
	e, err := ParseEnvelope(data)
	if err != nil {
		return nil, err
	}
	s, err := ParseStatement(e.Payload)
	if err != nil {
		return nil, err
	}
	return &Attestation{e, s}, nil
}

// Check returns ErrOther unless the attestation is about the freeze with the manifest.
func (a *Attestation) Check(freeze string, manifest cas.Digest) error {
	s := a.Statement
	if s.Freeze != freeze {
		return fmt.Errorf("%w: it is about %q, expected %s", ErrOther, s.Freeze, freeze)
	}
	if s.Manifest != manifest {
		return fmt.Errorf("%w: it is about %s with the manifest %s, expected %s", ErrOther, freeze, s.Manifest, manifest)
	}
	return nil
}

// Confirmation contains the builders' results for an image.
type Confirmation struct {
	Confirm []string // builders that have built the image, each once, in the order of their list
	Dissent []Dissent
	Silent  []string // the other builders
}

// Dissent is a builder that has built another image of the variant.
type Dissent struct {
	Builder string
	Image   cas.Digest // that it has built
	Why     string
}

// Confirm returns which builders confirm the image of a variant. All attestations must
// be of one freeze manifest. It ignores attestations that none of the builders signed.
// A builder that has built the image and, in another run, a different one, both
// confirms and dissents.
func (b *Builders) Confirm(variant string, image cas.Digest, all []*Attestation) Confirmation {
	var c Confirmation
	confirms, dissents := map[string]bool{}, map[string]bool{}
	for _, a := range all {
		s := a.Statement
		if s.Variant != variant && s.Image != image {
			continue
		}
		for _, name := range b.Signers(a.Envelope) {
			d := Dissent{Builder: name, Image: s.Image}
			switch {
			case s.Image == image && s.Expected == image:
				confirms[name] = true
				continue
			case s.Image != image:
				d.Why = fmt.Sprintf("built another image, %s", s.Image)
			default:
				d.Why = fmt.Sprintf("built this image, and compared it with another, %s", s.Expected)
			}
			dissents[name] = true
			if !slices.Contains(c.Dissent, d) {
				c.Dissent = append(c.Dissent, d)
			}
		}
	}
	for _, name := range b.Names() {
		switch {
		case confirms[name]:
			c.Confirm = append(c.Confirm, name)
		case !dissents[name]:
			c.Silent = append(c.Silent, name)
		}
	}
	order := b.Names()
	slices.SortFunc(c.Dissent, func(x, y Dissent) int {
		if x.Builder != y.Builder {
			return slices.Index(order, x.Builder) - slices.Index(order, y.Builder)
		}
		return slices.Compare(x.Image[:], y.Image[:])
	})
	return c
}

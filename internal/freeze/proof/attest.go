package proof

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
)

// SetBuilders reads the builders and rebuilders of a request.
func (o *Options) SetBuilders(req *api.VerifyRequest) (err error) {
	if req.Builders == "" && req.Rebuilders == "" && req.Threshold != 0 {
		return fmt.Errorf("%w: a threshold needs builders or rebuilders", freeze.ErrUsage)
	}
	o.Threshold = req.Threshold
	if req.Builders != "" {
		if o.Builders, err = attest.ParseBuilders([]byte(req.Builders)); err != nil {
			return err
		}
		if n := len(o.Builders.Names()); req.Threshold < 1 || req.Threshold > n {
			return fmt.Errorf("%w: threshold %d: expected 1 to %d, the number of builders", freeze.ErrUsage, req.Threshold, n)
		}
	}
	if req.Rebuilders != "" {
		if o.Rebuilders, err = attest.ParseRebuilders([]byte(req.Rebuilders)); err != nil {
			return err
		}
		if n := len(o.Rebuilders.Names()); req.Threshold < 1 || req.Threshold > n {
			return fmt.Errorf("%w: threshold %d: expected 1 to %d, the number of rebuilders", freeze.ErrUsage, req.Threshold, n)
		}
	}
	return nil
}

// checkAttestation checks that an attestation is well-formed, named after its digest, and
// about this freeze. An unknown signer is not a fault: the attestation only counts for
// users who name its builder.
func (c *check) checkAttestation(name string, data []byte, manifest cas.Digest) {
	if want := freeze.AttestationPath(cas.Sum(data)); name != want {
		c.fault(name, want, "", "name of the attestation")
		return
	}
	a, err := attest.Parse(data)
	if err == nil {
		err = a.Check(string(c.doc.Name), manifest)
	}
	if err != nil {
		c.fault(name, "", "", "%v", err)
		return
	}
	c.attested = append(c.attested, a)
}

// checkBuilders checks that enough builders confirm each image.
func (c *check) checkBuilders() {
	if c.o.Builders == nil {
		return
	}
	res := &api.BuilderResult{Builders: c.o.Builders.Names(), Threshold: c.o.Threshold, Images: []api.BuilderImage{}}
	c.res.Builders = res
	if len(c.images) == 0 {
		c.fault("image", "a statement about an image", "", "the freeze has no image that builders could confirm")
	}
	slices.SortFunc(c.images, func(a, b freeze.Statement) int { return cmp.Compare(a.Variant, b.Variant) })
	for _, s := range c.images {
		im := builderImage(c.o.Builders, s.Variant, s.SHA256, c.attested)
		res.Images = append(res.Images, im)
		if len(im.Confirm) < c.o.Threshold {
			c.fault("image "+s.Variant, freeze.Count(c.o.Threshold, "builder", "builders"), confirming(im),
				"fewer builders confirm the image %s than the threshold", s.SHA256)
		}
	}
}

// confirming describes, for a fault, who confirms an image and who does not.
func confirming(im api.BuilderImage) string {
	out := fmt.Sprint(len(im.Confirm))
	if len(im.Confirm) > 0 {
		out += ": " + strings.Join(im.Confirm, ", ")
	}
	for _, d := range im.Dissent {
		out += "; " + d.Builder + " " + d.Why
	}
	return out
}

// builderImage summarises the attestations about an image.
func builderImage(b *attest.Builders, variant string, image cas.Digest, all []*attest.Attestation) api.BuilderImage {
	said := b.Confirm(variant, image, all)
	out := api.BuilderImage{Variant: variant, SHA256: image.String(), Confirm: []string{}, Dissent: []api.BuilderDissent{}, Silent: []string{}}
	out.Confirm = append(out.Confirm, said.Confirm...)
	out.Silent = append(out.Silent, said.Silent...)
	for _, d := range said.Dissent {
		out.Dissent = append(out.Dissent, api.BuilderDissent{Builder: d.Builder, SHA256: d.Image.String(), Why: d.Why})
	}
	return out
}

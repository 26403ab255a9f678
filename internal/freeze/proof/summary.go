package proof

import (
	"context"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/sign"
)

// Summary returns what the trust in a freeze is based on. It verifies the signature of
// the manifest and the entry of the transparency log. Unlike Verify, it reads neither
// indices nor packages.
func (v *Verifier) Summary(ctx context.Context, f *meta.Frozen) (*api.FreezeProof, error) {
	data, err := cas.ReadAll(ctx, v.cfg.Blobs, f.Manifest.SHA256, freeze.MaxManifest)
	if err != nil {
		return nil, err
	}
	sig, err := cas.ReadAll(ctx, v.cfg.Blobs, f.Signature.SHA256, freeze.MaxSignature)
	if err != nil {
		return nil, err
	}
	key, err := cas.ReadAll(ctx, v.cfg.Blobs, f.KeyBlob, freeze.MaxSignature)
	if err != nil {
		return nil, err
	}
	then, err := sign.ParseKeyring(key)
	if err != nil {
		return nil, err
	}
	c := newCheck(v.stored(f), Options{Name: f.Name, Ours: sign.Merge(then, v.cfg.Signer.Keyring())})
	if c.doc, err = freeze.ParseDocument(data); err != nil {
		return nil, err
	}
	statements, err := c.readStatements(ctx)
	if err != nil {
		return nil, err
	}
	c.checkSignature(ctx, data, sig, statements)
	c.checkStatements(statements, f.Manifest.SHA256)
	if err := v.logStored(ctx, c, f.Name, data, sig); err != nil {
		return nil, err
	}
	c.finish()
	out := &api.FreezeProof{
		Name: string(f.Name), Manifest: f.Manifest.SHA256.String(), Signature: c.res.Signature, Log: c.res.Log, Notes: c.res.Notes, Faults: c.res.Faults, Suites: []api.ProvenSuite{},
	}
	for i := range c.doc.Mirrors {
		if err := v.addSuites(ctx, f, &c.doc.Mirrors[i], out); err != nil {
			return nil, err
		}
	}
	return out, c.unasked
}

// addSuites adds the upstream roots of a mirror of a freeze, with the keys that verified
// them.
func (v *Verifier) addSuites(ctx context.Context, f *meta.Frozen, m *freeze.DocMirror, out *api.FreezeProof) error {
	names := map[string]string{}
	if i := f.MirrorIndex(m.Name); i >= 0 {
		ring, err := freeze.Certificates(ctx, v.cfg.Blobs, f.Mirrors[i].Certificates)
		if err != nil {
			return err
		}
		if ring != nil {
			for _, k := range ring.Keys() {
				names[string(k.Fingerprint)] = k.UserID
			}
		}
	}
	for _, s := range m.Suites {
		p := api.ProvenSuite{Mirror: string(m.Name), Kind: m.Kind, Suite: string(s.Suite), Trust: string(s.Trust), Date: s.Date, Keys: []api.ProvenKey{}, Documents: []api.File{}, Indices: len(s.Indices)}
		for _, k := range s.Keys {
			p.Keys = append(p.Keys, api.ProvenKey{Fingerprint: k, UserID: names[k]})
		}
		for _, d := range s.Documents {
			p.Documents = append(p.Documents, api.File{Path: d.Path, Size: d.Size, SHA256: d.SHA256.String()})
		}
		out.Suites = append(out.Suites, p)
	}
	return nil
}

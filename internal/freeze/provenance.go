package freeze

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// ProvenanceFormat is the version of the format of provenance.json.
const ProvenanceFormat = 1

// maxProvenance bounds provenance.json, in bytes.
const maxProvenance = 4 << 20

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

// ParseProvenance reads a provenance.json. It refuses what Freeze does not
// write: a larger one, unknown or repeated fields, another form.
func ParseProvenance(data []byte) (*Provenance, error) {
	if len(data) > maxProvenance {
		return nil, fmt.Errorf("%d bytes, expected at most %d", len(data), maxProvenance)
	}
	var p Provenance
	if err := decodeCanonical(data, &p); err != nil {
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

// provenance writes down the local facts of a freeze.
func (z *Freezer) provenance(ctx context.Context, f *meta.Frozen, manifest cas.Digest, pl *plan) ([]byte, error) {
	p := Provenance{
		Format: ProvenanceFormat, Name: f.Name, Manifest: manifest, Created: f.Created, Program: z.cfg.Version,
		Recording: pl.req.Recording, Base: pl.req.Base, Mirrors: []ProvenanceMirror{}, Manifests: []ProvenanceManifest{},
	}
	for _, m := range pl.req.Manifests {
		p.Manifests = append(p.Manifests, ProvenanceManifest{m.Name, cas.Sum(m.Data).String()})
	}
	for _, name := range pl.mirrors {
		for _, src := range pl.sources[name] {
			e := ProvenanceMirror{Mirror: name}
			if !src.snap.Timestamp.IsZero() {
				e.Snapshot = src.snap.ID()
			}
			for _, s := range src.snap.Suites {
				err := z.st.View(ctx, func(tx *bolt.Tx) error {
					g, err := tx.Generation(name, s.Suite, s.Gen)
					if err == nil {
						e.Suites = append(e.Suites, ProvenanceSuite{string(s.Suite), g.Docs[0].URL, meta.FormatTimestamp(g.Timestamp)})
					}
					return err
				})
				if err != nil {
					return nil, err
				}
			}
			p.Mirrors = append(p.Mirrors, e)
		}
	}
	data, err := Canonical(&p)
	if err == nil && len(data) > maxProvenance {
		err = fmt.Errorf("%w: provenance.json of %s would have %d bytes, expected at most %d: give fewer build manifests, or shorter names", ErrUsage, f.Name, len(data), maxProvenance)
	}
	return data, err
}

// SignProvenance signs the provenance.json of freezes that this server made
// before it signed them. It returns how many it signed. What was imported is left
// alone: its facts are not this server's.
func (z *Freezer) SignProvenance(ctx context.Context) (int, error) {
	var all []*meta.Frozen
	if err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		all, err = tx.Frozens()
		return err
	}); err != nil {
		return 0, err
	}
	n := 0
	var failed error
	for _, f := range all {
		if f.Imported || !f.ProvSignature.SHA256.IsZero() {
			continue
		}
		err := z.signProvenance(ctx, f)
		if errors.Is(err, durable.ErrUnknown) || err != nil && ctx.Err() != nil {
			return n, err
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("sign provenance.json of %s: %w", f.Name, err))
			continue
		}
		n++
	}
	return n, failed
}

func (z *Freezer) signProvenance(ctx context.Context, f *meta.Frozen) error {
	data, err := cas.ReadAll(ctx, z.blobs, f.Prov.SHA256, maxProvenance)
	if err != nil {
		return err
	}
	if p, err := ParseProvenance(data); err != nil {
		return err
	} else if p.Name != f.Name {
		return fmt.Errorf("%w: it is of %s", ErrVerify, p.Name)
	}
	sig, err := z.cfg.Signer.SignDetached(data, f.Date)
	if err != nil {
		return err
	}
	batch := z.blobs.NewBatch()
	defer batch.Discard()
	info, err := cas.PutBatch(ctx, batch, sig, time.Time{})
	if err != nil {
		return err
	}
	if err := z.e.Flush(ctx, batch); err != nil {
		return err
	}
	err = z.st.Update(ctx, "sign provenance", func(tx *bolt.Tx) error {
		now, err := tx.Frozen(f.Name)
		if err != nil || now.Prov.SHA256 != f.Prov.SHA256 {
			return err
		}
		now.ProvSignature = repo.File{Path: provSignature, Size: info.Size, SHA256: info.Digest}
		return tx.UpdateFrozen(now)
	})
	if err == nil {
		z.e.Changed()
	}
	return err
}

// Names of files of a freeze.
const (
	provenanceFile = "provenance.json"
	provSignature  = "provenance.json.asc"
)

// checkProvenance checks that provenance.json is well-formed, of this freeze, and
// signed.
func (v *verifier) checkProvenance(ctx context.Context, doc *Document, manifest cas.Digest) {
	data, sig, err := v.t.provenance(ctx)
	if err != nil {
		v.fault(provenanceFile, "", "", "%v", err)
		return
	}
	v.prove(provenanceFile, data)
	if sig != nil {
		v.prove(provSignature, sig)
	}
	p, err := ParseProvenance(data)
	if err != nil {
		v.fault(provenanceFile, "", "", "provenance: %v", err)
		return
	}
	if p.Name != doc.Name {
		v.fieldFault("name", provenanceFile, p.Name, doc.Name, "name of the frozen snapshot, and that in its provenance")
	}
	if p.Format > 0 && p.Manifest != manifest {
		v.fault(provenanceFile, manifest.String(), p.Manifest.String(), "the provenance is of another manifest")
	}
	const untrusted = "its local facts (times, URLs, snapshots) prove nothing, and nothing else rests on them"
	if sig == nil {
		if p.Format > 0 {
			v.fault(provSignature, "a signature", "", "the signature of the provenance is missing")
			return
		}
		v.res.Notes = append(v.res.Notes, "provenance.json is not signed, as earlier versions wrote it: "+untrusted)
		return
	}
	_, err = sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: v.o.Ours})
	switch {
	case err == nil:
	case p.Format == 0 && errors.Is(err, sign.ErrUnknownKey):
		v.res.Notes = append(v.res.Notes, "provenance.json was signed later, by a key that is not among those given: "+untrusted)
	default:
		v.fault(provSignature, "", "", "signature of the provenance: %v", err)
	}
}

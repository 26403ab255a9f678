package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/sign"
)

// maxStatements bounds the total size of the statements beside a manifest.
const maxStatements = 256 << 20

// readStatements reads the signed statements beside the manifest, by path.
func (c *check) readStatements(ctx context.Context) (map[string][]byte, error) {
	have := map[string][]byte{}
	left := int64(maxStatements)
	err := c.t.Each(ctx, freeze.StatementDir, func(n meta.Node) error {
		if n.Size > freeze.MaxSignature {
			c.fault(n.Path, fmt.Sprintf("at most %d", freeze.MaxSignature), fmt.Sprint(n.Size), "size of a statement in bytes")
			return nil
		}
		if left -= n.Size; left < 0 {
			return fmt.Errorf("%w: statements of more than %d bytes in total", freeze.ErrVerify, int64(maxStatements))
		}
		data, err := tree.ReadFile(ctx, c.t, n.Path, n.Size)
		if err != nil {
			c.fault(n.Path, "", "", "%v", err)
			return nil
		}
		have[n.Path] = data
		c.prove(n.Path, data)
		return nil
	})
	return have, err
}

// checkStatements verifies the signatures of the statements. A signature by a later key
// of this server is not a fault if only the earlier key is known: the statement adds to
// the proof, and nothing depends on it.
func (c *check) checkStatements(have map[string][]byte, manifest cas.Digest) {
	for _, name := range slices.Sorted(maps.Keys(have)) {
		data := have[name]
		if freeze.IsAttestation(name) {
			c.checkAttestation(name, data, manifest)
			continue
		}
		if freeze.IsRebuilds(name) {
			c.checkLinks(name, data)
			continue
		}
		if freeze.IsComparison(name) {
			c.checkComparison(name, data)
			continue
		}
		if strings.HasSuffix(name, ".asc") {
			if _, ok := have[strings.TrimSuffix(name, ".asc")]; !ok {
				c.fault(name, "", "", "signature of a statement that is missing")
			}
			continue
		}
		sig, ok := have[name+".asc"]
		if !ok {
			c.fault(name+".asc", "", "", "the signature of the statement is missing")
			continue
		}
		_, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: c.o.Ours})
		if errors.Is(err, sign.ErrUnknownKey) && strings.HasPrefix(name, freeze.StatementDir+"/signature-") {
			c.note(name + " is signed by a later key, which was not given")
			continue
		}
		if errors.Is(err, sign.ErrUnknownKey) && freeze.IsLabels(name) {
			c.note(name + " is signed by a key that was not given: these labels are not trusted, and an import leaves them out")
			c.disprove(name, name+".asc")
			continue
		}
		if err != nil {
			c.fault(name, c.o.Ours.Names(), "", "signature of the statement: %v", err)
			continue
		}
		c.checkStatement(name, data, manifest)
	}
}

// checkStatement checks that a statement is canonical and about this freeze.
func (c *check) checkStatement(name string, data []byte, manifest cas.Digest) {
	var s freeze.Statement
	if err := canonical.Unmarshal(data, &s); err != nil {
		c.fault(name, "", "", "statement: %v", err)
		return
	}
	if s.Freeze != c.doc.Name {
		c.fieldFault("name", name, string(s.Freeze), string(c.doc.Name), "name of the freeze in a statement")
	}
	if s.Manifest != manifest {
		c.fault(name, manifest.String(), s.Manifest.String(), "the statement is about another manifest")
	}
	switch {
	case s.Type == freeze.ImageStatement && !freeze.IsLabels(name):
		c.images = append(c.images, s)
	case s.Type == freeze.LabelsStatement || freeze.IsLabels(name):
		if want := freeze.LabelsPath(s.Number, cas.Sum(data)); s.Type != freeze.LabelsStatement || name != want {
			c.fault(name, want, "", "name of a statement with labels")
		} else if err := (freeze.Labels{Labels: s.Labels, Description: s.Description}).Check(); err != nil {
			c.fault(name, "", "", "%v", err)
		}
	}
}

// vouched finds a statement by a given key that names the manifest and the key that
// signed it, and returns a keyring with that key too: a user who trusts the later key
// trusts the earlier one. It returns nil if no statement does.
func (c *check) vouched(ctx context.Context, manifest cas.Digest, statements map[string][]byte) *sign.Keyring {
	key, err := c.t.Key(ctx)
	if err != nil {
		return nil
	}
	then, err := sign.ParseKeyring(key)
	if err != nil {
		return nil
	}
	for name, data := range statements {
		var s freeze.Statement
		if strings.HasSuffix(name, ".asc") || json.Unmarshal(data, &s) != nil || s.Type != freeze.SignatureStatement ||
			s.Freeze != c.doc.Name || s.Manifest != manifest || !then.Contains(sign.Fingerprint(s.How["earlier_key"])) {
			continue
		}
		if _, err := sign.VerifyDetached(data, statements[name+".asc"], sign.VerifyOptions{Keyring: c.o.Ours}); err == nil {
			return sign.Merge(c.o.Ours, then)
		}
	}
	return nil
}

// checkProvenance checks that provenance.json is well-formed, about this freeze, and
// signed.
func (c *check) checkProvenance(ctx context.Context, manifest cas.Digest) {
	const file, signature = freeze.ProvenanceFile, freeze.ProvenanceSignature
	data, sig, err := c.t.Provenance(ctx)
	if err != nil {
		c.fault(file, "", "", "%v", err)
		return
	}
	c.prove(file, data)
	if sig != nil {
		c.prove(signature, sig)
	}
	p, err := freeze.ParseProvenance(data)
	if err != nil {
		c.fault(file, "", "", "provenance: %v", err)
		return
	}
	if p.Name != c.doc.Name {
		c.fieldFault("name", file, string(p.Name), string(c.doc.Name), "name of the freeze in its provenance")
	}
	if p.Format > 0 && p.Manifest != manifest {
		c.fault(file, manifest.String(), p.Manifest.String(), "the provenance belongs to another manifest")
	}
	const untrusted = "its local facts (times, URLs, snapshots) are not proven, and nothing else depends on them"
	if sig == nil {
		if p.Format > 0 {
			c.fault(signature, "a signature", "", "the signature of the provenance is missing")
			return
		}
		c.note("provenance.json was written by an earlier version and is not signed: " + untrusted)
		return
	}
	_, err = sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: c.o.Ours})
	switch {
	case err == nil:
	case p.Format == 0 && errors.Is(err, sign.ErrUnknownKey):
		c.note("provenance.json was signed later by a key that was not given: " + untrusted)
	default:
		c.fault(signature, "", "", "signature of the provenance: %v", err)
	}
}

package freeze

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/store"
)

// Vouch signs again what earlier keys of this server signed: beside each frozen
// snapshot a statement by the present key that names its manifest and the key
// that signed it. The old signature stays. What has such a statement is left
// alone. It returns how many were signed.
func (z *Freezer) Vouch(ctx context.Context) (int, error) {
	var all []*store.Frozen
	if err := z.st.View(ctx, func(tx *store.Tx) (err error) {
		all, err = tx.Frozens()
		return err
	}); err != nil {
		return 0, err
	}
	n := 0
	fpr := z.cfg.Signer.Fingerprint()
	for _, f := range all {
		name := "signature-" + strings.ToLower(fpr)
		done := slices.ContainsFunc(f.Statements, func(s repo.File) bool { return s.Path == statementDir+"/"+name+".json" })
		if f.Key == fpr || f.Imported || done {
			continue
		}
		batch := z.blobs.NewBatch()
		s := Statement{Type: "signature", Freeze: f.Name, Manifest: f.Manifest.SHA256, How: map[string]string{"key": fpr, "earlier_key": f.Key}}
		err := z.addStatement(ctx, batch, f, name, s, func(*store.Tx, cas.Digest) error { return nil })
		batch.Discard()
		if err != nil {
			return n, fmt.Errorf("sign %s again: %w", f.Name, err)
		}
		n++
	}
	return n, nil
}

// vouched finds a statement by a key of ours that names the manifest, and adds
// the key that signed it then: whoever trusts the later key trusts the earlier.
func (v *verifier) vouched(ctx context.Context, ours *sign.Keyring, doc *Document, manifest []byte, statements map[string][]byte) *sign.Keyring {
	key, err := v.t.key(ctx)
	if err != nil {
		return nil
	}
	then, err := sign.ParseKeyring(key)
	if err != nil {
		return nil
	}
	for name, data := range statements {
		var s Statement
		if strings.HasSuffix(name, ".asc") || json.Unmarshal(data, &s) != nil || s.Type != "signature" ||
			s.Freeze != doc.Name || s.Manifest != cas.Sum(manifest) || !then.Contains(s.How["earlier_key"]) {
			continue
		}
		if _, err := sign.VerifyDetached(data, statements[name+".asc"], sign.VerifyOptions{Keyring: ours}); err == nil {
			return sign.Merge(ours, then)
		}
	}
	return nil
}

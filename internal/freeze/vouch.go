package freeze

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Vouch signs again what earlier keys of this server signed: beside each frozen
// snapshot a statement by the present key that names its manifest and the key
// that signed it. The old signature stays. What has such a statement is left
// alone. It returns how many were signed.
func (z *Freezer) Vouch(ctx context.Context) (int, error) {
	var all []*meta.Frozen
	if err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
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
		if f.Key == fpr {
			if err := z.keepRenewed(ctx, f); err != nil {
				return n, fmt.Errorf("keep the renewed key with %s: %w", f.Name, err)
			}
			continue
		}
		if f.Imported || done {
			continue
		}
		batch := z.blobs.NewBatch()
		s := Statement{Type: "signature", Freeze: f.Name, Manifest: f.Manifest.SHA256, How: map[string]string{"key": fpr, "earlier_key": f.Key}}
		err := z.addStatement(ctx, batch, f, name, s, func(*bolt.Tx, cas.Digest) error { return nil })
		batch.Discard()
		if err != nil {
			return n, fmt.Errorf("sign %s again: %w", f.Name, err)
		}
		n++
	}
	return n, nil
}

// keepRenewed puts the present certificate in the place of the one that a freeze
// was signed under, where the key has been renewed since: after the next change
// of key that is what clients get.
func (z *Freezer) keepRenewed(ctx context.Context, f *meta.Frozen) error {
	now := []byte(z.cfg.Signer.PublicKeyArmored())
	if cas.Sum(now) == f.KeyBlob {
		return nil
	}
	then, err := cas.ReadAll(ctx, z.blobs, f.KeyBlob, 1<<20)
	if err != nil {
		return err
	}
	ring, err := sign.ParseKeyring(then)
	if err != nil {
		return err
	}
	until := z.cfg.Signer.Expiry()
	for _, k := range ring.Keys() {
		if k.Fingerprint == f.Key && (k.Expires.IsZero() || !until.IsZero() && !until.After(k.Expires)) {
			return nil // an older copy of the key is no renewal
		}
	}
	batch := z.blobs.NewBatch()
	defer batch.Discard()
	info, err := cas.PutBatch(ctx, batch, now, time.Time{})
	if err != nil {
		return err
	}
	if err := z.e.Flush(ctx, batch); err != nil {
		return err
	}
	return z.st.Update(ctx, "renew", func(tx *bolt.Tx) error {
		fresh, err := tx.Frozen(f.Name)
		if err != nil || fresh.KeyBlob != f.KeyBlob {
			return err
		}
		if err := tx.DropRef(fresh.KeyBlob, meta.OwnerFrozen, f.Name); err != nil {
			return err
		}
		fresh.KeyBlob = info.Digest
		return tx.UpdateFrozen(fresh)
	})
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

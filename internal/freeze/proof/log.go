package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/tlog"
)

// TransparencyLog proves that a freeze is in the log of this server.
type TransparencyLog interface {
	// Proof proves the last entry about a subject. meta.ErrNotFound.
	Proof(ctx context.Context, subject string) (leaf []byte, p *tlog.Proof, err error)
	Key() *tlog.VerifierKey
}

// manifestProof is the file with the proof of a freeze.
const manifestProof = freeze.ManifestFile + tlog.ProofSuffix

// SnapshotProof returns the path, in an exported directory, of the proof that a state of
// upstream is in the log. The proof is beside the signed document with that digest.
func SnapshotProof(mirror meta.MirrorName, document cas.Digest) string {
	return path.Join(freeze.ProofDir, string(mirror), document.String()+tlog.ProofSuffix)
}

// logged checks a proof that the freeze is in the transparency log: the entry is computed
// from the manifest and its signature. policy is nil if the user did not say which log to
// trust: then the log is that of key, which comes from the same place as the freeze.
func (c *check) logged(data, sig, proof []byte, policy *tlog.Policy, key *tlog.VerifierKey) {
	if c.doc == nil || c.res.Signature == nil {
		return // a fault says why
	}
	given := policy != nil
	if !given {
		policy = tlog.LogPolicy(key)
	}
	leaf, err := tlog.Encode(&tlog.Frozen{Name: string(c.doc.Name), Manifest: cas.Sum(data), Signature: cas.Sum(sig), Key: c.res.Signature.Fingerprint})
	if err != nil {
		c.logFault(err)
		return
	}
	p, err := tlog.ParseProof(proof)
	if err != nil {
		c.logFault(err)
		return
	}
	checked, err := p.Check(leaf, policy)
	if err != nil {
		c.logFault(err)
		return
	}
	c.res.Log = &api.LogProof{
		Origin: checked.Checkpoint.Origin, Key: checked.Log.Text, Index: p.Index, Size: checked.Checkpoint.Size,
		Witnesses: checked.Witnesses, Given: given,
	}
}

// logPolicy reads the policy of a request; nil if the request has none.
func logPolicy(text string) (*tlog.Policy, error) {
	if text == "" {
		return nil, nil
	}
	return tlog.ParsePolicy([]byte(text))
}

func (c *check) logFault(err error) {
	c.fault(manifestProof, "", "", "%v", err)
	c.res.Exit = api.ExitVerify
}

// logFile checks the proof in an exported directory.
func (c *check) logFile(t *tree.Dir, data, sig []byte) {
	proof, err := t.Read(manifestProof, tlog.MaxProof)
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.o.Log == nil:
		return // an earlier version exported it, or the proof was removed
	case errors.Is(err, fs.ErrNotExist):
		c.fault(manifestProof, "a proof of the transparency log", "no such file", "the freeze is not proven to be in the transparency log")
		c.res.Exit = api.ExitVerify
		return
	case err != nil:
		c.logFault(err)
		return
	}
	var key *tlog.VerifierKey
	if c.o.Log == nil {
		text, err := t.Read(tlog.VKeyFile, tlog.MaxKey)
		if err == nil {
			key, err = tlog.ParseVerifierKey(string(text))
		}
		if err != nil {
			c.fault(tlog.VKeyFile, "", "", "%v", err)
			c.res.Exit = api.ExitVerify
			return
		}
	}
	c.logged(data, sig, proof, c.o.Log, key)
	if c.res.Log == nil || c.doc == nil {
		return
	}
	policy := c.o.Log
	if policy == nil {
		policy = tlog.LogPolicy(key)
	}
	for i := range c.doc.Mirrors {
		m := &c.doc.Mirrors[i]
		for j := range m.Suites {
			c.loggedState(t, m.Name, &m.Suites[j], policy)
		}
	}
	if n := c.res.Log.States; n < c.res.Log.StatesAll {
		c.note(fmt.Sprintf("the log provably contains %d of the %s of upstream that the freeze depends on: the others were sealed by another server, or before the log began",
			n, freeze.Count(c.res.Log.StatesAll, "state", "states")))
	}
}

// loggedState checks the proof that a state of upstream is in the log. Its entry follows
// from the manifest, except for the timestamp, which the server chose.
func (c *check) loggedState(t *tree.Dir, mirror meta.MirrorName, s *freeze.DocSuite, policy *tlog.Policy) {
	if len(s.Documents) == 0 {
		return
	}
	c.res.Log.StatesAll++
	name := SnapshotProof(mirror, s.Documents[0].SHA256)
	fault := func(err error) {
		c.fault(name, "", "", "%v", err)
		c.res.Exit = api.ExitVerify
	}
	data, err := t.Read(name, tlog.MaxProof)
	if errors.Is(err, fs.ErrNotExist) {
		return
	} else if err != nil {
		fault(err)
		return
	}
	p, err := tlog.ParseProof(data)
	if err != nil {
		fault(err)
		return
	}
	leaf, err := tlog.Decode(p.Extra)
	was, ok := leaf.(*tlog.Snapshot)
	if err != nil || !ok {
		fault(fmt.Errorf("%w: its extra data is not the entry of a snapshot", tlog.ErrProof))
		return
	}
	want := *was
	want.Mirror, want.Suite, want.Release = string(mirror), string(s.Suite), s.Documents[0].SHA256
	want.Date, want.Signers = s.Date.UTC().Format(time.RFC3339), s.Keys
	line, err := tlog.Encode(&want)
	if err == nil && !bytes.Equal(line, p.Extra) {
		c.fault(name, string(line), excerpt.Of(string(p.Extra)), "%v: its entry is about another object", tlog.ErrProof)
		c.res.Exit = api.ExitVerify
		return
	}
	if err == nil {
		_, err = p.Check(line, policy)
	}
	if err != nil {
		fault(err)
		return
	}
	c.res.Log.States++
}

// logStored checks the proof from the log of this server.
func (v *Verifier) logStored(ctx context.Context, c *check, name meta.FreezeName, data, sig []byte) error {
	if v.cfg.Log == nil {
		return nil
	}
	_, p, err := v.cfg.Log.Proof(ctx, tlog.FreezeSubject(string(name)))
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		c.logFault(err)
		return nil
	}
	c.logged(data, sig, p.Encode(), c.o.Log, v.cfg.Log.Key())
	return nil
}

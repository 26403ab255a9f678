package tlog

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/excerpt"
)

// proofMagic is the first line of a proof.
const proofMagic = "c2sp.org/tlog-proof@v1"

// maxHashes limits the hashes of a proof: no tree is higher.
const maxHashes = 63

// Proof proves that a log has an entry (tlog-proof).
type Proof struct {
	// Extra is data of the application, which nothing authenticates. In the proof of a
	// snapshot it is the entry, because not all of it follows from the signed document.
	Extra      []byte
	Index      int64
	Hashes     tlog.RecordProof
	Checkpoint []byte // a signed note, with cosignatures
}

// Encode returns the proof in its text form.
func (p *Proof) Encode() []byte {
	var b bytes.Buffer
	b.WriteString(proofMagic + "\n")
	if len(p.Extra) > 0 {
		fmt.Fprintf(&b, "extra %s\n", base64.StdEncoding.EncodeToString(p.Extra))
	}
	fmt.Fprintf(&b, "index %d\n", p.Index)
	for _, h := range p.Hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads a proof. A malformed one is an ErrProof.
func ParseProof(data []byte) (*Proof, error) {
	bad := func(what string) error { return fmt.Errorf("%w: malformed proof: %s", ErrProof, what) }
	if len(data) > MaxProof {
		return nil, bad("too large")
	}
	head, checkpoint, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		return nil, bad("no checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	if lines[0] != proofMagic {
		return nil, bad("its first line is not " + proofMagic)
	}
	p := &Proof{Checkpoint: checkpoint}
	if lines = lines[1:]; len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		extra, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[0], "extra "))
		if err != nil {
			return nil, bad("its extra data is not base64")
		}
		p.Extra, lines = extra, lines[1:]
	}
	if len(lines) == 0 {
		return nil, bad("no index")
	}
	number, ok := strings.CutPrefix(lines[0], "index ")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 0 || number != strconv.FormatInt(n, 10) {
		return nil, bad("no index")
	}
	p.Index = n
	if p.Hashes, err = parseHashes(lines[1:]); err != nil {
		return nil, bad(err.Error())
	}
	return p, nil
}

// parseHashes reads lines with a hash each.
func parseHashes(lines []string) ([]tlog.Hash, error) {
	if len(lines) > maxHashes {
		return nil, fmt.Errorf("more than %d hashes", maxHashes)
	}
	out := make([]tlog.Hash, len(lines))
	for i, line := range lines {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return nil, fmt.Errorf("line %d is not a hash", i+1)
		}
		out[i] = tlog.Hash(h)
	}
	return out, nil
}

// Check checks that a leaf is in a log of the policy, at the position that the proof
// names, and that a quorum of the policy's witnesses has cosigned it. If not, it returns
// ErrProof.
func (p *Proof) Check(leaf []byte, policy *Policy) (*Checked, error) {
	c, err := policy.Check(p.Checkpoint)
	if err != nil {
		return nil, err
	}
	if p.Index >= c.Checkpoint.Size {
		return nil, fmt.Errorf("%w: entry %d of a log of %d entries", ErrProof, p.Index, c.Checkpoint.Size)
	}
	if err := tlog.CheckRecord(p.Hashes, c.Checkpoint.Size, c.Checkpoint.Root, p.Index, tlog.RecordHash(leaf)); err != nil {
		return nil, fmt.Errorf("%w: entry %d of %s is not %s: %w", ErrProof, p.Index, c.Checkpoint.Origin, excerpt.Of(string(leaf)), err)
	}
	return c, nil
}

// AddCheckpoint is the request of a log to a witness (tlog-witness).
type AddCheckpoint struct {
	Old        int64
	Hashes     tlog.TreeProof // of consistency
	Checkpoint []byte
}

// Encode returns the request in its text form.
func (a *AddCheckpoint) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", a.Old)
	for _, h := range a.Hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.Write(a.Checkpoint)
	return b.Bytes()
}

// ParseAddCheckpoint reads a request. A malformed one is an ErrProof.
func ParseAddCheckpoint(data []byte) (*AddCheckpoint, error) {
	head, checkpoint, ok := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	number, is := strings.CutPrefix(lines[0], "old ")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || !is || err != nil || n < 0 || number != strconv.FormatInt(n, 10) {
		return nil, fmt.Errorf("%w: malformed request: expected the line \"old SIZE\"", ErrProof)
	}
	a := &AddCheckpoint{Old: n, Checkpoint: checkpoint}
	if a.Hashes, err = parseHashes(lines[1:]); err != nil {
		return nil, fmt.Errorf("%w: malformed request: %w", ErrProof, err)
	}
	return a, nil
}

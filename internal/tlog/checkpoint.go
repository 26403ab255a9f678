package tlog

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/excerpt"
)

// Checkpoint is a signed state of a log.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
	Note   []byte // as it was signed
}

// SignCheckpoint signs the state of a log.
func SignCheckpoint(s note.Signer, size int64, root tlog.Hash) ([]byte, error) {
	text := torchwood.Checkpoint{Origin: s.Name(), Tree: tlog.Tree{N: size, Hash: root}}.String()
	signed, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of %d entries: %w", size, err)
	}
	return signed, nil
}

// ParseCheckpoint reads a checkpoint without checking its signatures. A malformed one is
// an ErrProof.
func ParseCheckpoint(data []byte) (*Checkpoint, error) {
	text, lines, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || len(data) > MaxCheckpoint {
		return nil, fmt.Errorf("%w: malformed checkpoint", ErrProof)
	}
	// Accept only one encoding of a signature: signed-note ignores the last bits of
	// base64.
	for line := range bytes.Lines(lines) {
		_, sig, _ := bytes.Cut(bytes.TrimSuffix(bytes.TrimPrefix(line, []byte("— ")), []byte("\n")), []byte(" "))
		if _, err := base64.StdEncoding.Strict().DecodeString(string(sig)); err != nil {
			return nil, fmt.Errorf("%w: malformed checkpoint: signature: %w", ErrProof, err)
		}
	}
	return parseText(string(text)+"\n", data)
}

func parseText(text string, data []byte) (*Checkpoint, error) {
	c, err := torchwood.ParseCheckpoint(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return &Checkpoint{Origin: c.Origin, Size: c.N, Root: c.Hash, Note: data}, nil
}

// OpenCheckpoint reads a checkpoint and verifies that the log with the given key signed
// it. If not, it returns ErrProof.
func OpenCheckpoint(data []byte, key *VerifierKey) (*Checkpoint, error) {
	c, err := ParseCheckpoint(data)
	if err != nil {
		return nil, err
	}
	if c.Origin != key.Name() {
		return nil, fmt.Errorf("%w: checkpoint of log %s, expected %s", ErrProof, excerpt.Of(c.Origin), key.Name())
	}
	if _, err := note.Open(data, note.VerifierList(key)); err != nil {
		return nil, fmt.Errorf("%w: checkpoint of %s is not signed by %s: %w", ErrProof, c.Origin, key.Text, err)
	}
	return c, nil
}

// AddCosignatures adds the cosignature of a witness to a checkpoint, from the lines with
// which the witness answered. Without such a cosignature it returns the checkpoint
// unchanged. It replaces an earlier cosignature by the same key, because a log that does
// not grow is cosigned again at each start.
func AddCosignatures(checkpoint, lines []byte, witness *VerifierKey) []byte {
	text, signatures, ok := bytes.Cut(checkpoint, []byte("\n\n"))
	n, err := note.Open(slices.Concat(text, []byte("\n\n"), lines), note.VerifierList(witness))
	if !ok || err != nil || len(n.Sigs) == 0 {
		return checkpoint
	}
	line := fmt.Appendf(nil, "— %s %s\n", n.Sigs[0].Name, n.Sigs[0].Base64)
	if bytes.Contains(signatures, line) {
		return checkpoint
	}
	out := append(bytes.Clone(text), "\n\n"...)
	for old := range bytes.Lines(signatures) {
		if !signedBy(old, witness) {
			out = append(out, old...)
		}
	}
	return append(out, line...)
}

// signedBy reports whether a signature line names a key.
func signedBy(line []byte, k *VerifierKey) bool {
	sig, ok := bytes.CutPrefix(line, []byte("— "+k.Name()+" "))
	data, err := base64.StdEncoding.DecodeString(string(sig))
	return ok && err == nil && len(data) > 4 && binary.BigEndian.Uint32(data) == k.KeyHash()
}

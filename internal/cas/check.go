package cas

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
)

// Sums are the digests of a blob's bytes other than SHA-256.
type Sums struct {
	SHA1   [sha1.Size]byte
	SHA512 [sha512.Size]byte
}

// Check reads a whole blob and compares its digest. If s is a Cache, it reads the other
// store. ErrCorrupt, ErrNotFound.
func Check(ctx context.Context, s Reader, dg Digest) error { return check(ctx, s, dg, io.Discard) }

// SumAll is Check, and also returns the blob's other digests.
func SumAll(ctx context.Context, s Reader, dg Digest) (out Sums, err error) {
	h1, h512 := sha1.New(), sha512.New()
	if err := check(ctx, s, dg, io.MultiWriter(h1, h512)); err != nil {
		return out, err
	}
	h1.Sum(out.SHA1[:0])
	h512.Sum(out.SHA512[:0])
	return out, nil
}

func check(ctx context.Context, s Reader, dg Digest, also io.Writer) error {
	if c, ok := s.(Cache); ok {
		s = c.Stored()
	}
	b, err := s.Open(ctx, dg)
	if err != nil {
		return err
	}
	defer b.Close()
	return CheckBytes(ctx, io.TeeReader(b, also), dg)
}

// CheckBytes compares the bytes of r with a digest. ErrCorrupt.
func CheckBytes(ctx context.Context, r io.Reader, dg Digest) error {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		} else if err != nil {
			return Unreadable(dg, err)
		}
	}
	if got := h.Sum(nil); Digest(got) != dg {
		return corrupt(dg, "its bytes now have SHA-256 "+hex.EncodeToString(got))
	}
	return nil
}

// Unreadable returns the error for a blob whose bytes cannot be read. It wraps
// ErrCorrupt, because a medium that returns an error has lost them, unless the store
// could not be reached.
func Unreadable(dg Digest, err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return corrupt(dg, "unreadable: "+err.Error())
}

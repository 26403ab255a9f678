package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/minio/minio-go/v7"

	"example.org/snapd/internal/cas"
)

// installationKey is the name, below the prefix, of the object that says which
// installation owns the bucket.
const installationKey = "installation"

// probe checks the features that the store depends on. ErrRefused, cas.ErrUnavailable.
func (s *Store) probe(ctx context.Context) error {
	if err := s.reachable(ctx); err != nil {
		return err
	}
	key := s.location.Prefix + "probe/" + rand.Text()
	defer s.core.RemoveObject(context.WithoutCancel(ctx), s.location.Bucket, key, minio.RemoveObjectOptions{})
	if err := s.probeChecksums(ctx, key); err != nil {
		return err
	}
	if err := s.probeConditions(ctx, key); err != nil {
		return err
	}
	return s.claim(ctx)
}

func (s *bucket) refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s: "+format, append([]any{ErrRefused, s.location}, args...)...)
}

// reachable returns a plain error if the bucket or the credentials cannot be used.
func (s *bucket) reachable(ctx context.Context) error {
	ok, err := s.core.BucketExists(ctx, s.location.Bucket)
	switch {
	case err == nil && !ok || code(err) == minio.NoSuchBucket:
		return s.refused("there is no bucket %s", s.location.Bucket)
	case status(err) == http.StatusForbidden:
		return s.refused("the credentials do not permit access to bucket %s: %w", s.location.Bucket, err)
	case err != nil:
		return s.failed("look for", "bucket "+s.location.Bucket, err)
	}
	return nil
}

// checksum is the value of x-amz-checksum-sha256.
func checksum(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

const checksumHeader = "x-amz-checksum-sha256"

// put sends a small object with its checksum, or with a wrong one.
func (s *bucket) put(ctx context.Context, key string, data []byte, sum [sha256.Size]byte, onlyNew bool) error {
	o := minio.PutObjectOptions{UserMetadata: map[string]string{checksumHeader: checksum(sum[:])}, ContentType: "application/octet-stream"}
	if onlyNew {
		o.SetMatchETagExcept("*")
	}
	_, err := s.core.PutObject(ctx, s.location.Bucket, key, bytes.NewReader(data), int64(len(data)), "", "", o)
	return err
}

// probeChecksums sends an object with a wrong checksum. A server that accepts it would
// accept a damaged blob.
func (s *Store) probeChecksums(ctx context.Context, key string) error {
	switch err := s.put(ctx, key, []byte("probe"), sha256.Sum256([]byte("other")), false); {
	case err == nil:
		return s.refused("the server stores an object whose %s does not match its bytes", checksumHeader)
	case status(err) == http.StatusForbidden:
		return s.refused("the credentials do not permit writing to bucket %s: %w", s.location.Bucket, err)
	case status(err) != http.StatusBadRequest:
		return s.failed("probe", key, err)
	}
	return nil
}

// probeConditions writes an object that must not exist, twice.
func (s *Store) probeConditions(ctx context.Context, key string) error {
	data := []byte("probe")
	sum := sha256.Sum256(data)
	if err := s.put(ctx, key, data, sum, true); err != nil {
		return s.failed("probe", key, err)
	}
	switch err := s.put(ctx, key, data, sum, true); {
	case err == nil:
		return s.refused("the server ignores If-None-Match: it overwrote an existing object")
	case status(err) != http.StatusPreconditionFailed && status(err) != http.StatusConflict:
		return s.failed("probe", key, err)
	}
	return nil
}

// Same reports whether two locations are the same place under different names: an object
// that is written to one is in the other. It returns false if the credentials do not
// allow it to find out. cas.ErrUnavailable.
func (s *Store) Same(ctx context.Context, other *Store) (bool, error) {
	name := "probe/" + rand.Text()
	theirs := other.location.Prefix + name
	defer other.core.RemoveObject(context.WithoutCancel(ctx), other.location.Bucket, theirs, minio.RemoveObjectOptions{})
	data := []byte("probe")
	if err := other.put(ctx, theirs, data, sha256.Sum256(data), true); err != nil {
		return false, other.failed("probe", theirs, err)
	}
	key := s.location.Prefix + name
	_, err := s.core.StatObject(ctx, s.location.Bucket, key, minio.StatObjectOptions{})
	switch {
	case err == nil:
		return true, nil
	case gone(err) || status(err) == http.StatusNotFound:
		return false, nil
	case status(err) == http.StatusForbidden:
		// Without the permission to list the bucket, S3 does not report that an object is
		// absent. But a conditional write fails if the object exists.
		if err = s.put(ctx, key, data, sha256.Sum256(data), true); err == nil {
			_ = s.core.RemoveObject(context.WithoutCancel(ctx), s.location.Bucket, key, minio.RemoveObjectOptions{})
		}
		return status(err) == http.StatusPreconditionFailed, ctx.Err()
	}
	return false, s.failed("probe", key, err)
}

// claim records which installation owns the bucket, or checks that it is this one.
func (s *Store) claim(ctx context.Context) error {
	key := s.location.Prefix + installationKey
	data := []byte(s.o.Installation + "\n")
	err := s.put(ctx, key, data, sha256.Sum256(data), true)
	if err == nil {
		return nil
	}
	if st := status(err); st != http.StatusPreconditionFailed && st != http.StatusConflict {
		return s.failed("write", key, err)
	}
	r, _, _, err := s.core.GetObject(ctx, s.location.Bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return s.failed("read", key, err)
	}
	defer r.Close()
	have, err := io.ReadAll(io.LimitReader(r, 1<<10))
	if err != nil {
		return s.failed("read", key, err)
	}
	if !bytes.Equal(have, data) {
		return s.refused("another installation uses it: object %s names %q, this one is %q", key, bytes.TrimSpace(have), s.o.Installation)
	}
	return nil
}

// lost means that an object is not in the bucket although the index has it.
func (s *Store) lost(d cas.Digest, key string) error {
	return fmt.Errorf("%w: %s: object %s is not in %s", cas.ErrCorrupt, d, key, s.location)
}

// gone reports whether an answer says that the object does not exist.
func gone(err error) bool {
	return code(err) == minio.NoSuchKey || errors.Is(err, cas.ErrNotFound)
}

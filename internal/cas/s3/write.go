package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/latency"
)

// NewBatch implements cas.Writer.
func (s *Store) NewBatch() cas.Batch { return spool.NewBatch(s.spool, &s.holds, s) }

// Flush implements spool.Engine. It reserves numbers, uploads objects concurrently, and
// then adds all of them to the index at once.
func (s *Store) Flush(ctx context.Context, files []*spool.File) error {
	defer s.o.Latency.Flush.Since(latency.Start())
	// Equal blobs need one upload.
	one := map[cas.Digest]*spool.File{}
	for _, f := range files {
		one[f.Info().Digest] = f
	}
	digests := slices.SortedFunc(maps.Keys(one), func(a, b cas.Digest) int { return bytes.Compare(a[:], b[:]) })
	keys, err := s.reserve(ctx, digests)
	if err != nil {
		return err
	}
	defer s.finish(keys)
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(s.o.Parallel)
	list := make([]objects.Object, len(keys))
	for i, k := range keys {
		f := one[k.Digest]
		list[i] = objects.Object{Key: k, Size: f.Info().Size, ModTime: seconds(f.Info().ModTime), Stored: seconds(s.o.Now())}
		eg.Go(func() error { return s.upload(egctx, k, f) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	err = s.holds.Apart(func() error {
		return s.o.Fault.Step("add", "batch", func() error { return s.o.Index.Add(ctx, list, s.o.Now()) })
	})
	if err == nil {
		for _, f := range one {
			if s.o.Keep != nil {
				s.o.Keep(f)
			}
		}
		for _, f := range files {
			f.Remove()
		}
	}
	return err
}

// reserve returns keys that Purge leaves alone until finish.
func (s *Store) reserve(ctx context.Context, digests []cas.Digest) (keys []objects.Key, err error) {
	s.trash.Lock() // no Purge may see them before they are recorded as being sent
	defer s.trash.Unlock()
	err = s.o.Fault.Step("reserve", "batch", func() (err error) {
		keys, err = s.o.Index.Reserve(ctx, digests, s.o.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.sending[k] = true
	}
	return keys, nil
}

func (s *Store) finish(keys []objects.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		delete(s.sending, k)
	}
}

// upload sends one blob.
func (s *Store) upload(ctx context.Context, k objects.Key, f *spool.File) error {
	err := s.o.Fault.Step("put", s.key(k), func() error {
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		o := minio.PutObjectOptions{ContentType: "application/octet-stream"}
		if f.Info().Size <= singlePut {
			return s.putWhole(ctx, s.key(k), r, f.Info(), o)
		}
		return s.putParts(ctx, s.key(k), r, f.Info(), o)
	})
	if err != nil && (code(err) != "" || !isLocal(err)) {
		return s.failed("store", s.key(k), err)
	}
	return err
}

// isLocal reports whether an error comes from this machine's files.
func isLocal(err error) bool {
	return errors.As(err, new(*os.PathError)) || errors.Is(err, context.Canceled) || errors.Is(err, cas.ErrMismatch)
}

// putWhole sends a blob in one request, whose checksum the server compares.
func (s *bucket) putWhole(ctx context.Context, key string, r io.Reader, info cas.Info, o minio.PutObjectOptions) error {
	o.UserMetadata = map[string]string{checksumHeader: checksum(info.Digest[:])}
	o.DisableContentSha256 = true // signs the digest, not each piece of the body
	_, err := s.core.PutObject(ctx, s.location.Bucket, key, r, info.Size, "", info.Digest.String(), o)
	return err
}

// putParts sends a large blob in parts, each with its checksum, and checks the resulting
// size.
func (s *bucket) putParts(ctx context.Context, key string, r io.ReaderAt, info cas.Info, o minio.PutObjectOptions) (err error) {
	bucket := s.location.Bucket
	o.UserMetadata = map[string]string{"x-amz-checksum-algorithm": "SHA256"}
	id, err := s.core.NewMultipartUpload(ctx, bucket, key, o)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// If that fails, Purge finds the upload later.
			_ = s.core.AbortMultipartUpload(context.WithoutCancel(ctx), bucket, key, id)
		}
	}()
	size := partSize(info.Size)
	parts := make([]minio.CompletePart, (info.Size+size-1)/size)
	whole := sha256.New()
	for i := range parts {
		off := int64(i) * size
		part := io.NewSectionReader(r, off, min(size, info.Size-off))
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(h, whole), part); err != nil {
			return err
		}
		sum := h.Sum(nil)
		if _, err := part.Seek(0, io.SeekStart); err != nil {
			return err
		}
		p, err := s.core.PutObjectPart(ctx, bucket, key, id, i+1, part, part.Size(), minio.PutObjectPartOptions{
			Sha256Hex: hex.EncodeToString(sum), DisableContentSha256: true, CustomHeader: http.Header{http.CanonicalHeaderKey(checksumHeader): {checksum(sum)}},
		})
		if err != nil {
			return err
		}
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.ETag, ChecksumSHA256: checksum(sum)}
	}
	// The server compares only the parts, so compare the whole here.
	if got := cas.Digest(whole.Sum(nil)); got != info.Digest {
		return fmt.Errorf("%w: spooled blob has SHA-256 %s, expected %s", cas.ErrMismatch, got, info.Digest)
	}
	if _, err := s.core.CompleteMultipartUpload(ctx, bucket, key, id, parts, minio.PutObjectOptions{}); err != nil {
		// An earlier request whose answer was lost may have completed it.
		if st, serr := s.core.StatObject(ctx, bucket, key, minio.StatObjectOptions{}); serr != nil || st.Size != info.Size {
			return err
		}
		return nil
	}
	st, err := s.core.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return err
	}
	if st.Size != info.Size {
		return fmt.Errorf("the object has %d bytes, %d were sent", st.Size, info.Size)
	}
	return nil
}

// partSize returns the size of the parts of a large blob.
func partSize(size int64) int64 {
	n := int64(singlePut)
	for size > n*maxParts {
		n *= 2
	}
	return n
}

// sweepUploads aborts abandoned multipart uploads.
func (s *Store) sweepUploads(ctx context.Context) error {
	prefix := s.location.Prefix + "blobs/"
	for u := range s.core.ListIncompleteUploads(ctx, s.location.Bucket, prefix, true) {
		if u.Err != nil {
			return s.failed("list uploads below", prefix, u.Err)
		}
		if !strings.HasPrefix(u.Key, prefix) || s.o.Now().Sub(u.Initiated) < abandoned {
			continue
		}
		err := s.o.Fault.Step("abort", u.Key, func() error { return s.core.AbortMultipartUpload(ctx, s.location.Bucket, u.Key, u.UploadID) })
		if err != nil && code(err) != minio.NoSuchUpload {
			return s.failed("abort an upload of", u.Key, err)
		}
	}
	return nil
}

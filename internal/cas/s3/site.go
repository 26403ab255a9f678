package s3

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/minio/minio-go/v7"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/s3/location"
)

// Site is a bucket, or a prefix in one, that stores files under their own names, to be
// served without snapd.
type Site struct{ bucket }

// OpenSite opens a bucket for writing files. ErrRefused, cas.ErrUnavailable.
func OpenSite(ctx context.Context, l location.Location, credentialsFile string) (*Site, error) {
	b, err := openBucket(l, credentialsFile, time.Now)
	if err != nil {
		return nil, err
	}
	return &Site{b}, b.reachable(ctx)
}

// Size returns the size of a file, or -1 if it does not exist.
func (s *Site) Size(ctx context.Context, name string) (int64, error) {
	key := s.location.Prefix + name
	st, err := s.core.StatObject(ctx, s.location.Bucket, key, minio.StatObjectOptions{})
	switch {
	case gone(err):
		return -1, nil
	case err != nil:
		return 0, s.failed("look for", key, err)
	}
	return st.Size, nil
}

// File is the source of Put.
type File interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// Put writes a file with the bytes of r. The server compares their digest and size with
// those of info. immutable tells clients that they may cache the file forever.
// cas.ErrCorrupt.
func (s *Site) Put(ctx context.Context, name string, info cas.Info, r File, immutable bool) error {
	o := minio.PutObjectOptions{ContentType: contentType(name), CacheControl: "no-cache"}
	if immutable {
		o.CacheControl = "public, max-age=31536000, immutable"
	}
	key := s.location.Prefix + name
	var err error
	if info.Size <= singlePut {
		err = s.putWhole(ctx, key, r, info, o)
	} else {
		err = s.putParts(ctx, key, r, info, o)
	}
	switch {
	case err == nil:
		return nil
	case status(err) == http.StatusBadRequest || errors.Is(err, cas.ErrMismatch):
		// The server refused the digest.
		return cas.Unreadable(info.Digest, err)
	case errors.Is(err, cas.ErrCorrupt), isLocal(err):
		return err
	}
	return s.failed("store", key, err)
}

// contentType returns the type with which static servers serve a name.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".deb", ".udeb":
		return "application/vnd.debian.binary-package"
	case ".rpm":
		return "application/x-rpm"
	case ".json", ".xml":
		return mime.TypeByExtension(ext)
	}
	return "application/octet-stream"
}

// Package s3 stores blobs in a bucket of an object store that speaks S3:
//
//	<prefix>blobs/ab/<sha256>.<n>  one blob; n is the number of its upload
//	<prefix>installation           whose bucket this is
//
// An objects.Index, and not the bucket, contains the keys and says which one is a blob's
// present key. So a blob is never looked up with HEAD, a listing of the bucket decides
// nothing, and the quarantine is a state in the index. A key is never written twice, so
// that a DELETE that arrives late cannot delete a blob that was stored again.
//
// Each upload carries its SHA-256, which the server compares; only then does the index
// get the key. A blob is durable when the server has answered 200: that is the contract
// of S3.
package s3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/silent"
)

// Options are the parts of a Store.
type Options struct {
	Location location.Location
	// CredentialsFile is in the format of AWS's shared credentials file; empty: the
	// usual AWS environment.
	CredentialsFile string
	Index           objects.Index
	// Installation identifies an installation. A bucket and prefix that another
	// installation uses are refused.
	Installation string
	Spool        string // local directory for blobs that are being uploaded
	Parallel     int    // uploads at one time; default 16
	// Keep may take over the file of a blob that has been stored. If Keep is nil, the
	// file is deleted.
	Keep      func(*spool.File)
	Log       *slog.Logger
	Now       func() time.Time
	Latency   *latency.Blobs // counts operations; nil: not counted
	Fault     spool.Fault    // of steps that change something, for tests
	ReadFault spool.Fault    // of steps that only read, for tests
}

const (
	parallelUploads = 16
	// singlePut is the largest blob that is sent in one request, in bytes. The parts of a
	// larger one have this size, or more if there would be too many.
	singlePut = 16 << 20
	maxParts  = 10_000
	// stalled is how long a request may make no progress.
	stalled = time.Minute
	// silence is how long the server may acknowledge nothing, and connectTime is the
	// timeout of a new connection. They are short so that a leader that cannot reach the
	// bucket, but still has its leases, gives up soon.
	silence     = 15 * time.Second
	connectTime = 5 * time.Second
	// maxRetries limits how often one request is sent.
	maxRetries = 4
	// abandoned is the age after which an upload counts as abandoned.
	abandoned = 24 * time.Hour
)

// ErrRefused means that the bucket or its server cannot be used as configured.
var ErrRefused = errors.New("object store refused")

// bucket is a bucket that can be used.
type bucket struct {
	core     minio.Core
	location location.Location
	health   *health
}

// openBucket returns a client. It sends no request.
func openBucket(l location.Location, credentialsFile string, now func() time.Time) (bucket, error) {
	h := &health{next: transport(), now: now}
	client, err := minio.New(l.Host, &minio.Options{
		Creds: credentialsOf(credentialsFile), Secure: l.Secure, Region: l.Region, Transport: h, BucketLookup: lookup(l), MaxRetries: maxRetries,
	})
	if err != nil {
		return bucket{}, fmt.Errorf("object store %s: %w", l, err)
	}
	return bucket{minio.Core{Client: client}, l, h}, nil
}

// Store is a blob store in a bucket. It implements cas.Store and cas.Locator.
type Store struct {
	bucket
	o     Options
	spool *spool.Dir
	holds spool.Holds
	trash sync.Mutex // one removal, restoration or deletion at a time

	mu      sync.Mutex
	sending map[objects.Key]bool // uploads in progress, which Purge leaves alone
}

// Open opens the bucket. It checks that the server supports what the store depends on,
// and that no other installation uses the bucket. ErrRefused, cas.ErrUnavailable.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if o.Parallel == 0 {
		o.Parallel = parallelUploads
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Latency == nil {
		o.Latency = new(latency.Blobs)
	}
	b, err := openBucket(o.Location, o.CredentialsFile, o.Now)
	if err != nil {
		return nil, err
	}
	s := &Store{bucket: b, o: o, sending: map[objects.Key]bool{}}
	if s.spool, err = spool.Open(o.Spool, spool.Options{Fault: o.Fault}); err != nil {
		return nil, fmt.Errorf("spool of object store %s: %w", o.Location, err)
	}
	if err := s.probe(ctx); err != nil {
		return nil, errors.Join(err, s.spool.Close())
	}
	return s, nil
}

func lookup(l location.Location) minio.BucketLookupType {
	if l.DNS || l.Host == "s3.amazonaws.com" {
		return minio.BucketLookupAuto
	}
	return minio.BucketLookupPath
}

// transport avoids HTTP/2, which would use one connection for all transfers, and never
// waits forever.
func transport() *http.Transport {
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: connectTime, KeepAlive: silence / 3, Control: silent.Limit(silence)}).DialContext, MaxIdleConns: 256, MaxIdleConnsPerHost: 64,
		IdleConnTimeout: 75 * time.Second, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: stalled, DisableCompression: true,
	}
}

// Close implements cas.Store.
func (s *Store) Close() error { return s.spool.Close() }

// Free implements cas.Keeper. A bucket is unlimited, the spool is not.
func (s *Store) Free(context.Context) (int64, error) { return s.spool.Free() }

// key returns an object's full key.
func (s *Store) key(k objects.Key) string {
	h := k.Digest.String()
	return fmt.Sprintf("%sblobs/%s/%s.%d", s.location.Prefix, h[:2], h, k.N)
}

// Locate implements cas.Locator with a signed URL.
func (s *Store) Locate(ctx context.Context, d cas.Digest, w cas.Wanted) (cas.Place, error) {
	o, err := s.present(ctx, d)
	if err != nil {
		return cas.Place{}, err
	}
	u, err := s.core.PresignedGetObject(ctx, s.location.Bucket, s.key(o.Key), w.Life, answerHeaders(w))
	if err != nil {
		return cas.Place{}, s.failed("sign a URL of", s.key(o.Key), err)
	}
	return cas.Place{URL: u.String()}, nil
}

// answerHeaders are the parameters of a signed URL that set headers in its answer.
func answerHeaders(w cas.Wanted) url.Values {
	v := url.Values{"response-cache-control": {"no-store"}}
	if w.ContentType != "" {
		v.Set("response-content-type", w.ContentType)
	}
	return v
}

// present asks the index for a blob's object.
func (s *Store) present(ctx context.Context, d cas.Digest) (o objects.Object, err error) {
	err = s.o.ReadFault.Step("present", d.String(), func() (err error) {
		o, err = s.o.Index.Present(ctx, d)
		return err
	})
	return o, err
}

// failed describes a failed request. cas.ErrUnavailable, unless it was cancelled.
func (s *bucket) failed(what, key string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %s %s in %s: %w", cas.ErrUnavailable, what, key, s.location, err)
}

// code returns the S3 error code of an answer; empty for other errors.
func code(err error) string {
	var r minio.ErrorResponse
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// status returns the HTTP status of an answer; 0 for other errors.
func status(err error) int {
	var r minio.ErrorResponse
	if errors.As(err, &r) {
		return r.StatusCode
	}
	return 0
}

// Package s3test runs a real S3 server, versitygw, for tests, behind a proxy that makes
// its answers fail ([Proxy]).
package s3test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/needs"
)

// Version is the version of versitygw that `.ci/deps test` builds.
const Version = "v1.8.0"

// The server has this one account.
const (
	AccessKey = "test-access"
	SecretKey = "test-secret"
	Region    = "us-east-1"
)

// program finds versitygw. Without it the test is skipped, or fails if CI=true.
func program(t testing.TB) string {
	t.Helper()
	if name := os.Getenv("VERSITYGW"); name != "" {
		return name
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	name := filepath.Join(cache, "snapd-tools", "versitygw-"+Version)
	if _, err := os.Stat(name); err != nil {
		needs.Missing(t, "versitygw is missing: %v (.ci/deps test builds it)", err)
	}
	return name
}

// Server is a running S3 server behind a Proxy.
type Server struct {
	*Proxy
	Dir    string // the stored objects: a directory for each bucket
	Client *minio.Client
	web    *httptest.Server
	n      int
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	gw := program(t)
	// Socket paths must be short.
	run, err := os.MkdirTemp("/tmp", "s3test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	s := &Server{Dir: filepath.Join(run, "data")}
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "s")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, gw, "--port", socket, "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--quiet", "--keep-alive", "posix", s.Dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() && log.Len() > 0 {
			t.Logf("versitygw: %s", log.Bytes())
		}
	})
	s.Proxy = newProxy(socket)
	s.web = httptest.NewServer(s.Proxy)
	t.Cleanup(s.web.Close)
	t.Cleanup(s.Proxy.release)
	if s.Client, err = minio.New(s.web.Listener.Addr().String(), &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region, MaxRetries: 1,
	}); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	return s
}

// Listen makes the server also reachable at an address of this machine, which Location
// uses from now on.
func (s *Server) Listen(t testing.TB, host string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s.web = &httptest.Server{Listener: l, Config: &http.Server{Handler: s.Proxy}}
	s.web.Start()
	t.Cleanup(s.web.Close)
}

// waitReady waits until the server answers.
func (s *Server) waitReady(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if _, err := s.Client.ListBuckets(ctx); err == nil {
			return
		} else if ctx.Err() != nil {
			t.Fatalf("versitygw does not answer: %v", err)
		}
		<-tick.C
	}
}

// Bucket makes a new bucket and returns its name.
func (s *Server) Bucket(t testing.TB) string {
	t.Helper()
	s.n++
	name := fmt.Sprintf("bucket-%d", s.n)
	if err := s.Client.MakeBucket(context.Background(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

// Upload uploads n objects of 80 bytes by signed requests, several at a time. It shows
// how fast a client can be that does nothing else.
func (s *Server) Upload(ctx context.Context, bucket string, n, parallel int) error {
	core := minio.Core{Client: s.Client}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallel)
	for i := range n {
		eg.Go(func() error {
			body := fmt.Appendf(nil, "%080d", i)
			sum := sha256.Sum256(body)
			_, err := core.PutObject(ctx, bucket, fmt.Sprintf("blobs/%02x/%x.1", sum[0], sum), bytes.NewReader(body), int64(len(body)), "", hex.EncodeToString(sum[:]), minio.PutObjectOptions{
				ContentType: "application/octet-stream", DisableContentSha256: true,
				UserMetadata: map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(sum[:])},
			})
			return err
		})
	}
	return eg.Wait()
}

// Location returns the location of a bucket, in the form of the configuration.
func (s *Server) Location(bucket, prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=%s", bucket, prefix, s.web.URL, Region)
}

// CredentialsFile writes the credentials of the server's account.
func CredentialsFile(t testing.TB) string {
	t.Helper()
	return WriteCredentials(t, filepath.Join(t.TempDir(), "credentials"), SecretKey)
}

// WriteCredentials writes credentials with a given secret.
func WriteCredentials(t testing.TB, name, secret string) string {
	t.Helper()
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", AccessKey, secret)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

var _ http.Handler = (*Proxy)(nil)

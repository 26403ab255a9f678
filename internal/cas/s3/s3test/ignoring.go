package s3test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/signer"
)

// Ignoring returns the location of a bucket at a server that ignores a header of
// requests: a proxy before s removes the header and signs the request again.
func (s *Server) Ignoring(t testing.TB, location, header string) string {
	t.Helper()
	to, err := url.Parse(s.web.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			out := r.Out
			out.Host = to.Host
			body, err := unchunked(r.In)
			if err != nil {
				t.Errorf("%s %s: %v", out.Method, out.URL, err)
			}
			for _, name := range []string{header, "Authorization", "Content-Encoding", "Content-Length", "X-Amz-Decoded-Content-Length", "X-Forwarded-For"} {
				out.Header.Del(name)
			}
			sum := sha256.Sum256(body)
			out.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
			out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			out.Header = signer.SignV4(*out, AccessKey, SecretKey, "", Region).Header
		},
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	})
	t.Cleanup(front.Close)
	return strings.Replace(location, s.web.URL, front.URL, 1)
}

// unchunked reads the body of a request, which may be in signed chunks.
func unchunked(r *http.Request) (body []byte, err error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	for in := bufio.NewReader(r.Body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(size, 16, 32)
		if err != nil {
			return nil, fmt.Errorf("chunk %q: %w", line, err)
		}
		if n == 0 {
			return body, nil
		}
		chunk := make([]byte, n+2) // with \r\n
		if _, err := io.ReadFull(in, chunk); err != nil {
			return nil, err
		}
		body = append(body, chunk[:n]...)
	}
}

package mirror_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.org/snapd/internal/cas"
)

func digest(b []byte) string { return cas.Sum(b).String() }

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func readAll(r io.Reader) (string, error) {
	b, err := io.ReadAll(r)
	return string(b), err
}

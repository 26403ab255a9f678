package fetch

import (
	"bytes"
	"errors"
	"net/http"
	"testing"

	"example.org/snapd/internal/fetch/remote"
)

// An answer that calls itself a part although the whole was asked for is taken if it
// is the whole.
func TestUnaskedRange(t *testing.T) {
	content := pattern(1000)
	for _, c := range []struct {
		name, contentRange string
		body               []byte
		pinned             bool
		is                 error
	}{
		{"the whole", "bytes 0-999/1000", content, false, nil},
		{"the whole, with a digest", "bytes 0-999/1000", content, true, nil},
		{"the whole of unknown size, with a digest", "bytes 0-999/*", content, true, nil},
		{"the whole of unknown size", "bytes 0-999/*", content, false, ErrRefused},
		{"without a range, with a digest", "", content, true, nil},
		{"without a range", "", content, false, ErrRefused},
		{"the beginning", "bytes 0-499/1000", content[:500], true, ErrRefused},
		{"the end", "bytes 500-999/1000", content[500:], true, ErrRefused},
		{"the beginning as the whole", "bytes 0-499/500", content[:500], true, ErrMismatch},
		{"other bytes", "bytes 0-999/1000", bytes.ToUpper(bytes.Repeat([]byte("x"), 1000)), true, ErrMismatch},
		{"nonsense", "all of it", content, true, ErrRefused},
	} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if c.contentRange != "" {
				w.Header().Set("Content-Range", c.contentRange)
			}
			w.WriteHeader(http.StatusPartialContent)
			w.Write(c.body)
		})
		req := Request{URLs: remote.NewURLs(u.URL + "/f"), Size: -1, MaxSize: 1 << 20}
		if c.pinned {
			req.Size, req.Want = int64(len(content)), want(content)
		}
		got, _, err := client(t, Config{Retries: -1}).GetBytes(t.Context(), req)
		if !errors.Is(err, c.is) || err == nil && !bytes.Equal(got, content) {
			t.Errorf("%s: %v, %d bytes, expected %v", c.name, err, len(got), c.is)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "items 0-1/2", "bytes -1-2/3", "bytes 1-99999999999999999999/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, _, total, ok := contentRange(s)
		if ok && (first < 0 || total != -1 && first >= total) {
			t.Errorf("%q: %d of %d", s, first, total)
		}
	})
}

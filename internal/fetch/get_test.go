package fetch

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/fetch/remote"
)

func TestServerClock(t *testing.T) {
	date := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		header http.Header
		want   time.Time
	}{
		"none":       {http.Header{}, time.Time{}},
		"a date":     {http.Header{"Date": {"Sat, 10 Jan 2026 12:00:00 GMT"}}, date},
		"of a cache": {http.Header{"Date": {"Sat, 10 Jan 2026 12:00:00 GMT"}, "Age": {"7200"}}, date.Add(2 * time.Hour)},
		"a bad age":  {http.Header{"Date": {"Sat, 10 Jan 2026 12:00:00 GMT"}, "Age": {"-7"}}, date},
		"no date":    {http.Header{"Date": {"today"}, "Age": {"7"}}, time.Time{}},
	} {
		if got := serverClock(tt.header); !got.Equal(tt.want) {
			t.Errorf("%s: %v, expected %v", name, got, tt.want)
		}
	}
}

// Each answer tells the clock of its server, also one without a body.
func TestOnClock(t *testing.T) {
	date := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", date.Format(http.TimeFormat))
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
		}
	}))
	defer srv.Close()
	c := New(Config{Retries: -1})
	defer c.Close()
	u := remote.NewURL(srv.URL + "/f")
	for _, tag := range []string{"", `"x"`} {
		var got []string
		_, _, err := c.GetBytes(t.Context(), Request{URLs: []remote.URL{u}, Size: -1, MaxSize: 10, ETag: tag, OnClock: func(url string, at time.Time) {
			got = append(got, url+" "+at.Format(time.RFC3339))
		}})
		if want := []string{u.String() + " 2026-01-10T12:00:00Z"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("If-None-Match %s: %v, %q, expected %q", tag, err, got, want)
		}
	}
}

package console

import (
	"testing"
	"time"

	"example.org/snapd/internal/api"
)

func TestProgressText(t *testing.T) {
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var r rate
	for i := range 101 {
		r.add(day.Add(time.Duration(i)*100*time.Millisecond), int64(i)<<20)
	}
	for _, c := range []struct {
		p    api.Progress
		rate float64
		want string
	}{
		{api.Progress{Bytes: 100 << 20, BytesTotal: 400 << 20, Files: 120, FilesTotal: 500}, r.perSecond(), " 100.0 MiB / 400.0 MiB  120/500 files  10.0 MiB/s  30s left"},
		{api.Progress{Bytes: 100 << 20}, r.perSecond(), " 100.0 MiB  10.0 MiB/s"},
		{api.Progress{Files: 3}, 0, "  3 files"},
		{api.Progress{Bytes: 1, BytesTotal: 1 << 40}, 1 << 20, " 1 B / 1.0 TiB  1.0 MiB/s  >99h left"},
		{api.Progress{}, 0, ""},
	} {
		if got := progressText(c.p, c.rate); got != c.want {
			t.Errorf("%q, expected %q", got, c.want)
		}
	}
	if n := len(r.samples); n > 60 {
		t.Errorf("%d samples are kept", n)
	}
	r.add(day.Add(time.Hour), 5)
	if got := r.perSecond(); got != 0 {
		t.Errorf("%v after another phase began", got)
	}
}

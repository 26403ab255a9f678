package daemon

import (
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A suite whose Date is older than max_age is stale, and status says so with its exit
// code; so it does when a sync failed.
func TestStale(t *testing.T) {
	a, url := upstream(t) // an hour old
	r := startFile(t, listenAnywhere+mirrorText(a, "debian", url, ""))
	if st := r.status(); st.Exit != 0 || len(st.Mirrors[0].Ages) != 0 {
		t.Errorf("before the first sync: %+v", st)
	}
	sync := func() {
		t.Helper()
		if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	for _, c := range []struct {
		max   string
		exit  int
		gauge string
	}{{"", 0, "0"}, {"max_age = \"2h\"", 0, "7200"}, {"max_age = \"30m\"", api.ExitPartial, "1800"}} {
		r.write(t, listenAnywhere+mirrorText(a, "debian", url, c.max))
		if _, err := r.reload(t); err != nil {
			t.Fatal(err)
		}
		st := r.status()
		m := st.Mirrors[0]
		stale := c.exit != 0
		if st.Exit != c.exit || m.Stale != stale || len(m.Ages) != 1 || m.Ages[0].Stale != stale || m.Ages[0].Suite != "stable" || m.Ages[0].Age < 3600 || m.Ages[0].Age > 7200 {
			t.Errorf("%q: exit %d, %+v", c.max, st.Exit, m)
		}
		if _, text := get(t, r.public+"/metrics"); !strings.Contains(text, "snapd_max_age_seconds{mirror=\"debian\"} "+c.gauge+"\n") {
			t.Errorf("%q: the metrics lack the bound", c.max)
		}
	}
	// A refused sync: the archive is signed by another key now.
	other := debtest.New(t)
	r.write(t, listenAnywhere+mirrorText(other, "debian", url, ""))
	if _, err := r.reload(t); err != nil {
		t.Fatal(err)
	}
	a.Publish(time.Now())
	sync()
	if st := r.status(); st.Exit != api.ExitPartial || st.Mirrors[0].Error == "" {
		t.Errorf("after a refused sync: exit %d, %+v", st.Exit, st.Mirrors[0])
	}
}

package control

import (
	"context"
	"fmt"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
)

// entryReads counts the entries of recordings that are read.
type entryReads struct {
	meta.Store
	n int
}

func (s *entryReads) RecordingEntries(ctx context.Context, name string) ([]meta.RecordEntry, error) {
	entries, err := s.Store.RecordingEntries(ctx, name)
	s.n += len(entries)
	return entries, err
}

// The overview says how much recordings fetched without reading what they fetched.
func TestOverviewRecordings(t *testing.T) {
	w := mirrortest.New(t, nil)
	for i := range 12 {
		name := fmt.Sprint("build-", i)
		if err := w.Store().StartRecording(t.Context(), &meta.Recording{Name: name, Started: w.Now().Add(time.Duration(i) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
		var fetches []meta.Fetch
		for k := range i {
			path := fmt.Sprint("pool/", k)
			fetches = append(fetches, meta.Fetch{Recording: name, Entry: meta.RecordEntry{Mirror: "debian", Path: path, SHA256: cas.Sum([]byte(path)), Size: 100, Count: 1}})
		}
		if _, err := w.Store().NoteFetches(t.Context(), fetches); err != nil {
			t.Fatal(err)
		}
	}
	st := &entryReads{Store: w.Store()}
	c := New(Config{Conf: &config.Config{}, Catalog: w.Catalog, Blobs: w.Blobs(), Meta: st})
	out := &api.Overview{}
	if err := c.overviewRecordings(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if len(out.Recordings) != overviewRecordings || out.Recordings[0].Name != "build-11" || out.Recordings[0].Files != 11 || out.Recordings[0].Bytes != 1100 {
		t.Errorf("recordings %+v", out.Recordings)
	}
	if st.n > 0 {
		t.Errorf("read %d entries", st.n)
	}
}

package metatest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// blobInfos returns n stored blobs, in the order of their digests.
func blobInfos(n int, stored time.Time) []cas.Info {
	var out []cas.Info
	for i := range n {
		out = append(out, cas.Info{Digest: cas.Sum(fmt.Append(nil, "blob ", i)), Size: int64(i), Stored: stored})
	}
	slices.SortFunc(out, func(a, b cas.Info) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return out
}

func never(string) bool { return false }

// testCollection checks the two phases in which a collection removes blobs.
func testCollection(t *testing.T, open func(testing.TB) meta.Store) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := open(t)
	defer closeStore(t, s)
	ctx := t.Context()
	blobs := blobInfos(5, now)
	if unknown, err := s.AddOrphans(ctx, blobs, now); err != nil || unknown != 0 {
		t.Fatalf("add orphans: %d unknown, %v", unknown, err)
	}
	// The preview returns what the collection will do, and changes nothing.
	for range 2 {
		p, err := s.PreviewCollection(ctx, nil, now, now, never)
		if err != nil || len(p.Blobs) != len(blobs) {
			t.Fatalf("preview: %+v, %v", p, err)
		}
	}
	// Candidates that are too young are not claimed.
	if claimed, _, more, err := s.ClaimBlobs(ctx, cas.Digest{}, now.Add(-time.Second), 10); err != nil || more || len(claimed) > 0 {
		t.Errorf("claim of young candidates: %v, more %v, %v", claimed, more, err)
	}
	// Pages are in the order of digests.
	var all []cas.Digest
	var after cas.Digest
	for {
		claimed, next, more, err := s.ClaimBlobs(ctx, after, now, 2)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
		all = append(all, claimed...)
		after = next
	}
	if len(all) != len(blobs) || !slices.IsSortedFunc(all, func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) }) {
		t.Fatalf("claimed %d of %d blobs: %v", len(all), len(blobs), all)
	}
	isClaimed := func(d cas.Digest, want bool) {
		t.Helper()
		if yes, err := s.Claimed(ctx, d); err != nil || yes != want {
			t.Errorf("claimed: %v, %v, expected %v", yes, err, want)
		}
	}
	isClaimed(all[0], true)
	isClaimed(cas.Sum([]byte("another")), false)
	// A blob whose claim is released, or whose collector died, is a candidate again.
	if err := s.ReleaseClaims(ctx, all[:1]); err != nil {
		t.Fatal(err)
	}
	isClaimed(all[0], false)
	again, _, _, err := s.ClaimBlobs(ctx, cas.Digest{}, now, 10)
	if err != nil || !slices.Equal(again, all) {
		t.Errorf("claimed again: %v, %v", again, err)
	}
	// ForgetBlobs removes all metadata of removed blobs.
	if referenced, err := s.ForgetBlobs(ctx, all); err != nil || len(referenced) > 0 {
		t.Errorf("forget: %v, %v", referenced, err)
	}
	if claimed, _, more, err := s.ClaimBlobs(ctx, cas.Digest{}, now, 10); err != nil || more || len(claimed) > 0 {
		t.Errorf("after all were forgotten: %v, %v", claimed, err)
	}
	if r, err := s.Reasons(ctx, all[0], nil, now, never); err != nil || r.Needed || len(r.Refs) > 0 {
		t.Errorf("reasons: %+v, %v", r, err)
	}
	if n, err := s.CollectGenerations(ctx); err != nil || n != 0 {
		t.Errorf("generations: %d, %v", n, err)
	}
	if err := s.SetNote(ctx, "scrub.at", "here"); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Note(ctx, "scrub.at"); err != nil || v != "here" {
		t.Errorf("note: %q, %v", v, err)
	}
	if v, err := s.Note(ctx, "other"); err != nil || v != "" {
		t.Errorf("note that was never set: %q, %v", v, err)
	}
}

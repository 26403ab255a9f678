package metatest

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

func testNotes(t *testing.T, open func(testing.TB) meta.Store) {
	for name, f := range map[string]func(*testing.T, meta.Store){
		"Aliases": testAliases, "AlternateBases": testAlternateBases, "Fetches": testFetches, "Corrupt": testCorrupt,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer closeStore(t, s)
			f(t, s)
		})
	}
}

func testAliases(t *testing.T, s meta.Store) {
	ctx := t.Context()
	alias := func(other, blob string) meta.Alias {
		return meta.Alias{Algo: meta.AliasSHA1, Other: []byte(other), SHA256: digest(blob)}
	}
	for range 2 { // the second call changes nothing
		if err := s.NoteBlobs(ctx, []cas.Digest{digest("a"), digest("b")}, []meta.Alias{alias("1", "a"), alias("2", "b")}, day); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.NoteBlobs(ctx, nil, []meta.Alias{alias("2", "c")}, day); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		algo byte
		want []cas.Digest
	}{
		{meta.AliasSHA1, []cas.Digest{digest("c"), {}, digest("a")}},
		{meta.AliasSHA512, make([]cas.Digest, 3)},
	} {
		got, err := s.Aliases(ctx, c.algo, [][]byte{[]byte("2"), []byte("3"), []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("aliases of algorithm %d (-want +got):\n%s", c.algo, d)
		}
	}
	digests := []cas.Digest{digest("c"), digest("b"), digest("a")}
	for algo, want := range map[byte][][]byte{meta.AliasSHA1: {[]byte("2"), nil, []byte("1")}, meta.AliasSHA512: make([][]byte, 3)} {
		got, err := s.OtherDigests(ctx, algo, digests)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("other digests of algorithm %d (-want +got):\n%s", algo, d)
		}
	}
}

func testAlternateBases(t *testing.T, s meta.Store) {
	ctx := t.Context()
	if got, err := s.AlternateBases(ctx, mirror); err != nil || len(got) > 0 {
		t.Fatalf("without a snapshot: %v, %v", got, err)
	}
	for i, bases := range [][]string{{"https://1.example.org", "https://2.example.org"}, {"https://3.example.org"}, {"https://4.example.org"}} {
		g := stage(t, s, binary("a", "1"))
		g.AlternateBases = bases
		seal(t, s, g, day.Add(time.Duration(i)*time.Hour))
	}
	newest, err := s.AlternateBases(ctx, mirror)
	if want := []string{"https://4.example.org"}; err != nil || !slices.Equal(newest, want) {
		t.Fatalf("newest: %v, %v; expected %v", newest, err, want)
	}
	for _, c := range []struct {
		limit int
		want  []string
	}{
		{16, []string{"https://3.example.org", "https://1.example.org", "https://2.example.org"}},
		{2, []string{"https://3.example.org", "https://1.example.org"}},
	} {
		got, err := s.EarlierAlternateBases(ctx, mirror, newest, c.limit)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("at most %d earlier ones: %v, %v; expected %v", c.limit, got, err, c.want)
		}
	}
}

func testFetches(t *testing.T, s meta.Store) {
	missing, err := s.NoteFetches(t.Context(), []meta.Fetch{{Recording: "build", Entry: meta.RecordEntry{Mirror: mirror, Path: "a", SHA256: digest("a"), Count: 1}}})
	if err != nil || !missing["build"] || len(missing) != 1 {
		t.Errorf("fetches of no recording: %v, %v", missing, err)
	}
	for _, name := range []string{"build", "empty"} {
		if err := s.StartRecording(t.Context(), &meta.Recording{Name: name, Started: day}); err != nil {
			t.Fatal(err)
		}
	}
	for i, path := range []string{"a", `b","size":77,"`, "a"} {
		e := meta.RecordEntry{Mirror: mirror, Path: path, SHA256: digest(path), Size: int64(10 * len(path)), First: day, Last: day.Add(time.Duration(i) * time.Second), Count: 1}
		if missing, err := s.NoteFetches(t.Context(), []meta.Fetch{{Recording: "build", Entry: e}}); err != nil || len(missing) > 0 {
			t.Fatalf("fetch %d: %v, %v", i, missing, err)
		}
	}
	totals, err := s.RecordingTotals(t.Context(), []string{"build", "none", "empty"})
	if want := []meta.RecordingTotal{{Files: 2, Bytes: 10 + 140}, {}, {}}; err != nil || !slices.Equal(totals, want) {
		t.Errorf("totals %+v, %v, expected %+v", totals, err, want)
	}
}

func testCorrupt(t *testing.T, s meta.Store) {
	ctx := t.Context()
	marks := []meta.CorruptBlob{
		{Digest: digest("a"), Found: day, By: "fsck", Why: "2 bytes, expected 3"},
		{Digest: digest("b"), Found: day.Add(time.Hour), By: "read", Why: "input/output error"},
	}
	slices.SortFunc(marks, func(a, b meta.CorruptBlob) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	for _, m := range marks {
		if err := s.MarkCorrupt(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.CorruptBlobs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(marks, got); d != "" {
		t.Errorf("corrupt blobs (-want +got):\n%s", d)
	}
	if err := s.ClearCorrupt(ctx, marks[0].Digest, digest("never marked")); err != nil {
		t.Fatal(err)
	}
	if got, err = s.CorruptBlobs(ctx); err != nil || len(got) != 1 || got[0].Digest != marks[1].Digest {
		t.Errorf("corrupt blobs after one was cleared: %+v, %v", got, err)
	}
}

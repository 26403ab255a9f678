package metatest

import (
	"errors"
	"slices"
	"testing"

	"example.org/snapd/internal/meta"
)

// testLog checks the contract of meta.Log.
func testLog(t *testing.T, open func(t testing.TB) meta.Store) {
	t.Run("Empty", func(t *testing.T) {
		s := open(t)
		defer closeStore(t, s)
		if _, err := s.LogHead(t.Context()); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("head: %v, expected ErrNotFound", err)
		}
		if _, err := s.LogTile(t.Context(), 0, 0); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("tile: %v, expected ErrNotFound", err)
		}
		if err := s.CosignLog(t.Context(), meta.LogCosigned{}); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("cosign: %v, expected ErrNotFound", err)
		}
		if got, err := s.LogNamed(t.Context(), []string{"a"}); err != nil || !slices.Equal(got, []int64{-1}) {
			t.Errorf("named: %v, %v", got, err)
		}
		if got, err := s.LogPending(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("pending: %v, %v", got, err)
		}
	})
	t.Run("Append", func(t *testing.T) { testLogAppend(t, open(t)) })
	t.Run("Cosign", func(t *testing.T) { testLogCosign(t, open(t)) })
}

func testLogAppend(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	first := &meta.LogAppend{
		Origin: "o", From: 0, Size: 2, Checkpoint: []byte("two"),
		Tiles:   []meta.LogTile{{Level: 0, N: 0, Data: []byte("h0h1")}, {Level: meta.EntriesLevel, N: 0, Data: []byte("e0e1")}, {Level: 0, N: 1 << 40, Data: []byte("far")}},
		Names:   map[string]int64{"a": 0, "b": 1, "\x00\xff": 1},
		Pending: []meta.LogPending{{Name: "b", Doc: []byte("doc")}, {Name: "a", Doc: []byte("other")}},
	}
	fail(s.AppendLog(ctx, first))
	for what, a := range map[string]*meta.LogAppend{
		"a repetition":   first,
		"another origin": {Origin: "p", From: 2, Size: 3},
		"a gap":          {Origin: "o", From: 3, Size: 4},
		"a shrunk log":   {Origin: "o", From: 2, Size: 1},
	} {
		if err := s.AppendLog(ctx, a); !errors.Is(err, meta.ErrLogMoved) {
			t.Errorf("%s: %v, expected ErrLogMoved", what, err)
		}
	}
	pending, err := s.LogPending(ctx)
	fail(err)
	if len(pending) != 2 || pending[0].Name != "a" || string(pending[1].Doc) != "doc" {
		t.Errorf("pending: %+v", pending)
	}
	fail(s.AppendLog(ctx, &meta.LogAppend{
		Origin: "o", From: 2, Size: 3, Checkpoint: []byte("three"), Tiles: []meta.LogTile{{Level: 0, N: 0, Data: []byte("h0h1h2")}},
		Names: map[string]int64{"a": 2}, Settled: []string{"a", "never"},
	}))
	// Replace a tile, without adding entries.
	fail(s.AppendLog(ctx, &meta.LogAppend{Origin: "o", From: 3, Size: 3, Checkpoint: []byte("three"), Tiles: []meta.LogTile{{Level: 0, N: 1 << 40, Data: []byte("again")}}}))
	if got, err := s.LogTile(ctx, 0, 1<<40); err != nil || string(got) != "again" {
		t.Errorf("the replaced tile: %q, %v", got, err)
	}
	fail(s.AppendLog(ctx, &meta.LogAppend{Origin: "o", From: 3, Size: 3, Checkpoint: []byte("three"), Tiles: []meta.LogTile{{Level: 0, N: 1 << 40, Data: []byte("far")}}}))
	h, err := s.LogHead(ctx)
	fail(err)
	if h.Origin != "o" || h.Size != 3 || string(h.Checkpoint) != "three" || h.Witnessed != nil {
		t.Errorf("head: %+v", h)
	}
	for _, want := range first.Tiles[1:] {
		if got, err := s.LogTile(ctx, want.Level, want.N); err != nil || string(got) != string(want.Data) {
			t.Errorf("tile %d of level %d: %q, %v", want.N, want.Level, got, err)
		}
	}
	if got, err := s.LogTile(ctx, 0, 0); err != nil || string(got) != "h0h1h2" {
		t.Errorf("tile that grew: %q, %v", got, err)
	}
	if got, err := s.LogNamed(ctx, []string{"b", "c", "a", "\x00\xff"}); err != nil || !slices.Equal(got, []int64{1, -1, 2, 1}) {
		t.Errorf("named: %v, %v", got, err)
	}
	if pending, err = s.LogPending(ctx); err != nil || len(pending) != 1 || pending[0].Name != "b" {
		t.Errorf("pending after one was settled: %+v, %v", pending, err)
	}
}

func testLogCosign(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	head := func(checkpoint, witnessed string, size int64) {
		t.Helper()
		h, err := s.LogHead(ctx)
		fail(err)
		if string(h.Checkpoint) != checkpoint || string(h.Witnessed) != witnessed || h.WitnessedSize != size {
			t.Errorf("checkpoint %q, witnessed %q of %d, expected %q, %q of %d", h.Checkpoint, h.Witnessed, h.WitnessedSize, checkpoint, witnessed, size)
		}
	}
	fail(s.AppendLog(ctx, &meta.LogAppend{Origin: "o", Size: 2, Checkpoint: []byte("2")}))
	fail(s.CosignLog(ctx, meta.LogCosigned{Size: 2, Checkpoint: []byte("2a")}))
	head("2a", "", 0)
	fail(s.CosignLog(ctx, meta.LogCosigned{Size: 2, Checkpoint: []byte("2ab"), Quorum: true}))
	head("2ab", "2ab", 2)
	fail(s.AppendLog(ctx, &meta.LogAppend{Origin: "o", From: 2, Size: 5, Checkpoint: []byte("5")}))
	head("5", "2ab", 2)
	fail(s.CosignLog(ctx, meta.LogCosigned{Size: 2, Checkpoint: []byte("2abc"), Quorum: true}))
	head("5", "2abc", 2)
	fail(s.CosignLog(ctx, meta.LogCosigned{Size: 5, Checkpoint: []byte("5a"), Quorum: true}))
	fail(s.CosignLog(ctx, meta.LogCosigned{Size: 2, Checkpoint: []byte("2z"), Quorum: true}))
	fail(s.CosignLog(ctx, meta.LogCosigned{Size: 9, Checkpoint: []byte("9"), Quorum: true}))
	head("5a", "5a", 5)
}

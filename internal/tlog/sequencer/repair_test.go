package sequencer_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
)

// tileIDs are the tiles of a log of 600 entries.
var tileIDs = []meta.LogTile{
	{Level: 0, N: 0}, {Level: 0, N: 1}, {Level: 0, N: 2}, {Level: 1, N: 0},
	{Level: meta.EntriesLevel, N: 0}, {Level: meta.EntriesLevel, N: 1}, {Level: meta.EntriesLevel, N: 2},
}

// stored reads the tiles of a log of 600 entries.
func stored(t *testing.T, s *bolt.Store) (out []meta.LogTile) {
	t.Helper()
	for _, id := range tileIDs {
		data, err := s.LogTile(t.Context(), id.Level, id.N)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, meta.LogTile{Level: id.Level, N: id.N, Data: data})
	}
	return out
}

// overwrite replaces stored tiles by damaged ones.
func overwrite(t *testing.T, s *bolt.Store, tiles ...meta.LogTile) {
	t.Helper()
	h, err := s.LogHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AppendLog(t.Context(), &meta.LogAppend{Origin: h.Origin, From: h.Size, Size: h.Size, Checkpoint: h.Checkpoint, Tiles: tiles}); err != nil {
		t.Fatal(err)
	}
}

func sameTiles(a, b []meta.LogTile) bool {
	return slices.EqualFunc(a, b, func(a, b meta.LogTile) bool { return bytes.Equal(a.Data, b.Data) })
}

// Damaged tiles are found and not served, and what can be computed from others is
// rebuilt as it was; an entry that is lost is named. Long because of the cases.
func TestRepair(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	k := key(t, dir)
	l := openLog(t, s, k, nil)
	var batch []tlog.Leaf
	for n := range 599 {
		batch = append(batch, frozen(meta.FreezeName(fmt.Sprint("4.", n)), "one"))
	}
	if err := l.Append(t.Context(), batch...); err != nil {
		t.Fatal(err)
	}
	good := stored(t, s)
	flip := func(i, at int) meta.LogTile {
		d := good[i]
		d.Data = bytes.Clone(d.Data)
		d.Data[at] ^= 1
		return d
	}
	empty := func(i int) meta.LogTile {
		d := good[i]
		d.Data = []byte{}
		return d
	}
	for what, c := range map[string]struct {
		damage []meta.LogTile
		lost   string // what cannot be rebuilt
	}{
		"hashes of a full tile":          {[]meta.LogTile{flip(0, 100)}, ""},
		"hashes of the last tile":        {[]meta.LogTile{flip(2, 100)}, ""},
		"hashes above":                   {[]meta.LogTile{flip(3, 40)}, ""},
		"hashes on both levels":          {[]meta.LogTile{flip(1, 0), flip(3, 40)}, ""},
		"every tile of hashes":           {[]meta.LogTile{empty(0), empty(1), empty(2), empty(3)}, ""},
		"the length of an entry":         {[]meta.LogTile{flip(4, 1)}, ""},
		"the length of one of the last":  {[]meta.LogTile{flip(6, 0)}, ""},
		"an entry":                       {[]meta.LogTile{flip(4, 5)}, "tile/entries/000 is damaged: entry 0 cannot be rebuilt"},
		"an entry and hashes of another": {[]meta.LogTile{flip(4, 5), flip(1, 9)}, "entry 0 cannot be rebuilt"},
		"one of the last entries":        {[]meta.LogTile{flip(6, 5)}, "tile/entries/002 is damaged: entry 512 cannot be rebuilt"},
		"entries with their hashes":      {[]meta.LogTile{empty(5), empty(1)}, "tile/0/001 is lost"},
	} {
		t.Run(what, func(t *testing.T) {
			overwrite(t, s, good...)
			overwrite(t, s, c.damage...)
			bad := stored(t, s)
			faults, repaired, err := l.Fsck(t.Context(), false)
			if err != nil || len(faults) == 0 || len(repaired) > 0 || !sameTiles(stored(t, s), bad) {
				t.Errorf("a look: faults %q, repaired %q, %v", faults, repaired, err)
			}
			if _, err := l.Verify(t.Context()); !errors.Is(err, meta.ErrCorrupt) {
				t.Errorf("verify: %v, expected ErrCorrupt", err)
			}
			faults, repaired, err = l.Fsck(t.Context(), true)
			if c.lost != "" {
				if err != nil || !strings.Contains(strings.Join(faults, "; "), c.lost) {
					t.Errorf("faults %q, %v, expected %s", faults, err, c.lost)
				}
				return
			}
			if err != nil || len(faults) > 0 || len(repaired) == 0 || !sameTiles(stored(t, s), good) {
				t.Errorf("faults %q, repaired %q, %v", faults, repaired, err)
			}
			if faults, repaired, err := l.Fsck(t.Context(), true); err != nil || len(faults)+len(repaired) > 0 {
				t.Errorf("again: faults %q, repaired %q, %v", faults, repaired, err)
			}
		})
	}

	// A start without its hashes, and then a damaged tile that somebody asks for.
	overwrite(t, s, good...)
	overwrite(t, s, empty(2), empty(3))
	conf := sequencer.Config{Store: s, Signer: k}
	if _, err := sequencer.Open(t.Context(), conf); !errors.Is(err, meta.ErrCorrupt) {
		t.Fatalf("open: %v, expected ErrCorrupt", err)
	}
	if faults, repaired, err := sequencer.Repair(t.Context(), conf); err != nil || len(faults) > 0 || len(repaired) != 2 {
		t.Errorf("repair at the start: faults %q, repaired %q, %v", faults, repaired, err)
	}
	l = openLog(t, s, k, nil)
	for _, c := range []struct {
		damage meta.LogTile
		path   string
	}{
		{flip(0, 100), "tile/0/000"}, {flip(2, 100), "tile/0/002.p/88"}, {flip(2, 100), "tile/0/002.p/3"}, {flip(3, 3), "tile/1/000.p/2"},
		{flip(4, 5), "tile/entries/000"}, {flip(4, 5), "tile/entries/000.p/7"}, {flip(6, 5), "tile/entries/002.p/88"},
	} {
		overwrite(t, s, c.damage)
		if data, err := l.Tile(t.Context(), c.path); !errors.Is(err, meta.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v, expected ErrCorrupt", c.path, len(data), err)
		}
		if st, err := l.Status(t.Context()); err != nil || st.Damage == "" {
			t.Errorf("%s: the status says nothing, %v", c.path, err)
		}
		overwrite(t, s, good...)
		if _, err := l.Tile(t.Context(), c.path); err != nil {
			t.Errorf("%s as it was: %v", c.path, err)
		}
	}
	if _, _, err := l.Fsck(t.Context(), false); err != nil {
		t.Error(err)
	}
	if st, err := l.Status(t.Context()); err != nil || st.Damage != "" {
		t.Errorf("after a look that found nothing: %q, %v", st.Damage, err)
	}
}

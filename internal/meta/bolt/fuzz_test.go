package bolt

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// FuzzPages reads databases of arbitrary bytes. All damage must be reported, and nothing
// read beyond the file.
func FuzzPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "meta.db")
	s, err := Open(path, Options{})
	if err != nil {
		f.Fatal(err)
	}
	err = s.update(f.Context(), "test", func(tx *txn) error {
		for i := range 300 {
			if err := tx.SetMeta(time.Duration(i).String(), "value"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	m, _, err := readMetas(s.file)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	data = data[:m.pages*uint64(m.pageSize)]
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		m, _, err := readMetas(r)
		if err != nil {
			return
		}
		p, err := newPageReader(t.Context(), r, int64(len(data)), m)
		if err != nil {
			return
		}
		c := newCensus()
		p.walk(c)
		p.free()
		if p.err() == nil {
			c.result()
		}
	})
}

// FuzzDecodeTree reads listings of arbitrary bytes, and encodes the result again.
func FuzzDecodeTree(f *testing.F) {
	data, err := meta.EncodeTree(&meta.Frozen{Name: "4.1"}, []meta.Node{{Path: "debian/a \"b\"", Digest: cas.Sum([]byte("a")), Size: 1, ModTime: time.Unix(5, 0).UTC()}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		frozen, nodes, err := meta.DecodeTree(data)
		if err != nil {
			return
		}
		again, err := meta.EncodeTree(frozen, nodes)
		if err != nil {
			t.Fatal(err)
		}
		if _, same, err := meta.DecodeTree(again); err != nil || len(same) != len(nodes) {
			t.Errorf("%d nodes, then %d: %v", len(nodes), len(same), err)
		}
	})
}

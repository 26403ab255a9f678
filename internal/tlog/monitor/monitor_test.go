package monitor_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	modtlog "golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/monitor"
)

// files writes a log as files below dir: /log and /log.vkey.
func files(t *testing.T, dir string, key tlog.Signer, lines []string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) {
		t.Helper()
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hashes := map[int64]modtlog.Hash{}
	r := modtlog.HashReaderFunc(func(list []int64) ([]modtlog.Hash, error) {
		out := make([]modtlog.Hash, len(list))
		for i, n := range list {
			out[i] = hashes[n]
		}
		return out, nil
	})
	var bundle []byte
	for i, l := range lines {
		stored, err := modtlog.StoredHashes(int64(i), []byte(l), r)
		if err != nil {
			t.Fatal(err)
		}
		for j, h := range stored {
			hashes[modtlog.StoredHashIndex(0, int64(i))+int64(j)] = h
		}
		if bundle, err = torchwood.AppendTileEntry(bundle, []byte(l)); err != nil {
			t.Fatal(err)
		}
		if w := i%256 + 1; w == 256 || i == len(lines)-1 {
			put("log/"+torchwood.TilePath(modtlog.Tile{H: 8, L: -1, N: int64(i / 256), W: w}), bundle)
			bundle = nil
		}
	}
	size := int64(len(lines))
	for _, tile := range modtlog.NewTiles(8, 0, size) {
		data, err := modtlog.ReadTileData(tile, r)
		if err != nil {
			t.Fatal(err)
		}
		put("log/"+torchwood.TilePath(tile), data)
	}
	root, err := modtlog.TreeHash(size, r)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := tlog.SignCheckpoint(key, size, root)
	if err != nil {
		t.Fatal(err)
	}
	put("log/checkpoint", signed)
	put("log.vkey", []byte(key.Verifier().Text+"\n"))
}

func frozen(t *testing.T, name, contents string) string {
	t.Helper()
	line, err := tlog.Encode(&tlog.Frozen{Name: name, Manifest: cas.Sum([]byte(contents)), Key: "F1"})
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// A monitor accepts a log that grows, and nothing else; after an alarm its state
// is as it was. Long because it is one story from beginning to end.
func TestMonitor(t *testing.T) {
	dir := t.TempDir()
	logDir, state := filepath.Join(dir, "www"), filepath.Join(dir, "state")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.FileServer(http.Dir(logDir)).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	newKey := func(name string) tlog.Signer {
		t.Helper()
		k, _, err := tlog.LoadOrMakeKey(filepath.Join(t.TempDir(), "key"), name)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	key := newKey("mirror.example.org/log")
	run := func() *monitor.Report {
		t.Helper()
		r, err := monitor.Run(t.Context(), monitor.Config{URL: srv.URL + "/log", State: state, Mirror: filepath.Join(dir, "copy"), Client: srv.Client()})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	alarm := func(what string, words ...string) {
		t.Helper()
		before, _ := os.ReadFile(state)
		r := run()
		if len(r.Alarms) == 0 {
			t.Errorf("%s: no alarm", what)
			return
		}
		for _, w := range words {
			if !strings.Contains(r.Alarms[0].What, w) {
				t.Errorf("%s: %q, expected in it: %s", what, r.Alarms[0].What, w)
			}
		}
		if len(r.Alarms[0].Checkpoints) != 2 {
			t.Errorf("%s: %d checkpoints as evidence", what, len(r.Alarms[0].Checkpoints))
		}
		if after, _ := os.ReadFile(state); string(after) != string(before) {
			t.Errorf("%s: the state has changed", what)
		}
	}
	var lines []string
	for i := range 300 {
		lines = append(lines, frozen(t, "4."+strings.Repeat("x", i%90)+string(rune('a'+i/90)), "one"))
	}
	files(t, logDir, key, lines)
	if r := run(); !r.First || len(r.Entries) != 300 || len(r.Notes) != 1 || len(r.Alarms) != 0 {
		t.Errorf("first: %+v", r)
	}
	grown := append(lines[:300:300], `{"t":"snapd/later/v1"}`, frozen(t, "5.0", "one"), lines[7])
	files(t, logDir, key, grown)
	if r := run(); r.First || r.From != 300 || len(r.Entries) != 3 || len(r.Alarms) != 0 {
		t.Errorf("grown: %+v", r)
	}
	if r := run(); len(r.Entries) != 0 || len(r.Alarms) != 0 {
		t.Errorf("nothing new: %+v", r)
	}
	// The copy is a log, also after it was damaged, and interrupted before its checkpoint.
	whole := func(what string) {
		t.Helper()
		for _, name := range []string{"tile/0/000", "tile/0/001.p/47", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/47", "checkpoint"} {
			want, err := os.ReadFile(filepath.Join(logDir, "log", name))
			got, err2 := os.ReadFile(filepath.Join(dir, "copy", name))
			if err != nil || err2 != nil || string(got) != string(want) {
				t.Errorf("%s: %s of the copy is another: %v, %v", what, name, err, err2)
			}
		}
	}
	whole("copy")
	for _, name := range []string{"tile/0/000", "tile/0/001.p/47", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/47", "checkpoint"} {
		file := filepath.Join(dir, "copy", name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		run()
		whole("a bit of " + name)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		run()
		whole("without " + name)
	}
	copied, err := os.ReadFile(filepath.Join(dir, "copy", "checkpoint"))
	if c, err2 := tlog.OpenCheckpoint(copied, key.Verifier()); err != nil || err2 != nil || c.Size != 303 {
		t.Errorf("copy: %v, %v", err, err2)
	}

	files(t, logDir, key, lines)
	alarm("shrunk", "shrank from 303 to 300")
	other := append([]string{}, grown...)
	other[3] = frozen(t, "4.3", "forged")
	files(t, logDir, key, other)
	alarm("rewritten at one size", "two roots at 303")
	files(t, logDir, key, append(other, frozen(t, "6.0", "one")))
	alarm("rewritten and grown", "does not extend what it was at 303")
	files(t, logDir, key, append(grown[:303:303], frozen(t, "5.0", "two")))
	alarm("two manifests", "freeze 5.0 has two manifests", "in entry 301", "in entry 303")
	removed, err := tlog.Encode(&tlog.Removed{Kind: tlog.KindFreeze, Name: "5.0", Manifest: cas.Sum([]byte("two"))})
	if err != nil {
		t.Fatal(err)
	}
	files(t, logDir, key, append(grown[:303:303], string(removed)))
	alarm("the removal of another manifest", "freeze 5.0 has two manifests")
	files(t, logDir, key, append(grown[:303:303], `{"t":"snapd/frozen/v1","name":"x"}`))
	alarm("an entry that is none", "entry 303: malformed log entry")
	files(t, logDir, newKey("mirror.example.org/log"), grown)
	alarm("another key", "is not signed by")
	files(t, logDir, newKey("other.example.org/log"), grown)
	alarm("another origin", "other.example.org/log")

	// A tile that has rotted is an alarm or an error, and never accepted.
	files(t, logDir, key, append(grown[:303:303], frozen(t, "6.0", "one")))
	tile := filepath.Join(logDir, "log", "tile", "entries", "001.p", "48")
	data, err := os.ReadFile(tile)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3] ^= 1
	if err := os.WriteFile(tile, data, 0o644); err != nil {
		t.Fatal(err)
	}
	alarm("a tile that has rotted", "entry 303 is not the one that was signed")
	files(t, logDir, key, grown)
	if r := run(); len(r.Alarms) != 0 {
		t.Errorf("the honest log again: %+v", r.Alarms)
	}
}

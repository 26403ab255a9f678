// Package monitor watches a transparency log from outside. It checks that the log only
// grows, that its entries do not change, and that no name has two contents. It can keep a
// copy of the whole log.
package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/torchwood"
	modtlog "golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/tlog"
)

// maxState bounds the state of a monitor, in bytes.
const maxState = 1 << 30

// Config says what to watch, and how.
type Config struct {
	URL    string // of the log: https://mirror.example.org/log
	State  string // file
	Mirror string // directory for a copy of the log; "": none
	// Policy is the expected log, and the witnesses that must have cosigned it. nil: trust
	// the log that the server names at the first run, and expect the same one later.
	Policy *tlog.Policy
	Client *http.Client
	// Signed checks a document that upstream signed according to the log. nil: only its
	// digest is compared with the served file.
	Signed func(doc, signature []byte) error
	// Skip skips the documents of snapshots.
	Skip bool
}

// state is what the monitor remembers between runs.
type state struct {
	Key        string           `json:"key"`
	Checkpoint string           `json:"checkpoint"`
	Names      map[string]named `json:"names"` // freezes
}

// named is the first log entry of a freeze's name.
type named struct {
	Index    int64      `json:"index"`
	Manifest cas.Digest `json:"manifest"`
}

// Alarm is a finding that an honest log does not cause.
type Alarm struct {
	What        string   `json:"what"`
	Entries     []string `json:"entries,omitempty"`     // entries that contradict each other
	Checkpoints []string `json:"checkpoints,omitempty"` // checkpoints that contradict each other, signed by the log
}

// Report is the outcome of one check of a log.
type Report struct {
	Origin    string   `json:"origin"`
	Key       string   `json:"key"`
	First     bool     `json:"first"` // there was no earlier state
	From      int64    `json:"from"`
	Size      int64    `json:"size"`
	Witnesses []string `json:"witnesses,omitempty"`
	Entries   []string `json:"entries"`
	Alarms    []Alarm  `json:"alarms"`
	Notes     []string `json:"notes,omitempty"`
}

// watch is one check of a log.
type watch struct {
	cfg Config
	log *client
	old *tlog.Checkpoint // nil: none
	st  state
	rep *Report
}

// Run checks a log once. It remembers what it found, unless there are alarms.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg.URL = strings.TrimRight(cfg.URL, "/")
	// The server redirects a request for a timestamp without a snapshot to the snapshot
	// before it. Do not follow that.
	http := *cfg.Client
	http.CheckRedirect = refuseRedirect
	w := &watch{cfg: cfg, log: &client{base: cfg.URL, http: &http}, rep: &Report{Entries: []string{}, Alarms: []Alarm{}}}
	if err := w.load(); err != nil {
		return nil, err
	}
	signed, err := w.log.get(ctx, "checkpoint", tlog.MaxCheckpoint)
	if err != nil {
		return nil, err
	}
	key, err := w.key(ctx)
	if err != nil {
		return nil, err
	}
	now, err := w.open(signed, key)
	if err != nil {
		w.alarm(Alarm{What: err.Error(), Checkpoints: w.both(signed)})
		return w.rep, nil
	}
	w.rep.Origin, w.rep.Key, w.rep.Size = now.Origin, w.st.Key, now.Size
	if err := w.consistent(ctx, now); err != nil {
		return nil, err
	}
	if len(w.rep.Alarms) > 0 {
		return w.rep, nil
	}
	if err := w.entries(ctx, now); err != nil {
		return nil, err
	}
	if len(w.rep.Alarms) > 0 {
		for i := range w.rep.Alarms {
			w.rep.Alarms[i].Checkpoints = w.both(signed)
		}
		return w.rep, nil
	}
	if cfg.Mirror != "" {
		if err := w.mirror(ctx, now, signed); err != nil {
			return nil, err
		}
	}
	w.st.Checkpoint = string(signed)
	data, err := json.Marshal(&w.st)
	if err != nil {
		return nil, err
	}
	return w.rep, durable.WriteFile(cfg.State, append(data, '\n'), 0o600)
}

func (w *watch) alarm(a Alarm) { w.rep.Alarms = append(w.rep.Alarms, a) }

// both returns the remembered checkpoint and the new one.
func (w *watch) both(now []byte) []string {
	if w.old == nil {
		return []string{string(now)}
	}
	return []string{w.st.Checkpoint, string(now)}
}

// load reads the state.
func (w *watch) load() error {
	w.st.Names = map[string]named{}
	data, err := regfile.Read(w.cfg.State, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		w.rep.First = true
		return nil
	} else if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &w.st); err != nil {
		return fmt.Errorf("state %s: %w", w.cfg.State, err)
	}
	key, err := tlog.ParseVerifierKey(w.st.Key)
	if err != nil {
		return fmt.Errorf("state %s: %w", w.cfg.State, err)
	}
	if w.old, err = tlog.OpenCheckpoint([]byte(w.st.Checkpoint), key); err != nil {
		return fmt.Errorf("state %s: %w", w.cfg.State, err)
	}
	w.rep.From = w.old.Size
	return nil
}

// key returns the expected key: the remembered one, or, at the first run, the key that
// the server names. It is nil if a policy determines the key.
func (w *watch) key(ctx context.Context) (*tlog.VerifierKey, error) {
	if w.st.Key != "" {
		return tlog.ParseVerifierKey(w.st.Key)
	}
	if w.cfg.Policy != nil {
		return nil, nil
	}
	data, err := w.log.get(ctx, "../"+tlog.VKeyFile, tlog.MaxKey)
	if err != nil {
		return nil, err
	}
	key, err := tlog.ParseVerifierKey(string(data))
	if err != nil {
		return nil, err
	}
	w.rep.Notes = append(w.rep.Notes, "the key of the log was taken from the server, and is remembered: "+key.Text)
	return key, nil
}

// open checks the signatures of a checkpoint.
func (w *watch) open(signed []byte, key *tlog.VerifierKey) (*tlog.Checkpoint, error) {
	policy := w.cfg.Policy
	if policy == nil {
		policy = tlog.LogPolicy(key)
	}
	c, err := policy.Check(signed)
	if err != nil {
		return nil, err
	}
	if key != nil && c.Log.Text != key.Text {
		return nil, fmt.Errorf("%w: it is signed by %s, but was signed by %s before", tlog.ErrRewritten, c.Log.Text, key.Text)
	}
	w.st.Key, w.rep.Witnesses = c.Log.Text, c.Witnesses
	return c.Checkpoint, nil
}

// consistent checks that the log extends the remembered state.
func (w *watch) consistent(ctx context.Context, now *tlog.Checkpoint) error {
	old := w.old
	switch {
	case old == nil || old.Size == now.Size && old.Root == now.Root:
		return nil
	case now.Size < old.Size:
		w.alarm(Alarm{What: fmt.Sprintf("the log shrank from %d to %d entries", old.Size, now.Size), Checkpoints: w.both(now.Note)})
		return nil
	case now.Size == old.Size:
		w.alarm(Alarm{What: fmt.Sprintf("the log was rewritten: it has two roots at %d entries", now.Size), Checkpoints: w.both(now.Note)})
		return nil
	}
	proof, err := modtlog.ProveTree(now.Size, old.Size, w.log.hashes(ctx, now))
	if err != nil {
		return fmt.Errorf("prove that the log grew: %w", err)
	}
	if err := modtlog.CheckTree(proof, now.Size, now.Root, old.Size, old.Root); err != nil {
		w.alarm(Alarm{What: fmt.Sprintf("the log was rewritten: at %d entries it does not extend what it was at %d", now.Size, old.Size), Checkpoints: w.both(now.Note)})
	}
	return nil
}

// entries checks the new entries.
func (w *watch) entries(ctx context.Context, now *tlog.Checkpoint) error {
	hashes := w.log.hashes(ctx, now)
	for n := w.rep.From; n < now.Size; {
		lines, err := w.log.entries(ctx, now.Size, n/torchwood.TileWidth)
		if err != nil {
			return err
		}
		first := n / torchwood.TileWidth * torchwood.TileWidth
		for ; n < first+int64(len(lines)); n++ {
			line := lines[n-first]
			got, err := hashes.ReadHashes([]int64{modtlog.StoredHashIndex(0, n)})
			if err != nil {
				return err
			}
			if got[0] != modtlog.RecordHash(line) {
				w.alarm(Alarm{What: fmt.Sprintf("entry %d is not the one that was signed", n), Entries: []string{string(line)}})
				return nil
			}
			w.rep.Entries = append(w.rep.Entries, string(line))
			if err := w.entry(ctx, n, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry checks one entry.
func (w *watch) entry(ctx context.Context, n int64, line []byte) error {
	leaf, err := tlog.Decode(line)
	if err != nil {
		w.alarm(Alarm{What: fmt.Sprintf("entry %d: %v", n, err), Entries: []string{string(line)}})
		return nil
	}
	switch l := leaf.(type) {
	case *tlog.Frozen:
		w.name(n, l.Name, l.Manifest, line)
	case *tlog.Removed:
		if l.Kind == tlog.KindFreeze {
			w.name(n, l.Name, l.Manifest, line)
		}
	case *tlog.Snapshot:
		if !w.cfg.Skip {
			return w.snapshot(ctx, n, l, line)
		}
	}
	return nil
}

// name checks that a name has one manifest forever.
func (w *watch) name(n int64, name string, manifest cas.Digest, line []byte) {
	was, ok := w.st.Names[name]
	if ok && was.Manifest != manifest {
		w.alarm(Alarm{
			What:    fmt.Sprintf("freeze %s has two manifests: %s in entry %d, %s in entry %d", name, was.Manifest, was.Index, manifest, n),
			Entries: []string{string(line)},
		})
		return
	}
	if !ok {
		w.st.Names[name] = named{n, manifest}
	}
}

// snapshot checks that the server serves the document of a snapshot, and that
// upstream signed it.
func (w *watch) snapshot(ctx context.Context, n int64, l *tlog.Snapshot, line []byte) error {
	base := "../archive/" + l.Mirror + "/" + l.Timestamp + "/"
	suite := strings.TrimSuffix(l.Suite, "/")
	found := false
	for _, doc := range [][2]string{
		{"dists/" + suite + "/InRelease", ""}, {"dists/" + suite + "/Release", "dists/" + suite + "/Release.gpg"},
		{suite + "/InRelease", ""}, {suite + "/Release", suite + "/Release.gpg"},
		{"repodata/repomd.xml", "repodata/repomd.xml.asc"}, {suite + "/repodata/repomd.xml", suite + "/repodata/repomd.xml.asc"},
	} {
		data, err := w.log.get(ctx, base+doc[0], maxDocument)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		found = true
		if cas.Sum(data) != l.Release {
			continue
		}
		if w.cfg.Signed == nil {
			return nil
		}
		var signature []byte
		if doc[1] != "" {
			if signature, err = w.log.get(ctx, base+doc[1], maxDocument); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := w.cfg.Signed(data, signature); err != nil {
			w.alarm(Alarm{What: fmt.Sprintf("entry %d: upstream did not sign %s of %s@%s: %v", n, doc[0], l.Mirror, l.Timestamp, err), Entries: []string{string(line)}})
		}
		return nil
	}
	if found {
		w.alarm(Alarm{What: fmt.Sprintf("entry %d: the server serves another document for %s of %s@%s than the log has", n, l.Suite, l.Mirror, l.Timestamp), Entries: []string{string(line)}})
		return nil
	}
	w.rep.Notes = append(w.rep.Notes, fmt.Sprintf("entry %d: %s@%s is not served any more, or not yet", n, l.Mirror, l.Timestamp))
	return nil
}

// mirror copies tiles and checkpoint into a directory, as a file server would serve them,
// and writes the checkpoint last. Everything in it is verified against the signature.
// Files of an earlier copy, perhaps an interrupted one, are kept only if they match.
func (w *watch) mirror(ctx context.Context, now *tlog.Checkpoint, signed []byte) error {
	if err := w.copyTiles(ctx, now, w.cfg.Mirror); err != nil {
		if ctx.Err() != nil {
			return err
		}
		// The existing copy may be damaged: fetch everything from the server.
		if err := w.copyTiles(ctx, now, ""); err != nil {
			return err
		}
	}
	return w.put("checkpoint", signed)
}

// put writes a file of the copy.
func (w *watch) put(name string, data []byte) error {
	file := filepath.Join(w.cfg.Mirror, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(file, data, 0o644)
}

// copyTiles brings the copy up to a state of the log. It reads hashes from the directory
// if it has them, and checks all against the root.
func (w *watch) copyTiles(ctx context.Context, now *tlog.Checkpoint, dir string) error {
	hashes := modtlog.TileHashReader(modtlog.Tree{N: now.Size, Hash: now.Root}, &tiles{ctx: ctx, c: w.log, dir: dir, have: map[modtlog.Tile][]byte{}})
	for _, t := range allTiles(now.Size) {
		level := max(t.L, 0)
		indexes := make([]int64, t.W)
		for i := range indexes {
			indexes[i] = modtlog.StoredHashIndex(level*torchwood.TileHeight, t.N*torchwood.TileWidth+int64(i))
		}
		want, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		name := torchwood.TilePath(t)
		have, err := os.ReadFile(filepath.Join(w.cfg.Mirror, filepath.FromSlash(name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var data []byte
		if t.L >= 0 {
			for _, h := range want {
				data = append(data, h[:]...)
			}
		} else if data, err = w.bundle(ctx, now.Size, t, want, have); err != nil {
			return err
		}
		if !bytes.Equal(data, have) {
			if err := w.put(name, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// bundle returns the tile of entries with these hashes: have if it matches, or else the
// server's.
func (w *watch) bundle(ctx context.Context, size int64, t modtlog.Tile, want []modtlog.Hash, have []byte) ([]byte, error) {
	rest := have
	fits := true
	for _, h := range want {
		entry, after, err := torchwood.ReadTileEntry(rest)
		if fits = err == nil && modtlog.RecordHash(entry) == h; !fits {
			break
		}
		rest = after
	}
	if fits && len(rest) == 0 {
		return have, nil
	}
	lines, err := w.log.entries(ctx, size, t.N)
	if err != nil {
		return nil, err
	}
	var data []byte
	for i, line := range lines {
		if modtlog.RecordHash(line) != want[i] {
			return nil, fmt.Errorf("%w: entry %d is not the one that was signed", tlog.ErrProof, t.N*torchwood.TileWidth+int64(i))
		}
		if data, err = torchwood.AppendTileEntry(data, line); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// allTiles returns the tiles of a log.
func allTiles(size int64) []modtlog.Tile {
	all := modtlog.NewTiles(torchwood.TileHeight, 0, size)
	for n := int64(0); n*torchwood.TileWidth < size; n++ {
		width := min(size-n*torchwood.TileWidth, torchwood.TileWidth)
		all = append(all, modtlog.Tile{H: torchwood.TileHeight, L: -1, N: n, W: int(width)})
	}
	return all
}

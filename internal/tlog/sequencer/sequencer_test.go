package sequencer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	modtlog "golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
	"example.org/snapd/internal/tlog/witness"
)

const origin = "mirror.example.org/log"

func openStore(t testing.TB, dir string, fault bolt.FaultFunc) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{Fault: fault})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(t testing.TB, dir string) tlog.Signer {
	t.Helper()
	k, _, err := tlog.LoadOrMakeKey(filepath.Join(dir, tlog.KeyFile), origin)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openLog(t testing.TB, s meta.Log, k tlog.Signer, p *tlog.Policy) *sequencer.Log {
	t.Helper()
	l, err := sequencer.Open(t.Context(), sequencer.Config{Store: s, Signer: k, Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func frozen(name meta.FreezeName, contents string) *tlog.Frozen {
	return &tlog.Frozen{Name: string(name), Manifest: cas.Sum([]byte(contents)), Signature: cas.Sum([]byte("sig" + contents)), Key: "0123"}
}

func snapshot(n int) *tlog.Snapshot {
	return &tlog.Snapshot{
		Mirror: "debian", Suite: "bookworm", Timestamp: fmt.Sprintf("2026%02d%02dT000000Z", n/28%12+1, n%28+1), Date: "2026-11-22T16:00:00Z",
		Release: cas.Sum(fmt.Append(nil, n)), Signers: []string{"FPR2", "FPR1"},
	}
}

func size(t testing.TB, l *sequencer.Log) int64 {
	t.Helper()
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Size
}

// serve serves a log as snapd does.
func serve(t testing.TB, l *sequencer.Log) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/log/")
		data, err := l.Checkpoint(r.Context())
		if path != "checkpoint" {
			data, err = l.Tile(r.Context(), path)
		}
		if errors.Is(err, meta.ErrNotFound) {
			http.NotFound(w, r)
			return
		} else if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/log/"
}

// At every size the log has tiles, a checkpoint and proofs that other programs accept.
func TestAppend(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	k := key(t, dir)
	l := openLog(t, s, k, nil)
	for n := range 20 {
		if err := l.Append(t.Context(), snapshot(n)); err != nil {
			t.Fatal(err)
		}
	}
	var batch []tlog.Leaf
	for n := range 600 {
		batch = append(batch, frozen(meta.FreezeName(fmt.Sprintf("4.%d", n)), "one"))
	}
	if err := l.Append(t.Context(), batch...); err != nil {
		t.Fatal(err)
	}
	// A repetition adds nothing.
	if err := l.Append(t.Context(), batch[3], snapshot(7)); err != nil {
		t.Fatal(err)
	}
	if got := size(t, l); got != 621 {
		t.Fatalf("%d entries, expected 621", got)
	}
	if err := l.Append(t.Context(), frozen("4.3", "two")); !errors.Is(err, sequencer.ErrNamed) {
		t.Errorf("another manifest under a name: %v, expected ErrNamed", err)
	}
	if n, err := l.Verify(t.Context()); err != nil || n != 621 {
		t.Errorf("verify: %d, %v", n, err)
	}
	leaf, p, err := l.Proof(t.Context(), tlog.FreezeSubject("4.599"))
	if err != nil {
		t.Fatal(err)
	}
	data := p.Encode()
	if len(data) > 2000 {
		t.Errorf("a proof of %d bytes", len(data))
	}
	if p, err = tlog.ParseProof(data); err != nil {
		t.Fatal(err)
	}
	policy := tlog.LogPolicy(k.Verifier())
	if _, err := p.Check(leaf, policy); err != nil {
		t.Error(err)
	}
	checkClient(t, l)

	// The log continues after a restart.
	l2 := openLog(t, s, k, nil)
	if err := l2.Append(t.Context(), batch[5], frozen("5.0", "one")); err != nil || size(t, l2) != 622 {
		t.Errorf("after a start: %d entries, %v", size(t, l2), err)
	}
	// The other process sees it, and appends after it.
	if err := l.Append(t.Context(), frozen("5.1", "one")); err != nil || size(t, l2) != 623 {
		t.Errorf("two processes: %d entries, %v", size(t, l2), err)
	}
}

// checkClient reads the whole log with torchwood's client, and hashes with sumdb's
// tile reader over torchwood's.
func checkClient(t *testing.T, l *sequencer.Log) {
	t.Helper()
	f, err := torchwood.NewTileFetcher(serve(t, l))
	if err != nil {
		t.Fatal(err)
	}
	c, err := torchwood.NewClient(f)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := f.ReadEndpoint(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	cp, err := tlog.OpenCheckpoint(signed, l.Key())
	if err != nil {
		t.Fatal(err)
	}
	tree := modtlog.Tree{N: cp.Size, Hash: cp.Root}
	n := int64(0)
	for i, entry := range c.Entries(t.Context(), tree, 0) {
		if i != n {
			t.Fatalf("entry %d, expected %d", i, n)
		}
		if _, err := tlog.Decode(entry); err != nil {
			t.Fatal(err)
		}
		n++
	}
	// The client ignores the last partial tile.
	if err := c.Err(); err != nil || n < cp.Size/torchwood.TileWidth*torchwood.TileWidth {
		t.Fatalf("%d entries, %v", n, err)
	}
	r := torchwood.TileHashReaderWithContext(t.Context(), tree, f)
	proof, err := modtlog.ProveRecord(tree.N, tree.N-1, r)
	if err != nil {
		t.Fatal(err)
	}
	entry, _, err := c.Entry(t.Context(), tree, tree.N-1)
	if err != nil {
		t.Fatal(err)
	}
	if err := modtlog.CheckRecord(proof, tree.N, tree.Hash, tree.N-1, modtlog.RecordHash(entry)); err != nil {
		t.Error(err)
	}
}

// If a write fails, before or after it has taken effect, the log stays complete, has each
// entry once, and continues.
func TestFaults(t *testing.T) {
	for _, apply := range []bool{false, true} {
		for fail := range 6 {
			t.Run(fmt.Sprintf("write %d, effect %v", fail, apply), func(t *testing.T) {
				dir := t.TempDir()
				k := key(t, dir)
				count := 0
				s := openStore(t, dir, func(op string) (bool, error) {
					if op != "log" {
						return false, nil
					}
					if count++; count-1 == fail {
						return apply, errors.New("power cut")
					}
					return false, nil
				})
				run := func(s *bolt.Store) (*sequencer.Log, error) {
					l, err := sequencer.Open(t.Context(), sequencer.Config{Store: s, Signer: k})
					if err != nil {
						return nil, err
					}
					defer l.Close()
					for n := range 3 {
						if err := l.Announce(t.Context(), snapshot(n), frozen(meta.FreezeName(fmt.Sprint("4.", n)), "one")); err != nil {
							return nil, err
						}
						l.Settle(snapshot(n), frozen(meta.FreezeName(fmt.Sprint("4.", n)), "one"))
					}
					return l, l.Append(t.Context(), frozen("4.9", "one"))
				}
				if _, err := run(s); err == nil && fail < 5 {
					t.Fatal("the write did not fail")
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openStore(t, dir, nil)
				defer s.Close()
				l, err := run(s)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := l.Verify(t.Context()); err != nil || n != 8 {
					t.Errorf("%d entries, %v; expected 8", n, err)
				}
			})
		}
	}
}

// What was announced and not published is logged as removed at the next start, and its
// name is not used for anything else.
func TestFinish(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	k := key(t, dir)
	l := openLog(t, s, k, nil)
	if err := l.Announce(t.Context(), snapshot(1), frozen("4.1", "one"), frozen("4.2", "one")); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, s, k, nil)
	there := func(_ context.Context, kind, name string, _ cas.Digest) (bool, error) { return name == "4.2", nil }
	// What another node is making is left alone.
	leased := func(context.Context, string, string, func(context.Context) error) error { return meta.ErrLeased }
	if names, err := l.Finish(t.Context(), leased, there); err != nil || len(names) > 0 {
		t.Fatal(names, err)
	}
	alone := func(ctx context.Context, _, _ string, work func(context.Context) error) error { return work(ctx) }
	for range 2 {
		if _, err := l.Finish(t.Context(), alone, there); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	err := l.Entries(t.Context(), 4, func(_ int64, e []byte) error { lines = append(lines, string(e)); return nil })
	if err != nil || len(lines) != 2 || !strings.Contains(lines[0], `"name":"4.1"`) || !strings.Contains(lines[1], `"name":"debian@20260102T000000Z"`) {
		t.Errorf("entries %q, %v", lines, err)
	}
	if err := l.Announce(t.Context(), frozen("4.1", "two")); !errors.Is(err, sequencer.ErrNamed) {
		t.Errorf("other contents under a burnt name: %v, expected ErrNamed", err)
	}
	if err := l.Announce(t.Context(), frozen("4.1", "one")); err != nil {
		t.Errorf("the same contents: %v", err)
	}
	if at, err := l.Newest(t.Context(), "debian"); err != nil || at.Format(meta.TimestampFormat) != "20260102T000000Z" {
		t.Errorf("newest timestamp %s, %v", at, err)
	}
}

// corruptStore is a store in which the tiles of a level are lost or have a flipped bit.
type corruptStore struct {
	meta.Log
	level int
	at    int // of the flipped byte, from the end; 0: the tiles are lost
}

func (r *corruptStore) LogTile(ctx context.Context, level int, n int64) ([]byte, error) {
	data, err := r.Log.LogTile(ctx, level, n)
	switch {
	case err != nil || level != r.level:
	case r.at == 0:
		return nil, meta.ErrNotFound
	default:
		data[len(data)-r.at] ^= 1
	}
	return data, err
}

// A corrupt tile is never signed, and no proof is made from it.
func TestRottenTiles(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	k := key(t, dir)
	l := openLog(t, s, k, nil)
	for n := range 20 {
		if err := l.Append(t.Context(), snapshot(n)); err != nil {
			t.Fatal(err)
		}
	}
	// The proof of an entry depends on the hashes of others, and on its own bytes.
	for level, of := range map[int]int{0: 3, meta.EntriesLevel: 19} {
		bad := &corruptStore{s, level + 1000, 5}
		l := openLog(t, bad, k, nil)
		bad.level = level
		before, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), frozen("4.1", "one")); !errors.Is(err, meta.ErrCorrupt) {
			t.Errorf("level %d: append: %v, expected ErrCorrupt", level, err)
		}
		if _, err := l.Verify(t.Context()); !errors.Is(err, meta.ErrCorrupt) {
			t.Errorf("level %d: verify: %v, expected ErrCorrupt", level, err)
		}
		if _, _, err := l.Proof(t.Context(), tlog.SnapshotSubject("debian", "bookworm", snapshot(of).Timestamp)); !errors.Is(err, meta.ErrCorrupt) {
			t.Errorf("level %d: proof: %v, expected ErrCorrupt", level, err)
		}
		if after, err := l.Checkpoint(t.Context()); err != nil || string(after) != string(before) {
			t.Errorf("level %d: another checkpoint:\n%s, %v", level, after, err)
		}
	}
	for _, at := range []int{5, 0} {
		if _, err := sequencer.Open(t.Context(), sequencer.Config{Store: &corruptStore{s, 0, at}, Signer: k}); !errors.Is(err, meta.ErrCorrupt) {
			t.Errorf("open, damage at %d: %v, expected ErrCorrupt", at, err)
		}
	}
}

// startWitness starts a witness with its own state, and returns its line for a policy.
func startWitness(t testing.TB, name string, logs ...*tlog.VerifierKey) (line string, srv *httptest.Server) {
	t.Helper()
	dir := t.TempDir()
	k, err := tlog.LoadOrMakeWitnessKey(filepath.Join(dir, "key"), "witness.example.org/"+name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := witness.New(witness.Config{Signer: k, Logs: logs, Dir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	srv = httptest.NewServer(w)
	t.Cleanup(func() { srv.Close(); w.Close() })
	return fmt.Sprintf("witness %s %s %s\n", name, k.Verifier().Text, srv.URL), srv
}

func policy(t testing.TB, text string) *tlog.Policy {
	t.Helper()
	p, err := tlog.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Two of three witnesses are enough. They refuse a log that was rewritten or truncated,
// and one lying witness stops nobody.
func TestWitnesses(t *testing.T) {
	dir := t.TempDir()
	k := key(t, dir)
	a, _ := startWitness(t, "a", k.Verifier())
	b, _ := startWitness(t, "b", k.Verifier())
	c, third := startWitness(t, "c", k.Verifier())
	lines := "log " + k.Verifier().Text + "\n" + a + b + c + "group three 2 a b c\nquorum three\n"
	p := policy(t, lines)
	third.Close() // away

	s := openStore(t, dir, nil)
	l := openLog(t, s, k, p)
	if err := l.Append(t.Context(), frozen("4.1", "one")); err != nil {
		t.Fatal(err)
	}
	st, err := l.Status(t.Context())
	if err != nil || st.Witnessed() != "2/3" || !st.Quorum {
		t.Errorf("witnessed %q, quorum %v, %v", st.Witnessed(), st.Quorum, err)
	}
	leaf, proof, err := l.Proof(t.Context(), tlog.FreezeSubject("4.1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := proof.Check(leaf, p); err != nil || len(got.Witnesses) != 2 {
		t.Errorf("offline: %+v, %v", got, err)
	}
	l.Close()
	s.Close()

	// The log has another history with the same key.
	fork := openStore(t, t.TempDir(), nil)
	defer fork.Close()
	forked, err := sequencer.Open(t.Context(), sequencer.Config{Store: fork, Signer: k, Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	defer forked.Close()
	if err := forked.Check(t.Context()); !errors.Is(err, sequencer.ErrBehind) {
		t.Errorf("a log that is shorter than witnesses have seen: %v, expected ErrBehind", err)
	}
	if err := forked.Append(t.Context(), frozen("4.1", "two")); !errors.Is(err, sequencer.ErrBehind) || size(t, forked) != 1 {
		t.Errorf("an entry of such a log: %v, %d entries; expected ErrBehind and 1", err, size(t, forked))
	}

	other := openStore(t, t.TempDir(), nil)
	defer other.Close()
	plain := openLog(t, other, k, nil)
	if err := plain.Append(t.Context(), frozen("4.1", "two"), frozen("4.2", "two")); err != nil {
		t.Fatal(err)
	}
	if err := openLog(t, other, k, p).Check(t.Context()); !errors.Is(err, sequencer.ErrBehind) {
		t.Errorf("a log with another history: %v, expected ErrBehind", err)
	}

	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, 1<<40)
	}))
	defer liar.Close()
	lying := policy(t, strings.Replace(lines, third.URL, liar.URL, 1))
	s = openStore(t, dir, nil)
	defer s.Close()
	l = openLog(t, s, k, lying)
	if err := l.Check(t.Context()); err != nil {
		t.Errorf("a witness that lies: %v", err)
	}
	if err := l.Append(t.Context(), frozen("4.2", "one")); err != nil {
		t.Errorf("a witness that lies: %v", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for b.Loop() {
		dir := b.TempDir()
		s := openStore(b, dir, nil)
		l := openLog(b, s, key(b, dir), nil)
		batch := make([]tlog.Leaf, 0, 100_000)
		for n := range 100_000 {
			batch = append(batch, frozen(meta.FreezeName(fmt.Sprint("4.", n)), "one"))
		}
		if err := l.Append(b.Context(), batch...); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkAppendOne measures what the log adds to the time of a freeze: one entry in a
// log of 10,000.
func BenchmarkAppendOne(b *testing.B) {
	dir := b.TempDir()
	s := openStore(b, dir, nil)
	defer s.Close()
	l := openLog(b, s, key(b, dir), nil)
	batch := make([]tlog.Leaf, 0, 10_000)
	for n := range 10_000 {
		batch = append(batch, frozen(meta.FreezeName(fmt.Sprint("4.", n)), "one"))
	}
	if err := l.Append(b.Context(), batch...); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		if err := l.Announce(b.Context(), frozen(meta.FreezeName(fmt.Sprint("5.", n)), "one")); err != nil {
			b.Fatal(err)
		}
		l.Settle(frozen(meta.FreezeName(fmt.Sprint("5.", n)), "one"))
		n++
	}
}

// BenchmarkProof measures what a client waits for, without HTTP.
func BenchmarkProof(b *testing.B) {
	dir := b.TempDir()
	s := openStore(b, dir, nil)
	defer s.Close()
	l := openLog(b, s, key(b, dir), nil)
	batch := make([]tlog.Leaf, 0, 10_000)
	for n := range 10_000 {
		batch = append(batch, frozen(meta.FreezeName(fmt.Sprint("4.", n)), "one"))
	}
	if err := l.Append(b.Context(), batch...); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := l.Proof(b.Context(), tlog.FreezeSubject("4.777")); err != nil {
			b.Fatal(err)
		}
	}
}

package witness_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	modtlog "golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/witness"
)

const origin = "mirror.example.org/log"

// tree is a log in memory.
type tree struct {
	t      *testing.T
	key    tlog.Signer
	hashes map[int64]modtlog.Hash
	n      int64
}

func newTree(t *testing.T, key tlog.Signer) *tree {
	return &tree{t: t, key: key, hashes: map[int64]modtlog.Hash{}}
}

func (x *tree) ReadHashes(list []int64) ([]modtlog.Hash, error) {
	out := make([]modtlog.Hash, len(list))
	for i, n := range list {
		out[i] = x.hashes[n]
	}
	return out, nil
}

// grow adds entries.
func (x *tree) grow(lines ...string) {
	x.t.Helper()
	for _, l := range lines {
		stored, err := modtlog.StoredHashes(x.n, []byte(l), x)
		if err != nil {
			x.t.Fatal(err)
		}
		for i, h := range stored {
			x.hashes[modtlog.StoredHashIndex(0, x.n)+int64(i)] = h
		}
		x.n++
	}
}

// request asks to cosign the tree, naming a size that the witness is said to have seen.
func (x *tree) request(old int64) *tlog.AddCheckpoint {
	x.t.Helper()
	root, err := modtlog.TreeHash(x.n, x)
	if err != nil {
		x.t.Fatal(err)
	}
	a := &tlog.AddCheckpoint{Old: old}
	if a.Checkpoint, err = tlog.SignCheckpoint(x.key, x.n, root); err != nil {
		x.t.Fatal(err)
	}
	if old > 0 && old < x.n {
		if a.Hashes, err = modtlog.ProveTree(x.n, old, x); err != nil {
			x.t.Fatal(err)
		}
	}
	return a
}

func logKey(t *testing.T, name string) tlog.Signer {
	t.Helper()
	k, _, err := tlog.LoadOrMakeKey(filepath.Join(t.TempDir(), "key"), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// post sends a request as it is.
func post(t *testing.T, url string, body []byte) (int, string, string) {
	t.Helper()
	res, err := http.Post(url+"/add-checkpoint", "text/plain", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	fmt.Fprint(&b, res.Header.Get("Content-Type"))
	text := make([]byte, 4096)
	n, _ := res.Body.Read(text)
	return res.StatusCode, b.String(), string(text[:n])
}

// A witness answers as tlog-witness requires, and remembers across a restart. Long
// because it is one story from beginning to end.
func TestWitness(t *testing.T) {
	key, dir := logKey(t, origin), t.TempDir()
	signer, err := tlog.LoadOrMakeWitnessKey(filepath.Join(dir, "key"), "witness.example.org")
	if err != nil {
		t.Fatal(err)
	}
	open := func() (*witness.Witness, string) {
		t.Helper()
		w, err := witness.New(witness.Config{Signer: signer, Logs: []*tlog.VerifierKey{key.Verifier()}, Dir: filepath.Join(dir, "state")})
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(w)
		t.Cleanup(srv.Close)
		return w, srv.URL
	}
	w, url := open()
	empty, err := tlog.SignCheckpoint(key, 0, modtlog.Hash{1})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, answer := post(t, url, append([]byte("old 0\n\n"), empty...)); status != 422 {
		t.Errorf("an empty log with the root of another: %d %q", status, answer)
	}
	if _, err := witness.New(witness.Config{Signer: signer, Dir: filepath.Join(dir, "state")}); err == nil {
		t.Error("two witnesses use one directory")
	}
	honest, forged := newTree(t, key), newTree(t, key)
	honest.grow("a", "b", "c")
	forged.grow("a", "x", "c")
	first := honest.request(0)
	lines, err := witness.Ask(t.Context(), http.DefaultClient, url, first)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := tlog.ParsePolicy([]byte("log " + key.Verifier().Text + "\nwitness w " + signer.Verifier().Text + "\nquorum w\n"))
	if err != nil {
		t.Fatal(err)
	}
	cosigned := tlog.AddCosignatures(first.Checkpoint, lines, signer.Verifier())
	if _, err := policy.Check(cosigned); err != nil {
		t.Error(err)
	}
	if again := tlog.AddCosignatures(cosigned, lines, signer.Verifier()); string(again) != string(cosigned) {
		t.Errorf("a cosignature is there twice:\n%s", again)
	}

	honest.grow("d", "e")
	forged.grow("d", "e", "f")
	other := newTree(t, logKey(t, "other.example.org/log"))
	other.grow("a")
	stranger := newTree(t, logKey(t, origin))
	stranger.grow("a")
	smaller := newTree(t, key)
	smaller.grow("a", "b")
	same := newTree(t, key)
	same.grow("a", "y", "c")
	for what, c := range map[string]struct {
		body   []byte
		status int
		answer string
	}{
		"a rewritten history":            {forged.request(3).Encode(), 422, "does not extend"},
		"the right size, wrongly known":  {honest.request(2).Encode(), 409, "3\n"},
		"a first request":                {honest.request(0).Encode(), 409, "3\n"},
		"another root of the same size":  {same.request(3).Encode(), 409, "3\n"},
		"a smaller tree":                 {smaller.request(2).Encode(), 409, "3\n"},
		"an unknown log":                 {other.request(0).Encode(), 404, "unknown log"},
		"an unknown key":                 {stranger.request(0).Encode(), 403, "not signed by a known key"},
		"garbage":                        {[]byte("old x\n\nfoo\n"), 400, "malformed"},
		"a proof that is cut":            {append([]byte("old 3\n\n"), honest.request(0).Checkpoint...), 422, "does not extend"},
		"an old size beyond the request": {append([]byte("old 9\n\n"), honest.request(0).Checkpoint...), 400, "larger than"},
	} {
		status, ctype, answer := post(t, url, c.body)
		if status != c.status || !strings.Contains(answer, c.answer) {
			t.Errorf("%s: %d %q, expected %d %q", what, status, answer, c.status, c.answer)
		}
		if status == 409 && ctype != "text/x.tlog.size" {
			t.Errorf("%s: media type %q", what, ctype)
		}
	}
	if _, err := witness.Ask(t.Context(), http.DefaultClient, url, forged.request(3)); !errors.Is(err, witness.ErrForked) {
		t.Errorf("a rewritten history: %v, expected ErrForked", err)
	}
	var size *witness.SizeError
	if _, err := witness.Ask(t.Context(), http.DefaultClient, url, honest.request(0)); !errors.As(err, &size) || size.Size != 3 {
		t.Errorf("a first request: %v", err)
	}
	// Refused requests change nothing, and a restart forgets nothing.
	w.Close()
	w, url = open()
	if _, err := witness.Ask(t.Context(), http.DefaultClient, url, honest.request(3)); err != nil {
		t.Error(err)
	}
	// Concurrent requests are handled one after the other.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			x := newTree(t, key)
			x.grow("a", "b", "c", "d", "e", fmt.Sprint("f", i))
			_, _ = w.Add(t.Context(), x.request(5).Encode())
		})
	}
	wg.Wait()
	w.Close()
	data, err := os.ReadFile(filepath.Join(dir, "state", "mirror.example.org%2Flog.checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tlog.OpenCheckpoint(data, key.Verifier()); err != nil || c.Size != 6 {
		t.Errorf("state: %+v, %v", c, err)
	}
	// A state that cannot be used is never replaced.
	if err := os.WriteFile(filepath.Join(dir, "state", "mirror.example.org%2Flog.checkpoint"), data[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := witness.New(witness.Config{Signer: signer, Logs: []*tlog.VerifierKey{key.Verifier()}, Dir: filepath.Join(dir, "state")}); err == nil {
		t.Error("a damaged state was taken for none")
	}
}

package tlog_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	modtlog "golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/tlog"
)

const origin = "mirror.example.org/log"

func logKey(t testing.TB) tlog.Signer {
	t.Helper()
	k, _, err := tlog.LoadOrMakeKey(filepath.Join(t.TempDir(), "key"), origin)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func witnessKey(t testing.TB, name string) tlog.Signer {
	t.Helper()
	k, err := tlog.LoadOrMakeWitnessKey(filepath.Join(t.TempDir(), "key"), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The entries have these bytes forever.
func TestLeaves(t *testing.T) {
	d := cas.Sum([]byte("x"))
	hex := `"` + d.String() + `"`
	for want, l := range map[string]tlog.Leaf{
		`{"date":"2026-11-22T16:00:00Z","mirror":"debian","release":` + hex + `,"signers":["A","B"],"suite":"bookworm","t":"snapd/snapshot/v1","timestamp":"20261122T160000Z"}`: &tlog.Snapshot{
			Mirror: "debian", Suite: "bookworm", Timestamp: "20261122T160000Z", Release: d, Date: "2026-11-22T16:00:00Z", Signers: []string{"B", "A", "B"}},
		`{"key":"F1","manifest":` + hex + `,"name":"4.1","sig":` + hex + `,"t":"snapd/frozen/v1"}`:           &tlog.Frozen{Name: "4.1", Manifest: d, Signature: d, Key: "F1"},
		`{"about":"4.1","kind":"image","sha256":` + hex + `,"subject":` + hex + `,"t":"snapd/statement/v1"}`: &tlog.Statement{About: "4.1", Kind: "image", Digest: d, Subject: d},
		`{"freeze":"4.1","name":"stable","t":"snapd/channel/v1","timestamp":"20261122T160000Z"}`:             &tlog.Channel{Name: "stable", Freeze: "4.1", Timestamp: "20261122T160000Z"},
		`{"kind":"freeze","manifest":` + hex + `,"name":"4.1","t":"snapd/removed/v1","unfinished":true}`:     &tlog.Removed{Kind: "freeze", Name: "4.1", Manifest: d, Unfinished: true},
		`{"kind":"snapshot","name":"debian@20261122T160000Z","t":"snapd/removed/v1"}`:                        &tlog.Removed{Kind: "snapshot", Name: "debian@20261122T160000Z"},
		`{"key":"F1","sha256":` + hex + `,"t":"snapd/key/v1","use":"freeze"}`:                                &tlog.Key{Use: "freeze", Fingerprint: "F1", Digest: d},
	} {
		got, err := tlog.Encode(l)
		if err != nil || string(got) != want {
			t.Errorf("%s, %v\nexpected %s", got, err, want)
		}
		back, err := tlog.Decode(got)
		if err != nil || back == nil {
			t.Errorf("%s: %v", got, err)
			continue
		}
		if again, err := tlog.Encode(back); err != nil || string(again) != want {
			t.Errorf("again: %s, %v", again, err)
		}
	}
	for _, bad := range []string{"", "x", `{"t":"snapd/frozen/v1","name":"4.1"}`, `{"t":"snapd/frozen/v1"} `, "{\"t\":\n\"x\"}", `{"t":"other","x":"` + strings.Repeat("x", 1024) + `"}`} {
		if _, err := tlog.Decode([]byte(bad)); !errors.Is(err, tlog.ErrLeaf) {
			t.Errorf("%q: %v, expected ErrLeaf", bad, err)
		}
	}
	if l, err := tlog.Decode([]byte(`{"t":"snapd/later/v7"}`)); l != nil || err != nil {
		t.Errorf("a type of later versions: %v, %v", l, err)
	}
	if _, err := tlog.Encode(&tlog.Snapshot{Suite: strings.Repeat("s", 1024)}); err == nil {
		t.Error("an entry of more than 1 KiB")
	}
}

func TestKeys(t *testing.T) {
	k := logKey(t)
	file := filepath.Join(t.TempDir(), "key")
	if _, made, err := tlog.LoadOrMakeKey(file, origin); err != nil || !made {
		t.Fatal(made, err)
	}
	if _, made, err := tlog.LoadOrMakeKey(file, origin); err != nil || made {
		t.Errorf("again: made %v, %v", made, err)
	}
	if _, _, err := tlog.LoadOrMakeKey(file, "other.example.org/log"); !errors.Is(err, tlog.ErrKey) {
		t.Errorf("a key of another log: %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.LoadKey(file); !errors.Is(err, tlog.ErrKey) {
		t.Errorf("a key that others can read: %v", err)
	}
	good := k.Verifier().Text
	if _, err := tlog.ParseVerifierKey(good + "\n"); err != nil {
		t.Error(err)
	}
	// The last bits of base64, and the breaks that its decoders ignore, are no second
	// spelling of a key.
	for _, bad := range []string{good[:len(good)-10] + "\n" + good[len(good)-10:], "", "x", strings.Replace(good, origin, "other", 1), good[:len(good)-4], strings.Replace(good, "+", " ", 1), "a b+00000000+AAAA"} {
		if _, err := tlog.ParseVerifierKey(bad); !errors.Is(err, tlog.ErrKey) {
			t.Errorf("%q: %v, expected ErrKey", bad, err)
		}
	}
}

// A command that signs instead of the key is believed only if its signature is valid.
func TestCommandSigner(t *testing.T) {
	key := logKey(t).Verifier()
	for name, script := range map[string]string{"nothing": "true", "garbage": "echo garbage", "failure": "exit 3", "another signature": "head -c 64 /dev/zero"} {
		s := tlog.NewCommandSigner([]string{"sh", "-c", "cat >/dev/null; " + script}, key)
		if _, err := tlog.SignCheckpoint(s, 1, modtlog.Hash{}); err == nil {
			t.Errorf("%s was taken for a signature", name)
		}
	}
}

// proven returns a log of 1000 leaves, and the proof of the one in the middle.
func proven(t testing.TB, k tlog.Signer, witnesses ...tlog.Signer) (leaf []byte, p *tlog.Proof) {
	t.Helper()
	hashes := map[int64]modtlog.Hash{}
	r := modtlog.HashReaderFunc(func(list []int64) ([]modtlog.Hash, error) {
		out := make([]modtlog.Hash, len(list))
		for i, x := range list {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for n := range int64(1000) {
		line, err := tlog.Encode(&tlog.Frozen{Name: string(rune('a' + n%26)), Manifest: cas.Sum([]byte{byte(n), byte(n >> 8)})})
		if err != nil {
			t.Fatal(err)
		}
		if n == 500 {
			leaf = line
		}
		stored, err := modtlog.StoredHashes(n, line, r)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range stored {
			hashes[modtlog.StoredHashIndex(0, n)+int64(i)] = h
		}
	}
	root, err := modtlog.TreeHash(1000, r)
	if err != nil {
		t.Fatal(err)
	}
	p = &tlog.Proof{Index: 500}
	if p.Hashes, err = modtlog.ProveRecord(1000, 500, r); err != nil {
		t.Fatal(err)
	}
	if p.Checkpoint, err = tlog.SignCheckpoint(k, 1000, root); err != nil {
		t.Fatal(err)
	}
	for _, w := range witnesses {
		signed, err := tlog.SignCheckpoint(renamed{w}, 1000, root)
		if err != nil {
			t.Fatal(err)
		}
		_, lines, _ := bytes.Cut(signed, []byte("\n\n"))
		p.Checkpoint = tlog.AddCosignatures(p.Checkpoint, lines, w.Verifier())
	}
	return leaf, p
}

// renamed signs the text of a checkpoint of origin, as a witness does.
type renamed struct{ tlog.Signer }

func (r renamed) Sign(msg []byte) ([]byte, error) {
	return r.Signer.Sign(bytes.Replace(msg, []byte(r.Signer.Name()), []byte(origin), 1))
}

// A proof is refused if one of its bits is changed, or if it is of another leaf or log.
func TestProof(t *testing.T) {
	k, a, b := logKey(t), witnessKey(t, "a.example.org"), witnessKey(t, "b.example.org")
	leaf, p := proven(t, k, a, b)
	policy, err := tlog.ParsePolicy([]byte("log " + k.Verifier().Text + "\nwitness a " + a.Verifier().Text + "\nwitness b " + b.Verifier().Text + "\ngroup g all a b\nquorum g\n"))
	if err != nil {
		t.Fatal(err)
	}
	data := p.Encode()
	check := func(data []byte) error {
		p, err := tlog.ParseProof(data)
		if err == nil {
			_, err = p.Check(leaf, policy)
		}
		return err
	}
	if err := check(data); err != nil {
		t.Fatal(err)
	}
	if err := check(bytes.Replace(data, []byte("index"), []byte("extra AAAA\nindex"), 1)); err != nil {
		t.Errorf("with extra data: %v", err)
	}
	for i := range data {
		for bit := range 8 {
			changed := bytes.Clone(data)
			changed[i] ^= 1 << bit
			if err := check(changed); err == nil {
				t.Fatalf("bit %d of byte %d is changed, and the proof holds:\n%s", bit, i, changed)
			} else if !errors.Is(err, tlog.ErrProof) {
				t.Fatalf("bit %d of byte %d: %v, expected ErrProof", bit, i, err)
			}
		}
	}
	if _, err := p.Check(append(leaf, ' '), policy); !errors.Is(err, tlog.ErrProof) {
		t.Errorf("another leaf: %v", err)
	}
	if _, err := p.Check(leaf, tlog.LogPolicy(logKey(t).Verifier())); !errors.Is(err, tlog.ErrProof) {
		t.Errorf("another key of the log: %v", err)
	}
	_, alone := proven(t, k, a)
	if _, err := alone.Check(leaf, policy); !errors.Is(err, tlog.ErrProof) {
		t.Errorf("one witness of two: %v", err)
	}
	if len(data) > 2000 {
		t.Errorf("a proof of %d bytes", len(data))
	}
}

// cosigned is the line by which a witness signs a checkpoint at a time.
func cosigned(t *testing.T, k ed25519.PrivateKey, v *tlog.VerifierKey, checkpoint []byte, at uint64) []byte {
	t.Helper()
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	sig := binary.BigEndian.AppendUint32(nil, v.KeyHash())
	sig = binary.BigEndian.AppendUint64(sig, at)
	sig = append(sig, ed25519.Sign(k, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at, text))...)
	return fmt.Appendf(nil, "— %s %s\n", v.Name(), base64.StdEncoding.EncodeToString(sig))
}

// A log that does not grow is cosigned again at each start: one cosignature of each
// witness is kept, the newest.
func TestAddCosignatures(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	data := append([]byte{4}, public...)
	sum := sha256.Sum256(append([]byte("w.example.org\n"), data...))
	v, err := tlog.ParseVerifierKey(fmt.Sprintf("w.example.org+%x+%s", sum[:4], base64.StdEncoding.EncodeToString(data)))
	if err != nil {
		t.Fatal(err)
	}
	k, other := logKey(t), witnessKey(t, "other.example.org")
	_, p := proven(t, k, other)
	policy, err := tlog.ParsePolicy([]byte("log " + k.Verifier().Text + "\nwitness w " + v.Text + "\nwitness o " + other.Verifier().Text + "\ngroup g all w o\nquorum g\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := p.Checkpoint
	for at := range uint64(200) {
		now = tlog.AddCosignatures(now, cosigned(t, private, v, p.Checkpoint, at), v)
	}
	if n := strings.Count(string(now), "\n— "); n != 3 || !strings.Contains(string(now), string(cosigned(t, private, v, p.Checkpoint, 199))) {
		t.Errorf("%d signatures, expected 3, the last of time 199:\n%s", n, now)
	}
	if _, err := policy.Check(now); err != nil {
		t.Error(err)
	}
	another, err := tlog.SignCheckpoint(k, 999, modtlog.Hash{})
	if err != nil {
		t.Fatal(err)
	}
	for what, lines := range map[string][]byte{
		"of another checkpoint":       cosigned(t, private, v, another, 1),
		"none":                        nil,
		"garbage":                     []byte("garbage\n"),
		"of a time that is too large": cosigned(t, private, v, p.Checkpoint, 1<<63),
	} {
		if got := tlog.AddCosignatures(now, lines, v); !bytes.Equal(got, now) {
			t.Errorf("%s was added:\n%s", what, got)
		}
	}
}

func TestPolicy(t *testing.T) {
	l := logKey(t).Verifier().Text
	w := map[string]string{}
	for _, n := range []string{"x1", "x2", "x3", "y1", "y2"} {
		w[n] = "witness " + n + " " + witnessKey(t, n+".example.org").Verifier().Text
	}
	all := strings.Join([]string{"# a comment", "\tlog " + l + " https://mirror.example.org/log ", w["x1"], w["x2"] + " https://witness.example.org/", w["x3"], w["y1"], w["y2"],
		"group X 2 x1 x2 x3", "group Y any y1 y2", "group both all X Y", "", "quorum both"}, "\n")
	p, err := tlog.ParsePolicy([]byte(all))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Witnesses) != 5 || p.Witnesses[1].URL != "https://witness.example.org" || p.Logs[0].URL != "https://mirror.example.org/log" {
		t.Errorf("%+v", p)
	}
	for names, want := range map[string]bool{"x1 x2 y1": true, "x1 x3 y2": true, "x1 y1 y2": false, "x1 x2 x3": false, "": false} {
		if got := p.Satisfied(strings.Fields(names)); got != want {
			t.Errorf("%q: %v, expected %v", names, got, want)
		}
	}
	for bad, words := range map[string]string{
		"":                         "no quorum line",
		"quorum x":                 `line 1: "x" is neither a witness`,
		"quorum none\nquorum none": "line 2: a second quorum line",
		"lag x\nquorum none":       `line 1: unknown word "lag"`,
		"log x\nquorum none":       "line 1: malformed log key",
		"log " + l + "\nlog " + l + "\nquorum none":                                             "line 2: log " + origin + " is listed twice",
		"witness a " + l + "\nquorum a":                                                         "line 1: " + origin + " is the key of a log",
		w["x1"] + "\n" + w["x1"] + "\nquorum x1":                                                `line 2: the name "x1" is reserved or used twice`,
		w["x1"] + "\n" + strings.Replace(w["x1"], "witness x1", "witness z", 1) + "\nquorum x1": "is listed twice",
		w["x1"] + "\ngroup g 2 x1\nquorum g":                                                    `line 2: group g: "2" of 1 members`,
		w["x1"] + "\ngroup g 01 x1\nquorum g":                                                   `line 2: group g: "01"`,
		w["x1"] + "\ngroup none any x1\nquorum none":                                            `line 2: the name "none" is reserved or used twice`,
		w["x1"] + "\ngroup g any x1\ngroup h any x1\nquorum g":                                  "line 3: x1 is a member twice",
		"group g any h\ngroup h any g\nquorum g":                                                `line 1: "h" is neither a witness`,
		"quorum none\r\n":                                                                       "line 1: control character",
	} {
		if _, err := tlog.ParsePolicy([]byte(bad)); !errors.Is(err, tlog.ErrPolicy) || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, expected %s", bad, err, words)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := logKey(f)
	leaf, p := proven(f, k)
	f.Add(leaf)
	f.Add(p.Encode())
	f.Add([]byte("log " + k.Verifier().Text + "\nquorum none\n"))
	f.Add((&tlog.AddCheckpoint{Old: 3, Hashes: modtlog.TreeProof(p.Hashes), Checkpoint: p.Checkpoint}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := tlog.Decode(data); err == nil && l != nil {
			if again, err := tlog.Encode(l); err != nil {
				t.Errorf("%q is read, and cannot be written: %v", data, err)
			} else if _, ok := l.(*tlog.Snapshot); !ok && !bytes.Equal(again, data) {
				t.Errorf("%q is written as %q", data, again)
			}
		}
		if p, err := tlog.ParseProof(data); err == nil {
			if again, err := tlog.ParseProof(p.Encode()); err != nil || again.Index != p.Index || !bytes.Equal(again.Checkpoint, p.Checkpoint) {
				t.Errorf("%q: %v", data, err)
			}
		}
		if a, err := tlog.ParseAddCheckpoint(data); err == nil && !bytes.Equal(a.Encode(), data) {
			t.Errorf("%q is written as %q", data, a.Encode())
		}
		if p, err := tlog.ParsePolicy(data); err == nil {
			p.Satisfied(nil)
		}
		_, _ = tlog.ParseCheckpoint(data)
	})
}

func BenchmarkCheck(b *testing.B) {
	k := logKey(b)
	var w []tlog.Signer
	text := "log " + k.Verifier().Text + "\n"
	for _, n := range []string{"a", "b", "c"} {
		s := witnessKey(b, n+".example.org")
		w = append(w, s)
		text += "witness " + n + " " + s.Verifier().Text + "\n"
	}
	leaf, p := proven(b, k, w...)
	policy, err := tlog.ParsePolicy([]byte(text + "group g 2 a b c\nquorum g\n"))
	if err != nil {
		b.Fatal(err)
	}
	data := p.Encode()
	defer func() { b.ReportMetric(float64(len(data)), "proof-bytes") }()
	for b.Loop() {
		p, err := tlog.ParseProof(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Check(leaf, policy); err != nil {
			b.Fatal(err)
		}
	}
}

package sequencer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
)

var day = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

// record is a freeze without mirrors.
func record(name, contents string, made time.Time) *meta.Frozen {
	file := func(path string) repo.File {
		return repo.File{Path: path, Size: 1, SHA256: cas.Sum([]byte(path + contents))}
	}
	return &meta.Frozen{
		Name: meta.FreezeName(name), Date: day, Created: made, Manifest: file("manifest.json"), Signature: file("manifest.json.asc"), Prov: file("provenance.json"),
		Key: "F1", KeyBlob: cas.Sum([]byte("key")),
	}
}

func statement(f *meta.Frozen, path string) meta.StatementFiles {
	return meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Files: []repo.File{
		{Path: path, Size: 1, SHA256: cas.Sum([]byte(path))}, {Path: path + ".asc", Size: 1, SHA256: cas.Sum([]byte(path + ".asc"))},
	}}
}

// seal stages and seals a snapshot without packages.
func seal(ctx context.Context, s meta.Store, contents string, at time.Time) (*meta.Snapshot, error) {
	st, err := s.NewStage(ctx, "debian", "stable")
	if err != nil {
		return nil, err
	}
	g := meta.Generation{Mirror: "debian", Suite: "stable", Gen: st.Gen(), Date: at.Add(-time.Hour), Signers: []repo.Signer{{Fingerprint: "UP"}}}
	g.Docs = []meta.Doc{{File: repo.File{Path: "dists/stable/InRelease", Size: 1, SHA256: cas.Sum([]byte(contents))}}}
	return s.Seal(ctx, &meta.Sealing{
		Snapshot:    meta.Snapshot{Mirror: "debian", Type: "deb", Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: g.Gen, Date: g.Date}}},
		Generations: []meta.Generation{g}, Listings: [][]repo.File{nil},
	}, at)
}

func lines(t *testing.T, l *sequencer.Log) (out []string) {
	t.Helper()
	err := l.Entries(t.Context(), 0, func(_ int64, e []byte) error { out = append(out, string(e)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func expect(t *testing.T, l *sequencer.Log, words ...string) {
	t.Helper()
	got := lines(t, l)
	if len(got) != len(words) {
		t.Fatalf("%d entries, expected %d:\n%s", len(got), len(words), strings.Join(got, "\n"))
	}
	for i, w := range words {
		for _, part := range strings.Fields(w) {
			if !strings.Contains(got[i], part) {
				t.Errorf("entry %d: %s\nexpected in it: %s", i, got[i], part)
			}
		}
	}
}

// A data directory that was made without a log starts one with an entry for everything it
// contains, in the order in which it was made, and once.
func TestExistingDirectory(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	old := record("4.1", "one", day.Add(90*time.Minute))
	for i, f := range []func() error{
		func() error { _, err := seal(ctx, s, "one", day); return err },
		func() error { return s.Publish(ctx, old) },
		func() error { _, err := seal(ctx, s, "two", day.Add(2*time.Hour)); return err },
		func() error { return s.AddStatement(ctx, statement(old, "_statements/signature-f2.json")) },
		func() error { return s.Publish(ctx, record("4.0", "zero", day.Add(3*time.Hour))) },
		func() error { return s.RemoveSnapshot(ctx, "debian", day, true, day) },
		func() error { return s.PutKits(ctx, []meta.Kit{{Path: "a/b.iuk", Digest: cas.Sum([]byte("kit"))}}) },
	} {
		if err := f(); err != nil {
			t.Fatal(i, err)
		}
	}
	k := key(t, dir)
	for range 2 {
		l := openLog(t, s, k, nil)
		if names, err := l.Logged(s).Recover(ctx, "test"); err != nil || len(names) > 0 {
			t.Fatal(names, err)
		}
		expect(t, l, `snapd/key/v1 "log"`, `snapd/removed/v1 debian@20261122T160000Z`, `snapd/frozen/v1 "4.1"`, `snapd/statement/v1 resign "4.1"`,
			`snapd/snapshot/v1 20261122T180000Z "UP"`, `snapd/frozen/v1 "4.0"`, `snapd/statement/v1 kit a/b.iuk`)
	}
}

// Publications and removals are logged, and the log never contradicts itself.
func TestLogged(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	l := openLog(t, s, key(t, dir), nil)
	st := l.Logged(s)
	f := record("4.1", "one", day)
	snap, err := seal(ctx, st, "one", day)
	if err != nil {
		t.Fatal(err)
	}
	attestation := statement(f, "_statements/attestation-1.json")
	for i, err := range []error{
		st.Publish(ctx, f), st.Publish(ctx, f),
		st.AddStatement(ctx, statement(f, "_statements/image-default.json")),
		st.AddStatement(ctx, statement(f, "_statements/image-default.json")),
		st.AddStatement(ctx, attestation),
		st.RemoveStatement(ctx, "4.1", f.Manifest.SHA256, attestation.Files[0]),
		st.AddStatement(ctx, attestation),
		st.RemoveFreeze(ctx, "4.1", day),
	} {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	if err := s.ClearTree(ctx, "4.1"); err != nil {
		t.Fatal(err)
	}
	if err := st.Publish(ctx, record("4.1", "two", day)); !errors.Is(err, meta.ErrExists) {
		t.Errorf("another manifest under the name of a removed freeze: %v, expected ErrExists", err)
	}
	if _, err := s.Freeze(ctx, "4.1"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
	if err := st.Publish(ctx, f); err != nil {
		t.Errorf("the same manifest again: %v", err)
	}
	// The clock goes back, but the timestamp does not.
	second, err := seal(ctx, st, "two", day.Add(-24*time.Hour))
	if err != nil || !second.Timestamp.Equal(snap.Timestamp.Add(time.Second)) {
		t.Fatal(second, err)
	}
	if err := st.RemoveSnapshot(ctx, "debian", snap.Timestamp, true, day); err != nil {
		t.Fatal(err)
	}
	words := []string{`snapd/key/v1`, `snapd/snapshot/v1 20261122T160000Z`, `snapd/frozen/v1`, `snapd/statement/v1 image`,
		`snapd/statement/v1 attestation`, `snapd/removed/v1 "attestation" 4.1/` + attestation.Files[0].SHA256.String(), `snapd/statement/v1 attestation`, `snapd/removed/v1 "freeze"`, `snapd/frozen/v1`,
		`snapd/snapshot/v1 20261122T160001Z`, `snapd/removed/v1 debian@20261122T160000Z`}
	expect(t, l, words...)
	if _, err := st.Recover(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	expect(t, l, words...)
}

// Each write of a publication fails, without or with effect, and then snapd starts again.
// What exists has a proof, what does not exist is logged as such, and the work succeeds
// when it is repeated.
func TestPublicationFaults(t *testing.T) {
	for fail := range 4 {
		for _, apply := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, effect %v", fail, apply), func(t *testing.T) {
				ctx, dir := t.Context(), t.TempDir()
				k := key(t, dir)
				armed, count, hit := false, 0, ""
				s := openStore(t, dir, func(op string) (bool, error) {
					if op != "log" && op != "freeze" && op != "seal" || !armed {
						return false, nil
					}
					if count++; count-1 == fail {
						hit = op
						return apply, errors.New("power cut")
					}
					return false, nil
				})
				work := func(s *bolt.Store) error {
					l, err := sequencer.Open(ctx, sequencer.Config{Store: s, Signer: k})
					if err != nil {
						return err
					}
					defer l.Close()
					armed = true
					st := l.Logged(s)
					if _, err := st.Recover(ctx, "test"); err != nil {
						return err
					}
					if _, err := seal(ctx, st, "one", day); err != nil {
						return err
					}
					return st.Publish(ctx, record("4.1", "one", day))
				}
				err := work(s)
				if hit == "" || err == nil {
					t.Fatalf("the write was not reached: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openStore(t, dir, nil)
				defer s.Close()
				if err := work(s); err != nil {
					t.Fatalf("again, after %s: %v", hit, err)
				}
				l := openLog(t, s, k, nil)
				if _, err := l.Verify(ctx); err != nil {
					t.Error(err)
				}
				if pending, err := s.LogPending(ctx); err != nil || len(pending) > 2 {
					t.Errorf("pending: %+v, %v", pending, err)
				}
				if _, _, err := l.Proof(ctx, tlog.FreezeSubject("4.1")); err != nil {
					t.Errorf("proof of the freeze: %v", err)
				}
				snaps, err := s.SnapshotsBefore(ctx, "debian", time.Time{}, 10)
				if err != nil || len(snaps) == 0 {
					t.Fatal(snaps, err)
				}
				for _, snap := range snaps {
					if _, _, err := l.Proof(ctx, tlog.SnapshotSubject("debian", "stable", meta.FormatTimestamp(snap.Timestamp))); err != nil {
						t.Errorf("proof of %s: %v", snap.ID(), err)
					}
				}
			})
		}
	}
}

// A removal fails, without or with effect, and perhaps it is not known which. After the
// next start at the latest, the last entry about it says whether it is there.
func TestRemovalFaults(t *testing.T) {
	for _, c := range []struct {
		name    string
		unknown bool
		apply   bool
	}{{"failed", false, false}, {"unknown, without effect", true, false}, {"unknown, with effect", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, dir := t.Context(), t.TempDir()
			armed := false
			s := openStore(t, dir, func(op string) (bool, error) {
				switch {
				case !armed || op == "log":
					return false, nil
				case c.unknown:
					return c.apply, fmt.Errorf("%w: power cut", durable.ErrUnknown)
				}
				return c.apply, errors.New("no space")
			})
			defer s.Close()
			l := openLog(t, s, key(t, dir), nil)
			st := l.Logged(s)
			f := record("4.1", "one", day)
			attestation := statement(f, "_statements/attestation-1.json")
			if err := errors.Join(st.Publish(ctx, f), st.AddStatement(ctx, attestation)); err != nil {
				t.Fatal(err)
			}
			words := []string{"snapd/key/v1", "snapd/frozen/v1", "snapd/statement/v1", "snapd/removed/v1 attestation", "snapd/removed/v1 freeze"}
			switch {
			case !c.unknown:
				words = []string{words[0], words[1], words[2], words[3], words[2], words[4], words[1]}
			case !c.apply:
				words = append(words, words[1], words[2])
			}
			armed = true
			if err := st.RemoveStatement(ctx, "4.1", f.Manifest.SHA256, attestation.Files[0]); err == nil {
				t.Error("the statement was removed")
			}
			if err := st.RemoveFreeze(ctx, "4.1", day); err == nil {
				t.Error("the freeze was removed")
			}
			armed = false
			if _, err := st.Recover(ctx, "test"); err != nil {
				t.Fatal(err)
			}
			expect(t, l, words...)
		})
	}
}

// A freeze that is published with statements, as an imported one, has entries for them.
func TestPublishedStatements(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	l := openLog(t, s, key(t, dir), nil)
	st := l.Logged(s)
	f := record("4.1", "one", day)
	f.Statements = statement(f, "_statements/labels-1-aa.json").Files
	for i, err := range []error{st.Publish(ctx, f), st.Publish(ctx, f), st.AddStatement(ctx, statement(f, "_statements/labels-2-bb.json"))} {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	words := []string{`snapd/key/v1`, `snapd/frozen/v1`, `snapd/statement/v1 "labels" ` + f.Statements[0].SHA256.String(), `snapd/statement/v1 "labels"`}
	expect(t, l, words...)
	if _, err := st.Recover(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	expect(t, l, words...)
}

package metatest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// write is a call of a method that writes. before prepares the store for it.
type write struct {
	name   string
	before func(context.Context, meta.Store) error
	run    func(context.Context, meta.Store) error
	// again is the error of the call after it has already taken effect; nil if it
	// succeeds again.
	again error
}

// then runs steps one after the other.
func then(steps ...func(context.Context, meta.Store) error) func(context.Context, meta.Store) error {
	return func(ctx context.Context, s meta.Store) error {
		for _, step := range steps {
			if err := step(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}
}

// writes lists all methods that write. Long because it is one list.
func writes() []write {
	type step = func(context.Context, meta.Store) error
	sync := func(at time.Time, records ...*repo.Record) step {
		return func(ctx context.Context, s meta.Store) error {
			g, err := stageWith(ctx, s, records...)
			if err != nil {
				return err
			}
			_, err = sealWith(ctx, s, g, at)
			return err
		}
	}
	put := func(ctx context.Context, s meta.Store) error { return s.PutTree(ctx, "4.1", tree(3)) }
	f := freeze("4.1", "one")
	publish := then(put, func(ctx context.Context, s meta.Store) error { return s.Publish(ctx, f) })
	statement := meta.StatementFiles{
		Freeze: "4.1", Manifest: f.Manifest.SHA256, Files: []repo.File{blob("_statements/a.json", "s")},
		Image: &meta.Image{Name: "4.1", Variant: "default", SHA256: digest("image"), Statement: blob("_statements/a.json", "s").SHA256},
	}
	candidates := func(ctx context.Context, s meta.Store) error {
		_, err := s.AddOrphans(ctx, blobInfos(3, day), day)
		return err
	}
	claim := func(ctx context.Context, s meta.Store) error {
		_, _, _, err := s.ClaimBlobs(ctx, cas.Digest{}, day, 10)
		return err
	}
	var digests []cas.Digest
	for _, b := range blobInfos(3, day) {
		digests = append(digests, b.Digest)
	}
	expire := func(ctx context.Context, s meta.Store) error {
		_, err := s.RemoveExpired(ctx, []meta.Keep{{Mirror: mirror, Before: day.Add(90 * time.Minute)}}, day, 10)
		return err
	}
	two := then(sync(day, binary("a", "1")), sync(day.Add(time.Hour), binary("a", "2")))
	pin := func(ctx context.Context, s meta.Store) error {
		_, err := s.Pin(ctx, mirror, day, day.Add(time.Hour))
		return err
	}
	record := func(ctx context.Context, s meta.Store) error {
		return s.StartRecording(ctx, &meta.Recording{Name: "build", Started: day, Pins: []meta.RecordingPin{{Mirror: mirror, Timestamp: day}}})
	}
	fetched := func(ctx context.Context, s meta.Store) error {
		_, err := s.NoteFetches(ctx, []meta.Fetch{{Recording: "build", Entry: meta.RecordEntry{Mirror: mirror, Path: "pool/a_1.deb", SHA256: digest("pool/a_1.deb"), Count: 1}}})
		return err
	}
	stop := func(ctx context.Context, s meta.Store) error {
		_, err := s.StopRecording(ctx, "build", day)
		return err
	}
	remove := func(ctx context.Context, s meta.Store) error { return s.RemoveFreeze(ctx, "4.1", day) }
	move := func(ctx context.Context, s meta.Store) error { return s.MoveChannel(ctx, channel("4.1", day)) }
	other := func(ctx context.Context, s meta.Store) error { return s.Publish(ctx, freeze("5.0", "two")) }
	corrupt := func(ctx context.Context, s meta.Store) error {
		return s.MarkCorrupt(ctx, meta.CorruptBlob{Digest: digest("a"), Found: day, By: "fsck", Why: "short"})
	}
	var led meta.Lease
	lead := func(ctx context.Context, s meta.Store) (err error) {
		led, _, err = s.BeginSync(ctx, mirror, "one", time.Hour)
		return err
	}
	return []write{
		{name: "EndSync", before: lead, run: func(ctx context.Context, s meta.Store) error {
			return s.EndSync(ctx, led, mirror, meta.Check{}, meta.Check{OK: day})
		}, again: meta.ErrFenced},
		{name: "EndSyncFailed", before: lead, run: func(ctx context.Context, s meta.Store) error {
			return s.EndSync(ctx, led, mirror, meta.Check{}, meta.Check{Checked: day, Error: "refused"})
		}, again: meta.ErrFenced},
		{name: "SetCheck", run: func(ctx context.Context, s meta.Store) error { return s.SetCheck(ctx, mirror, meta.Check{OK: day}) }},
		{name: "Stage", run: func(ctx context.Context, s meta.Store) error {
			_, err := stageWith(ctx, s, binary("a", "1"))
			return err
		}},
		{name: "StageAgain", before: sync(day, binary("a", "1"), binary("b", "1")), run: func(ctx context.Context, s meta.Store) error {
			_, err := stageWith(ctx, s, binary("a", "2"))
			return err
		}},
		{name: "Seal", before: func(ctx context.Context, s meta.Store) error {
			_, err := stageWith(ctx, s, binary("a", "1"))
			return err
		}, run: func(ctx context.Context, s meta.Store) error {
			_, err := sealWith(ctx, s, generation(1, 1), day)
			return err
		}, again: meta.ErrExists},
		{name: "NoteBlobs", run: func(ctx context.Context, s meta.Store) error {
			return s.NoteBlobs(ctx, digests, []meta.Alias{{Algo: meta.AliasSHA1, Other: []byte("1"), SHA256: digests[0]}}, day)
		}},
		{name: "MarkCorrupt", run: corrupt},
		{name: "ClearCorrupt", before: corrupt, run: func(ctx context.Context, s meta.Store) error { return s.ClearCorrupt(ctx, digest("a")) }},
		{name: "PutTree", run: put},
		{name: "ClearTree", before: put, run: func(ctx context.Context, s meta.Store) error { return s.ClearTree(ctx, "4.1") }},
		{name: "Publish", before: put, run: func(ctx context.Context, s meta.Store) error { return s.Publish(ctx, f) }},
		{name: "RemoveFreeze", before: publish, run: remove, again: meta.ErrGone},
		{name: "PublishRemoved", before: then(publish, remove), run: func(ctx context.Context, s meta.Store) error { return s.Publish(ctx, f) }},
		{name: "AddStatement", before: publish, run: func(ctx context.Context, s meta.Store) error { return s.AddStatement(ctx, statement) }},
		{name: "RemoveStatement", before: then(publish, func(ctx context.Context, s meta.Store) error { return s.AddStatement(ctx, statement) }), run: func(ctx context.Context, s meta.Store) error {
			return s.RemoveStatement(ctx, "4.1", f.Manifest.SHA256, statement.Files[0])
		}, again: meta.ErrNotFound},
		{name: "SetProvenanceSignature", before: publish, run: func(ctx context.Context, s meta.Store) error {
			return s.SetProvenanceSignature(ctx, "4.1", f.Prov.SHA256, blob("provenance.json.asc", "s"))
		}},
		{name: "SetTreeListing", before: publish, run: func(ctx context.Context, s meta.Store) error {
			return s.SetTreeListing(ctx, "4.1", f.Manifest.SHA256, blob("tree", "t"))
		}},
		{name: "ReplaceKey", before: publish, run: func(ctx context.Context, s meta.Store) error {
			return s.ReplaceKey(ctx, "4.1", f.KeyBlob, digest("renewed"))
		}},
		{name: "RemoveExpired", before: two, run: expire},
		{name: "ClearOrphanTree", before: put, run: func(ctx context.Context, s meta.Store) error {
			return s.ClearOrphanTree(ctx, "4.1", func() bool { return false })
		}},
		{name: "CollectGenerations", before: then(two, expire), run: func(ctx context.Context, s meta.Store) error {
			_, err := s.CollectGenerations(ctx)
			return err
		}},
		{name: "ClaimBlobs", before: candidates, run: claim},
		{name: "ReleaseClaims", before: then(candidates, claim), run: func(ctx context.Context, s meta.Store) error { return s.ReleaseClaims(ctx, digests) }},
		{name: "ForgetBlobs", before: then(candidates, claim), run: func(ctx context.Context, s meta.Store) error {
			_, err := s.ForgetBlobs(ctx, digests)
			return err
		}},
		{name: "Pin", before: two, run: pin},
		{name: "Unpin", before: then(two, pin), run: func(ctx context.Context, s meta.Store) error {
			_, err := s.Unpin(ctx, mirror, day)
			return err
		}},
		{name: "RemoveSnapshot", before: two, run: func(ctx context.Context, s meta.Store) error {
			return s.RemoveSnapshot(ctx, mirror, day, true, day)
		}, again: meta.ErrGone},
		{name: "StartRecording", before: two, run: record, again: meta.ErrTaken},
		{name: "StopRecording", before: then(two, record), run: stop},
		{name: "NoteFetches", before: then(two, record), run: fetched},
		{name: "RemoveRecording", before: then(two, record, fetched, stop), run: func(ctx context.Context, s meta.Store) error {
			return s.RemoveRecording(ctx, "build")
		}, again: meta.ErrNotFound},
		{name: "AppendLog", run: func(ctx context.Context, s meta.Store) error {
			return s.AppendLog(ctx, &meta.LogAppend{Origin: "o", Size: 1, Checkpoint: []byte("1"), Names: map[string]int64{"a": 0}})
		}, again: meta.ErrLogMoved},
		{name: "CosignLog", before: func(ctx context.Context, s meta.Store) error {
			return s.AppendLog(ctx, &meta.LogAppend{Origin: "o", Size: 1, Checkpoint: []byte("1")})
		}, run: func(ctx context.Context, s meta.Store) error {
			return s.CosignLog(ctx, meta.LogCosigned{Size: 1, Checkpoint: []byte("1a"), Quorum: true})
		}},
		{name: "PutToken", run: putToken},
		{name: "RevokeToken", before: putToken, run: func(ctx context.Context, s meta.Store) error { return s.RevokeToken(ctx, "ci", day) }, again: meta.ErrRevoked},
		{name: "UseToken", before: putToken, run: func(ctx context.Context, s meta.Store) error { return s.UseToken(ctx, digest("ci"), day) }},
		{name: "AppendAudit", run: func(ctx context.Context, s meta.Store) error { return s.AppendAudit(ctx, auditEntry("a", day)) }},
		{name: "TrimAudit", before: func(ctx context.Context, s meta.Store) error {
			return errors.Join(s.AppendAudit(ctx, auditEntry("a", day)), s.AppendAudit(ctx, auditEntry("b", day)))
		}, run: func(ctx context.Context, s meta.Store) error {
			_, err := s.TrimAudit(ctx, day.Add(time.Hour), 10)
			return err
		}},
		{name: "MoveChannel", before: publish, run: move, again: meta.ErrFenced},
		{name: "MoveChannelOn", before: then(publish, move, other), run: func(ctx context.Context, s meta.Store) error {
			return s.MoveChannel(ctx, channel("5.0", day.Add(time.Hour)))
		}, again: meta.ErrFenced},
		{name: "RemoveChannel", before: then(publish, move), run: func(ctx context.Context, s meta.Store) error {
			return s.RemoveChannel(ctx, "stable", day.Add(time.Hour), "user 1")
		}, again: meta.ErrGone},
		{name: "SetCheckFailed", run: func(ctx context.Context, s meta.Store) error {
			return s.SetCheck(ctx, mirror, meta.Check{Checked: day, Error: "refused"})
		}},
		{name: "AppendEvent", run: stale},
		{name: "QueueDeliveries", before: then(queue, stale), run: queue},
		{name: "PutDelivery", before: then(queue, stale, queue), run: deliver},
		{name: "Redeliver", before: then(queue, stale, queue, deliver), run: func(ctx context.Context, s meta.Store) error {
			all, err := s.Deliveries(ctx, hook, 1)
			if err == nil {
				_, err = s.Redeliver(ctx, hook, all[0].Event.ID, day)
			}
			return err
		}},
		{name: "TrimEvents", before: then(queue, stale, queue, deliver), run: func(ctx context.Context, s meta.Store) error {
			_, err := s.TrimEvents(ctx, day.Add(time.Hour), 10)
			return err
		}},
		{name: "PutKits", run: func(ctx context.Context, s meta.Store) error {
			return s.PutKits(ctx, []meta.Kit{{Path: "a.iuk", Digest: digest("a")}, {Path: "b.iuk", Digest: digest("b")}})
		}},
		{name: "AddOrphans", run: candidates},
		{name: "SetNote", run: func(ctx context.Context, s meta.Store) error { return s.SetNote(ctx, "scrub.at", "here") }},
		{name: "SetEpoch", run: func(ctx context.Context, s meta.Store) error { return s.SetEpoch(ctx, "one", 7, day) }},
		{name: "SetClean", run: func(ctx context.Context, s meta.Store) error {
			_, err := s.SetClean(ctx, false)
			return err
		}},
		{name: "NameOnce", run: func(ctx context.Context, s meta.Store) error {
			_, err := s.NameOnce(ctx, "scrub.at", "first")
			return err
		}},
	}
}

// testFaults calls each method that writes, and makes each of its commits fail, with and
// without effect. If the first commit fails without effect, nothing has changed. Calling
// the method again must lead to the same state as a call without faults.
func testFaults(t *testing.T, open Opener) {
	for _, w := range writes() {
		t.Run(w.name, func(t *testing.T) {
			want, commits := w.without(t, open)
			for n := range commits {
				for _, apply := range []bool{false, true} {
					w.faulty(t, open, n, apply, want)
				}
			}
		})
	}
}

// prepared opens a store and prepares it for the method. ran counts the commits of the
// method, and fault decides which of them fail.
func (w write) prepared(t *testing.T, open Opener, fault func(n int) (bool, error)) (s meta.Store, ran *int) {
	t.Helper()
	ran = new(int)
	armed := false
	s = open(t, Options{Page: 1, Fault: func(string) (bool, error) {
		if !armed {
			return false, nil
		}
		*ran++
		return fault(*ran - 1)
	}})
	if w.before != nil {
		if err := w.before(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	armed = true
	return s, ran
}

// without calls the method without faults.
func (w write) without(t *testing.T, open Opener) (after contents, commits int) {
	t.Helper()
	s, ran := w.prepared(t, open, func(int) (bool, error) { return false, nil })
	defer closeStore(t, s)
	if err := w.run(t.Context(), s); err != nil || *ran == 0 {
		t.Fatalf("without a fault: %v, %d commits", err, *ran)
	}
	commits = *ran
	return describe(t, s), commits
}

func (w write) faulty(t *testing.T, open Opener, n int, apply bool, want contents) {
	t.Helper()
	broken := errors.New("broken")
	if apply {
		broken = fmt.Errorf("%w: broken", durable.ErrUnknown)
	}
	s, _ := w.prepared(t, open, func(i int) (bool, error) {
		if i == n {
			return apply, broken
		}
		return false, nil
	})
	defer closeStore(t, s)
	what := fmt.Sprintf("commit %d failed, applied %v", n, apply)
	before := describe(t, s)
	if err := w.run(t.Context(), s); !errors.Is(err, broken) {
		t.Errorf("%s: %v, expected the fault", what, err)
	}
	if n == 0 && !apply {
		same(t, what, before, describe(t, s))
	}
	if err := w.run(t.Context(), s); err != nil && (w.again == nil || n == 0 && !apply || !errors.Is(err, w.again)) {
		t.Errorf("%s: again: %v", what, err)
	}
	same(t, what+", and called again", want, describe(t, s))
}

// contents is what a store contains about the names that the tests use.
type contents struct {
	Notes      map[string]string
	Identity   meta.Identity
	States     []meta.MirrorState
	Snapshots  []*meta.Snapshot
	Removed    []time.Time
	Packages   map[string][]meta.Entry
	Versions   []meta.Version
	Freezes    []*meta.Frozen
	Trees      []meta.Node
	Orphans    []string
	Images     []meta.Image
	Kits       []meta.Kit
	Channels   []*meta.Channel
	Moves      []meta.ChannelMove
	Recordings []*meta.Recording
	Fetched    []meta.RecordEntry // with Count 0
	Corrupt    []meta.CorruptBlob
	Aliases    []cas.Digest
	Promised   []cas.Digest
	Candidates []cas.Digest
	Claimed    []cas.Digest
	Held       map[string][]cas.Digest
	Log        *meta.LogHead
	Tokens     []meta.Token
	Audit      []meta.AuditEntry
	Events     []meta.Event // without their random IDs and their numbers
	Deliveries []meta.Delivery
}

// describe reads the contents of a store.
func describe(t testing.TB, s meta.Store) (c contents) {
	t.Helper()
	ctx := t.Context()
	fail := failing(t)
	var err error
	c.Notes = map[string]string{}
	for _, n := range []string{"scrub.at", "led"} {
		c.Notes[n], err = s.Note(ctx, n)
		fail(err)
	}
	c.Identity, err = s.Identity(ctx)
	fail(err)
	c.States, err = s.MirrorStates(ctx, []meta.MirrorName{mirror})
	fail(err)
	c.Snapshots, err = s.SnapshotsBefore(ctx, mirror, time.Time{}, 100)
	fail(err)
	c.Removed, err = s.RemovedTimestamps(ctx, mirror)
	fail(err)
	c.Packages = map[string][]meta.Entry{}
	for _, snap := range c.Snapshots {
		c.Packages[snap.ID()], _, err = s.Packages(ctx, snap, nil, 100)
		fail(err)
	}
	versions, err := s.Versions(ctx, mirror, []string{"a", "b"})
	fail(err)
	c.Versions = slices.Concat(versions...)
	c.Freezes, err = s.Freezes(ctx)
	fail(err)
	c.Trees, err = s.TreeFiles(ctx, "4.1", "", "", 100)
	fail(err)
	c.Orphans, err = s.OrphanTrees(ctx)
	fail(err)
	c.Images, err = s.Images(ctx, "")
	fail(err)
	c.Kits, err = s.Kits(ctx)
	fail(err)
	c.describeChannels(t, s)
	c.Recordings, err = s.Recordings(ctx)
	fail(err)
	for _, r := range c.Recordings {
		entries, err := s.RecordingEntries(ctx, r.Name)
		fail(err)
		for _, e := range entries {
			e.Count = 0 // NoteFetches increments it when it is called again
			c.Fetched = append(c.Fetched, e)
		}
	}
	c.Corrupt, err = s.CorruptBlobs(ctx)
	fail(err)
	c.Aliases, err = s.Aliases(ctx, meta.AliasSHA1, [][]byte{[]byte("1"), []byte("2")})
	fail(err)
	c.Promised, _, _, err = s.PromisedBlobs(ctx, cas.Digest{}, 1000)
	fail(err)
	p, err := s.PreviewCollection(ctx, nil, day, day.Add(time.Hour), never)
	fail(err)
	c.Candidates = p.Blobs
	for _, d := range c.Candidates {
		yes, err := s.Claimed(ctx, d)
		fail(err)
		if yes {
			c.Claimed = append(c.Claimed, d)
		}
	}
	if c.Log, err = s.LogHead(ctx); err != nil && !errors.Is(err, meta.ErrNotFound) {
		t.Fatal(err)
	}
	c.Tokens, err = s.Tokens(ctx)
	fail(err)
	c.describeEvents(t, s)
	c.Held = map[string][]cas.Digest{}
	for _, kind := range "sgfrikpc" {
		held, _, err := s.HeldBlobs(ctx, byte(kind), cas.Digest{}, 1000)
		fail(err)
		c.Held[string(kind)] = held
	}
	return c
}

var pidType = reflect.TypeFor[meta.PID]()

// same compares contents. It ignores the numbers of stanzas (PIDs).
func same(t testing.TB, what string, want, got contents) {
	t.Helper()
	pids := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().Type() == pidType }, cmp.Ignore())
	if d := cmp.Diff(want, got, pids); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

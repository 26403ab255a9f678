package metatest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

func testControl(t *testing.T, open func(testing.TB) meta.Store) {
	for name, f := range map[string]func(*testing.T, meta.Store){
		"Pin": testPin, "RemoveSnapshot": testRemoveSnapshot, "Recordings": testRecordings, "Kits": testKits,
		"Tombstones": testTombstones,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer closeStore(t, s)
			f(t, s)
		})
	}
}

func testPin(t *testing.T, s meta.Store) {
	ctx := t.Context()
	one, _, _ := history(t, s)
	until := day.Add(24 * time.Hour)
	for _, want := range []*time.Time{&until, {}, nil} {
		var got *meta.Snapshot
		var err error
		if want == nil {
			got, err = s.Unpin(ctx, mirror, one.Timestamp)
		} else {
			got, err = s.Pin(ctx, mirror, one.Timestamp, *want)
		}
		one.Pinned = want
		if d := cmp.Diff(one, got); d != "" || err != nil {
			t.Errorf("pinned until %v: %v (-want +got):\n%s", want, err, d)
		}
		stored, err := s.Snapshot(ctx, mirror, one.Timestamp)
		if d := cmp.Diff(one, stored); d != "" || err != nil {
			t.Errorf("stored as pinned until %v: %v (-want +got):\n%s", want, err, d)
		}
	}
	if _, err := s.Pin(ctx, mirror, day.Add(time.Minute), until); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("pin of no snapshot: %v, expected ErrNotFound", err)
	}
	if err := s.RemoveSnapshot(ctx, mirror, one.Timestamp, true, day); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unpin(ctx, mirror, one.Timestamp); !errors.Is(err, meta.ErrGone) {
		t.Errorf("unpin of a removed snapshot: %v, expected ErrGone", err)
	}
}

// testRemoveSnapshot checks that the snapshots that RemoveSnapshot refuses to remove, and
// those that a collection keeps, are the same.
func testRemoveSnapshot(t *testing.T, s meta.Store) {
	ctx, fail := t.Context(), failing(t)
	var snaps []*meta.Snapshot
	for i := range 7 {
		snaps = append(snaps, seal(t, s, stage(t, s, binary("a", string(rune('1'+i)))), day.Add(time.Duration(i)*time.Hour)))
	}
	now := day.Add(24 * time.Hour)
	for i, until := range map[int]time.Time{0: now.Add(-time.Second), 1: now.Add(time.Second)} {
		_, err := s.Pin(ctx, mirror, snaps[i].Timestamp, until)
		fail(err)
	}
	fail(s.StartRecording(ctx, &meta.Recording{Name: "build", Started: day, Pins: []meta.RecordingPin{{Mirror: mirror, Timestamp: snaps[2].Timestamp}}}))
	f := freeze("4.1", "one")
	m := meta.FrozenMirror{Mirror: mirror, Type: "deb", Whole: true}
	for _, i := range []int{3, 5, 3} { // two states of one mirror
		m.AddSnapshot(snaps[i].Timestamp)
		m.Suites = append(m.Suites, meta.FrozenSuite{Suite: suite, Gen: snaps[i].Suites[0].Gen})
	}
	f.Mirrors = []meta.FrozenMirror{m}
	fail(s.Publish(ctx, f))
	users, err := s.Users(ctx)
	if err != nil || len(users.Freezes) != 1 || users.Freezes[0].Name != "4.1" || len(users.Recordings) != 1 || users.Recordings[0].Name != "build" {
		t.Errorf("users: %+v, %v", users, err)
	}
	for i, why := range map[int]string{1: "it is pinned", 2: "used by recording build", 3: "used by freeze 4.1", 5: "used by freeze 4.1", 6: "it is the newest of its mirror"} {
		err := s.RemoveSnapshot(ctx, mirror, snaps[i].Timestamp, true, now)
		if want := "snapshot " + snaps[i].ID() + ": in use: " + why; !errors.Is(err, meta.ErrInUse) || err.Error() != want {
			t.Errorf("remove snapshot %d: %v, expected %q", i, err, want)
		}
	}
	keep := []meta.Keep{{Mirror: mirror, Before: now}}
	p, err := s.PreviewCollection(ctx, keep, now, now, never)
	if err != nil || len(p.Snapshots) != 2 || p.Snapshots[0].ID() != snaps[4].ID() || p.Snapshots[1].ID() != snaps[0].ID() {
		t.Errorf("preview of a collection: %+v, %v, expected the first and the fifth", p, err)
	}
	fail(s.RemoveSnapshot(ctx, mirror, snaps[4].Timestamp, true, now))
	if _, err := s.Snapshot(ctx, mirror, snaps[4].Timestamp); !errors.Is(err, meta.ErrGone) {
		t.Errorf("a removed snapshot: %v, expected ErrGone", err)
	}
	if gone, err := s.RemovedTimestamps(ctx, mirror); err != nil || !slices.Equal(gone, []time.Time{snaps[4].Timestamp}) {
		t.Errorf("removed: %v, %v", gone, err)
	}
	if err := s.RemoveSnapshot(ctx, mirror, snaps[4].Timestamp, true, now); !errors.Is(err, meta.ErrGone) {
		t.Errorf("removed again: %v, expected ErrGone", err)
	}
	if err := s.RemoveRecording(ctx, "build"); !errors.Is(err, meta.ErrInUse) {
		t.Errorf("removal of a recording that is running: %v, expected ErrInUse", err)
	}
	_, err = s.StopRecording(ctx, "build", now)
	fail(err)
	fail(s.RemoveRecording(ctx, "build"))
	fail(s.RemoveFreeze(ctx, "4.1", day))
	for _, i := range []int{2, 3, 5} {
		fail(s.RemoveSnapshot(ctx, mirror, snaps[i].Timestamp, true, now))
	}
	// For a mirror that is no longer configured, the newest snapshot is removed, too.
	fail(s.RemoveSnapshot(ctx, mirror, snaps[6].Timestamp, false, now))
}

// testTombstones checks that the name of a removed freeze is never reused for other
// contents.
func testTombstones(t *testing.T, s meta.Store) {
	ctx, fail := t.Context(), failing(t)
	one, _, _ := history(t, s)
	f, other := freeze("4.1", "one"), freeze("4.1", "two")
	fail(s.Publish(ctx, f))
	removedAt := day.Add(time.Hour)
	for range 2 {
		fail(s.RemoveFreeze(ctx, "4.1", removedAt))
		// Collections and repairs keep the tombstone.
		_, err := s.CollectGenerations(ctx)
		fail(err)
		_, _, err = s.Rebuild(ctx, meta.Repairs{})
		fail(err)
		fail(s.ClearOrphanTree(ctx, "4.1", func() bool { return false }))

		want := meta.Tombstone{Name: "4.1", Manifest: f.Manifest.SHA256, Removed: removedAt}
		_, err = s.Freeze(ctx, "4.1")
		if removed, ok := errors.AsType[*meta.RemovedError](err); !ok || removed.Tombstone != want || !errors.Is(err, meta.ErrGone) || !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("a removed freeze: %v, expected one that was removed", err)
		}
		if all, err := s.Tombstones(ctx); err != nil || !slices.Equal(all, []meta.Tombstone{want}) {
			t.Errorf("tombstones: %+v, %v", all, err)
		}
		if err := s.RemoveFreeze(ctx, "4.1", day); !errors.Is(err, meta.ErrGone) {
			t.Errorf("removed again: %v, expected ErrGone", err)
		}
		if err := s.Publish(ctx, other); !errors.Is(err, meta.ErrExists) {
			t.Errorf("a different freeze with its name: %v, expected ErrExists", err)
		}
		r := &meta.Recording{Name: "4.1", Started: day, Pins: []meta.RecordingPin{{Mirror: mirror, Timestamp: one.Timestamp}}}
		if err := s.StartRecording(ctx, r); !errors.Is(err, meta.ErrTaken) {
			t.Errorf("a recording with its name: %v, expected ErrTaken", err)
		}
		fail(s.Publish(ctx, f))
		if all, err := s.Tombstones(ctx); err != nil || len(all) > 0 {
			t.Errorf("tombstones after the same freeze was published again: %+v, %v", all, err)
		}
		if got, err := s.Freeze(ctx, "4.1"); err != nil || got.Manifest != f.Manifest {
			t.Errorf("the same freeze, published again: %+v, %v", got, err)
		}
	}
}

func testRecordings(t *testing.T, s meta.Store) {
	ctx, fail := t.Context(), failing(t)
	one, two, three := history(t, s)
	fail(s.Publish(ctx, freeze("4.1", "one")))
	fail(s.RemoveSnapshot(ctx, mirror, two.Timestamp, true, day))
	rec := func(name string, at time.Time) *meta.Recording {
		return &meta.Recording{Name: name, Started: day, Pins: []meta.RecordingPin{{Mirror: mirror, Timestamp: at}}}
	}
	build := rec("build", one.Timestamp)
	fail(s.StartRecording(ctx, build))
	for _, c := range []struct {
		what string
		r    *meta.Recording
		want error
	}{
		{"with the name of a freeze", rec("4.1", one.Timestamp), meta.ErrTaken},
		{"with the name of a recording", rec("build", three.Timestamp), meta.ErrTaken},
		{"of a removed snapshot", rec("other", two.Timestamp), meta.ErrGone},
		{"of no snapshot", rec("other", day.Add(time.Minute)), meta.ErrNotFound},
	} {
		if err := s.StartRecording(ctx, c.r); !errors.Is(err, c.want) {
			t.Errorf("recording %s: %v, expected %v", c.what, err, c.want)
		}
	}
	if all, err := s.Recordings(ctx); err != nil || len(all) != 1 || cmp.Diff(build, all[0]) != "" {
		t.Errorf("recordings: %+v, %v", all, err)
	}
	stopped := day.Add(time.Hour)
	for _, at := range []time.Time{stopped, stopped.Add(time.Hour)} { // the second has no effect
		if r, err := s.StopRecording(ctx, "build", at); err != nil || !r.Stopped.Equal(stopped) {
			t.Errorf("stopped at %v: %+v, %v", at, r, err)
		}
	}
	if _, err := s.StopRecording(ctx, "other", day); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("stop of no recording: %v, expected ErrNotFound", err)
	}
	file := digest("fetched")
	_, err := s.NoteFetches(ctx, []meta.Fetch{{Recording: "build", Entry: meta.RecordEntry{Mirror: mirror, Path: "pool/a_1.deb", SHA256: file, Count: 1}}})
	fail(err)
	fail(s.RemoveRecording(ctx, "build"))
	if err := s.RemoveRecording(ctx, "build"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("removed again: %v, expected ErrNotFound", err)
	}
	if left, err := s.Referenced(ctx, []cas.Digest{file}); err != nil || len(left) > 0 {
		t.Errorf("references to entries of a removed recording: %v, %v", left, err)
	}
}

func testKits(t *testing.T, s meta.Store) {
	ctx, fail := t.Context(), failing(t)
	a, b := meta.Kit{Path: "v1/a.iuk", Digest: digest("a"), Size: 1}, meta.Kit{Path: "v1/b.iuk", Digest: digest("b"), Size: 2}
	fail(s.PutKits(ctx, []meta.Kit{b, a}))
	if kits, err := s.Kits(ctx); err != nil || !slices.Equal(kits, []meta.Kit{a, b}) {
		t.Errorf("kits: %+v, %v", kits, err)
	}
	later := meta.Kit{Path: a.Path, Digest: digest("later"), Size: 3}
	fail(s.PutKits(ctx, []meta.Kit{later}))
	if k, err := s.Kit(ctx, a.Path); err != nil || k != later {
		t.Errorf("replaced kit: %+v, %v", k, err)
	}
	if left, err := s.Referenced(ctx, []cas.Digest{a.Digest, b.Digest, later.Digest}); err != nil || !slices.Equal(left, []cas.Digest{b.Digest, later.Digest}) {
		t.Errorf("referenced: %v, %v", left, err)
	}
}

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

// channel returns the channel "stable" as it is after a move.
func channel(to string, at time.Time) *meta.Channel {
	return &meta.Channel{Name: "stable", Freeze: meta.FreezeName(to), Moved: at, By: "user 1", Key: "F1", Documents: []meta.Node{
		{Path: mirror + "/dists/stable/InRelease", Digest: digest("InRelease " + to), Size: 9, ModTime: at},
	}}
}

func testChannels(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	one, _, _ := history(t, s)
	if _, err := s.Channel(ctx, "stable"); !errors.Is(err, meta.ErrNotFound) || errors.Is(err, meta.ErrGone) {
		t.Errorf("no channel: %v, expected ErrNotFound", err)
	}
	for name, contents := range map[string]string{"4.0": "zero", "4.1": "one", "4.2": "two", "gone": "three"} {
		fail(s.Publish(ctx, freeze(name, contents)))
	}
	fail(s.RemoveFreeze(ctx, "gone", day))
	fail(s.StartRecording(ctx, &meta.Recording{Name: "build", Started: day, Pins: []meta.RecordingPin{{Mirror: mirror, Timestamp: one.Timestamp}}}))
	fail(s.MoveChannel(ctx, channel("4.0", day)))
	named := func(name string) *meta.Channel {
		c := channel("4.0", day.Add(time.Minute))
		c.Name = name
		return c
	}
	for _, c := range []struct {
		what string
		c    *meta.Channel
		want error
	}{
		{"to no freeze", channel("9", day.Add(time.Minute)), meta.ErrNotFound},
		{"to a removed freeze", channel("gone", day.Add(time.Minute)), meta.ErrGone},
		{"at the time of the last move", channel("4.1", day), meta.ErrFenced},
		{"before the last move", channel("4.1", day.Add(-time.Second)), meta.ErrFenced},
		{"with the name of a freeze", named("4.1"), meta.ErrTaken},
		{"with the name of a removed freeze", named("gone"), meta.ErrTaken},
		{"with the name of a recording", named("build"), meta.ErrTaken},
	} {
		if err := s.MoveChannel(ctx, c.c); !errors.Is(err, c.want) {
			t.Errorf("a move %s: %v, expected %v", c.what, err, c.want)
		}
	}
	hour := day.Add(time.Hour)
	fail(s.MoveChannel(ctx, channel("4.1", hour)))
	want := channel("4.1", hour)
	want.Earlier = []meta.ChannelEarlier{{Freeze: "4.0", Until: hour}}
	if got, err := s.Channel(ctx, "stable"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("channel: %v\n%s", err, cmp.Diff(want, got))
	}
	if all, err := s.Channels(ctx); err != nil || cmp.Diff([]*meta.Channel{want}, all) != "" {
		t.Errorf("channels: %v\n%s", err, cmp.Diff([]*meta.Channel{want}, all))
	}
	testChannelKeeps(t, s, hour)
	testChannelRemoved(t, s, hour.Add(8*24*time.Hour))
}

// testChannelKeeps checks which objects a channel keeps that shows 4.1, and showed 4.0
// until moved.
func testChannelKeeps(t *testing.T, s meta.Store, moved time.Time) {
	ctx, fail := t.Context(), failing(t)
	docs := []cas.Digest{digest("InRelease 4.0"), digest("InRelease 4.1")}
	if left, err := s.Referenced(ctx, docs); err != nil || !slices.Equal(left, docs[1:]) {
		t.Errorf("referenced: %v, %v, expected those of 4.1", left, err)
	}
	if held, _, err := s.HeldBlobs(ctx, meta.OwnerChannel, cas.Digest{}, 1000); err != nil || !slices.Equal(held, docs[1:]) {
		t.Errorf("held by channels: %v, %v", held, err)
	}
	if words, err := s.ReferencesInWords(ctx, docs[1], 10); err != nil || !slices.Equal(words, []string{"channel stable"}) {
		t.Errorf("references: %q, %v", words, err)
	}
	_, _, err := s.Rebuild(ctx, meta.Repairs{})
	fail(err)
	if promised, err := s.Promised(ctx, docs[1]); err != nil || !promised {
		t.Errorf("promised: %v, %v", promised, err)
	}
	if said, err := s.Contradictions(ctx); err != nil || len(said) > 0 {
		t.Errorf("contradictions: %q, %v", said, err)
	}
	if u, err := s.Users(ctx); err != nil || len(u.Channels) != 1 || u.Channels[0].Freeze != "4.1" {
		t.Errorf("users: %+v, %v", u, err)
	}
	if err := s.Publish(ctx, freeze("stable", "one")); !errors.Is(err, meta.ErrTaken) {
		t.Errorf("a freeze with the name of a channel: %v, expected ErrTaken", err)
	}
	for _, c := range []struct {
		name string
		at   time.Time
		want error
	}{
		{"4.1", moved.Add(365 * 24 * time.Hour), meta.ErrInUse}, // the channel shows it
		{"4.0", moved.Add(meta.ChannelGrace - time.Second), meta.ErrInUse},
		{"4.0", moved.Add(meta.ChannelGrace), nil},
	} {
		if err := s.RemoveFreeze(ctx, meta.FreezeName(c.name), c.at); !errors.Is(err, c.want) {
			t.Errorf("rm of %s at %s: %v, expected %v", c.name, c.at, err, c.want)
		}
	}
}

// testChannelRemoved checks the history of a channel that is moved at a time, then
// removed and made again.
func testChannelRemoved(t *testing.T, s meta.Store, at time.Time) {
	ctx, fail := t.Context(), failing(t)
	fail(s.MoveChannel(ctx, channel("4.2", at)))
	if c, err := s.Channel(ctx, "stable"); err != nil || len(c.Earlier) != 1 || c.Earlier[0].Freeze != "4.1" {
		t.Errorf("earlier, without those of more than a week ago: %+v, %v", c, err)
	}
	if err := s.RemoveChannel(ctx, "stable", at, "user 2"); !errors.Is(err, meta.ErrFenced) {
		t.Errorf("removed at the time of the last move: %v, expected ErrFenced", err)
	}
	end := at.Add(time.Hour)
	fail(s.RemoveChannel(ctx, "stable", end, "user 2"))
	for name, err := range map[string]error{
		"removed again":     s.RemoveChannel(ctx, "stable", end.Add(time.Hour), "user 2"),
		"a removed channel": func() error { _, err := s.Channel(ctx, "stable"); return err }(),
	} {
		if !errors.Is(err, meta.ErrGone) {
			t.Errorf("%s: %v, expected ErrGone", name, err)
		}
	}
	if err := s.RemoveChannel(ctx, "testing", end, ""); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("rm of no channel: %v, expected ErrNotFound", err)
	}
	r := &meta.Recording{Name: "stable", Started: day}
	if err := s.StartRecording(ctx, r); !errors.Is(err, meta.ErrTaken) {
		t.Errorf("a recording with the name of a removed channel: %v, expected ErrTaken", err)
	}
	if all, err := s.Channels(ctx); err != nil || len(all) > 0 {
		t.Errorf("channels after the last was removed: %+v, %v", all, err)
	}
	fail(s.RemoveFreeze(ctx, "4.2", end)) // no channel shows it
	if err := s.MoveChannel(ctx, channel("4.1", end)); !errors.Is(err, meta.ErrFenced) {
		t.Errorf("made again at the time of its removal: %v, expected ErrFenced", err)
	}
	fail(s.MoveChannel(ctx, channel("4.1", end.Add(time.Second))))
	var moves []meta.ChannelMove
	for before := (time.Time{}); ; {
		page, err := s.ChannelMoves(ctx, "stable", before, 2)
		fail(err)
		if len(page) == 0 {
			break
		}
		moves, before = append(moves, page...), page[len(page)-1].Moved
	}
	want := []meta.ChannelMove{
		{Channel: "stable", Freeze: "4.1", Moved: end.Add(time.Second), By: "user 1"},
		{Channel: "stable", From: "4.2", Moved: end, By: "user 2"},
		{Channel: "stable", Freeze: "4.2", From: "4.1", Moved: at, By: "user 1"},
		{Channel: "stable", Freeze: "4.1", From: "4.0", Moved: day.Add(time.Hour), By: "user 1"},
		{Channel: "stable", Freeze: "4.0", Moved: day, By: "user 1"},
	}
	if d := cmp.Diff(want, moves); d != "" {
		t.Errorf("moves (-want +got):\n%s", d)
	}
}

// describeChannels reads all channels, and the moves of one.
func (c *contents) describeChannels(t testing.TB, s meta.Store) {
	t.Helper()
	fail := failing(t)
	var err error
	c.Channels, err = s.Channels(t.Context())
	fail(err)
	c.Moves, err = s.ChannelMoves(t.Context(), "stable", time.Time{}, 100)
	fail(err)
}

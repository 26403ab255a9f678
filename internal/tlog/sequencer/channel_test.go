package sequencer_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/tlog/sequencer"
)

func moved(to string, at time.Time) *meta.Channel {
	return &meta.Channel{Name: "stable", Freeze: meta.FreezeName(to), Moved: at, By: "user 1"}
}

// Moves and removals of channels are logged, and refused ones are not.
func TestChannelLogged(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir, nil)
	defer s.Close()
	l := openLog(t, s, key(t, dir), nil)
	st := l.Logged(s)
	for i, f := range []func() error{
		func() error { return st.Publish(ctx, record("4.0", "zero", day)) },
		func() error { return st.Publish(ctx, record("4.1", "one", day)) },
		func() error { return st.MoveChannel(ctx, moved("4.0", day)) },
		func() error { return st.MoveChannel(ctx, moved("4.1", day.Add(time.Second))) },
	} {
		if err := f(); err != nil {
			t.Fatal(i, err)
		}
	}
	for what, c := range map[string]struct{ err, want error }{
		"a move at the same time":  {st.MoveChannel(ctx, moved("4.0", day.Add(time.Second))), meta.ErrFenced},
		"a move to no freeze":      {st.MoveChannel(ctx, moved("9", day.Add(time.Minute))), meta.ErrNotFound},
		"rm of no channel":         {st.RemoveChannel(ctx, "testing", day, ""), meta.ErrNotFound},
		"rm of a freeze":           {st.RemoveFreeze(ctx, "4.1", day.Add(time.Hour)), meta.ErrInUse},
		"rm of the freeze before":  {st.RemoveFreeze(ctx, "4.0", day.Add(time.Hour)), meta.ErrInUse},
		"a channel's name, frozen": {st.Publish(ctx, record("stable", "x", day)), meta.ErrTaken},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, expected %v", what, c.err, c.want)
		}
	}
	words := []string{`snapd/key/v1`, `snapd/frozen/v1 "4.0"`, `snapd/frozen/v1 "4.1"`, `snapd/channel/v1 "freeze":"4.0" 20261122T160000Z "stable"`, `snapd/channel/v1 "freeze":"4.1" 20261122T160001Z`}
	expect(t, l, words...)
	if err := st.RemoveChannel(ctx, "stable", day.Add(time.Minute), "user 1"); err != nil {
		t.Fatal(err)
	}
	words = append(words, `snapd/removed/v1 "channel" "stable"`)
	expect(t, l, words...)
	if err := st.MoveChannel(ctx, moved("4.0", day.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	words = append(words, `snapd/channel/v1 "freeze":"4.0" 20261122T170000Z`)
	expect(t, l, words...)
}

// Each write of a move or a removal fails, without or with effect, and then snapd starts
// again. The last entry about the channel records what it shows.
func TestChannelFaults(t *testing.T) {
	steps := map[string]func(st meta.Mover) error{
		"first":  func(st meta.Mover) error { return st.MoveChannel(t.Context(), moved("4.1", day)) },
		"second": func(st meta.Mover) error { return st.MoveChannel(t.Context(), moved("4.1", day.Add(time.Hour))) },
		"rm":     func(st meta.Mover) error { return st.RemoveChannel(t.Context(), "stable", day.Add(time.Hour), "") },
		"again":  func(st meta.Mover) error { return st.MoveChannel(t.Context(), moved("4.1", day.Add(time.Hour))) },
	}
	for name, step := range steps {
		for fail := range 3 {
			for _, apply := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, write %d, effect %v", name, fail, apply), func(t *testing.T) {
					channelFault(t, name, step, fail, apply)
				})
			}
		}
	}
}

func channelFault(t *testing.T, name string, step func(meta.Mover) error, fail int, apply bool) {
	ctx, dir := t.Context(), t.TempDir()
	k := key(t, dir)
	armed, count := false, 0
	s := openStore(t, dir, func(string) (bool, error) {
		if !armed {
			return false, nil
		}
		if count++; count-1 == fail {
			return apply, errors.New("power cut")
		}
		return false, nil
	})
	prepare := func(s *bolt.Store) error {
		st := openLog(t, s, k, nil).Logged(s)
		err := errors.Join(st.Publish(ctx, record("4.0", "zero", day)), st.Publish(ctx, record("4.1", "one", day)))
		if name != "first" {
			err = errors.Join(err, st.MoveChannel(ctx, moved("4.0", day)))
		}
		if name == "again" {
			err = errors.Join(err, st.RemoveChannel(ctx, "stable", day.Add(time.Minute), ""))
		}
		return err
	}
	if err := prepare(s); err != nil {
		t.Fatal(err)
	}
	armed = true
	err := step(openLog(t, s, k, nil).Logged(s))
	if err == nil && count > fail {
		t.Error("the fault was not reported")
	}
	armed = false
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, nil)
	defer s.Close()
	l, err := sequencer.Open(ctx, sequencer.Config{Store: s, Signer: k})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Logged(s).Recover(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	ch, err := s.Channel(ctx, "stable")
	all := lines(t, l)
	var want string
	switch {
	case err == nil:
		want = fmt.Sprintf(`{"freeze":%q,"name":"stable","t":"snapd/channel/v1","timestamp":%q}`, ch.Freeze, meta.FormatTimestamp(ch.Moved))
	case errors.Is(err, meta.ErrGone):
		want = `"kind":"channel","name":"stable","t":"snapd/removed/v1"`
	case errors.Is(err, meta.ErrNotFound) && len(all) == 3:
		return // nothing was said about it
	default:
		want = `"kind":"channel","name":"stable","t":"snapd/removed/v1","unfinished":true`
	}
	n, err := s.LogNamed(ctx, []string{"channel\x00stable"})
	if err != nil || n[0] < 0 || !strings.Contains(all[n[0]], want) {
		t.Errorf("the last entry about the channel is %d of %q, %v; expected %s", n, all, err, want)
	}
}

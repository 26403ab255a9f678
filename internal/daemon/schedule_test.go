package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// ticks runs a task of a scheduler for some time, as one run of the daemon
// does, and tells when it ran, counted from the start.
func ticks(t *testing.T, file string, length time.Duration, run func(ctx context.Context) error) (out []time.Duration) {
	t.Helper()
	st, err := bolt.Open(file, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s := newScheduler(&daemon{store: st, log: slog.New(slog.DiscardHandler), o: Options{Now: time.Now}})
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	start := time.Now()
	s.every(ctx, task{"scrub", 30 * 24 * time.Hour, func(ctx context.Context) error {
		out = append(out, time.Since(start).Round(time.Hour))
		return run(ctx)
	}})
	return out
}

// Periodic work runs once a period, counted over restarts; one that was
// interrupted, or failed, is not put off until the next period.
func TestPeriodic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		file := filepath.Join(t.TempDir(), "meta.db")
		fine := func(context.Context) error { return nil }
		got := ticks(t, file, 70*day, fine)
		if len(got) != 3 || got[0] != 0 || got[1] < 28*day || got[1] > 32*day {
			t.Errorf("runs at %v, expected them a month apart", got)
		}
		// It ran at most a month ago: not at each start.
		for range 3 {
			if got := ticks(t, file, day, fine); len(got) != 0 {
				t.Errorf("runs soon after a restart: %v", got)
			}
		}
		time.Sleep(31 * day)
		long := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		for range 3 {
			if got := ticks(t, file, day, long); !slices.Equal(got, []time.Duration{0}) {
				t.Errorf("what was interrupted runs at %v, expected at the start", got)
			}
		}
		fails := 0
		got = ticks(t, file, 10*day, func(context.Context) error {
			if fails++; fails < 3 {
				return errors.New("no space left on device")
			}
			return nil
		})
		if len(got) != 3 || got[2] > 4*day {
			t.Errorf("what failed twice runs at %v, expected some hours apart, then not", got)
		}
	})
}

// What was noted while the clock was ten years ahead puts work off by one interval,
// not by ten years.
func TestScheduleAfterClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		file := filepath.Join(t.TempDir(), "meta.db")
		st, err := bolt.Open(file, bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = st.SetNote(t.Context(), "last.scrub", time.Now().AddDate(10, 0, 0).UTC().Format(time.RFC3339))
		if err := errors.Join(err, st.Close()); err != nil {
			t.Fatal(err)
		}
		got := ticks(t, file, 70*day, func(context.Context) error { return nil })
		if len(got) != 2 || got[0] > 31*day {
			t.Errorf("runs at %v, expected them a month apart", got)
		}
	})
	a, url := upstream(t)
	cfg := testConfig(t, mirrorText(a, "debian", url, `interval = "6h"`))
	start(t, cfg).end()
	st := openTestStore(t, cfg)
	err := st.SetCheck(t.Context(), "debian", meta.Check{Checked: time.Now().AddDate(10, 0, 0)})
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	for range 100 {
		if r.status().Mirrors[0].NextSync != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if next := r.status().Mirrors[0].NextSync; next == nil || time.Until(*next) > 6*time.Hour {
		t.Errorf("next sync at %v, expected it within 6 hours", next)
	}
}

// A mirror that was never checked is due now, not in the year 1.
func TestFirstDue(t *testing.T) {
	now := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	for _, c := range []struct{ last, want time.Time }{
		{time.Time{}, now},
		{now.Add(-7 * time.Hour), now},
		{now.Add(-time.Hour), now.Add(5 * time.Hour)},
		{now.AddDate(10, 0, 0), now.Add(6 * time.Hour)},
	} {
		if got := firstDue(c.last, 6*time.Hour, now); !got.Equal(c.want) {
			t.Errorf("last at %v: due at %v, expected %v", c.last, got, c.want)
		}
	}
}

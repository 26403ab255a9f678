package iuk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/needs"
)

// noSync replaces flushing in tests of killed processes, which lose no data of the
// kernel: thousands of flushes would take minutes.
func noSync(*os.File) error { return nil }

// point is a step of Apply at which it can be interrupted.
type point struct {
	op, name string
	done     bool
}

// record runs do and returns all its points in order.
func record(t *testing.T, do func(ApplyOptions) error) []point {
	t.Helper()
	var all []point
	err := do(ApplyOptions{syncfs: noSync, fault: func(op, name string, done bool) error {
		all = append(all, point{op, name, done})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var errCrash = errors.New("crash")

// crashed interrupts at the n-th point. As after a kill, no later step has an effect.
func crashed(n int) ApplyOptions {
	i := -1
	return ApplyOptions{syncfs: noSync, fault: func(string, string, bool) error {
		if i++; i >= n {
			return errCrash
		}
		return nil
	}}
}

func crashAt(t *testing.T, dir string, at point, do func(ApplyOptions) error) {
	t.Helper()
	dead := false
	err := do(ApplyOptions{syncfs: noSync, fault: func(op, name string, done bool) error {
		if dead = dead || at == (point{op, name, done}); dead {
			return errCrash
		}
		return nil
	}})
	if !errors.Is(err, errCrash) {
		t.Fatalf("crash at %+v in %s: %v", at, dir, err)
	}
}

// journalPoints returns the number of points before the journal is in effect, and before
// it is removed.
func journalPoints(points []point) (committed, finished int) {
	for i, p := range points {
		switch p {
		case point{"rename", journalFile, true}:
			committed = i
		case point{"remove", journalFile, true}:
			finished = i
		}
	}
	return committed, finished
}

// TestCrashes interrupts Apply at each point, and checks that Apply completes and
// Rollback restores, and that only the journal determines the state.
func TestCrashes(t *testing.T) {
	oldState, newState := contents(exampleTarget()), wantNew()
	apply := func(dir string, o ApplyOptions) error {
		_, err := applyFS(t.Context(), exampleKit(), dir, o)
		return err
	}
	points := record(t, func(o ApplyOptions) error { return apply(newTarget(t), o) })
	committed, finished := journalPoints(points)
	if committed < 10 || finished < committed+10 {
		t.Fatalf("journal from %d to %d of %d points", committed, finished, len(points))
	}
	for n, p := range points {
		name := fmt.Sprintf("%d-%s-%s-%v", n, p.op, strings.ReplaceAll(p.name, "/", "_"), p.done)
		t.Run(name, func(t *testing.T) {
			for _, recovery := range []string{"apply", "rollback"} {
				dir := newTarget(t)
				if err := apply(dir, crashed(n)); !errors.Is(err, errCrash) {
					t.Fatalf("expected the crash, found %v", err)
				} else if !errors.Is(err, ErrUnfinished) && n >= committed {
					t.Errorf("error after the journal does not say so: %v", err)
				}
				visible := tree(t, dir)
				maps.DeleteFunc(visible, func(p, _ string) bool { return strings.HasPrefix(p, stateDir+"/") })
				switch {
				case n < committed:
					if d := cmp.Diff(oldState, visible); d != "" {
						t.Errorf("before the journal (-want +got):\n%s", d)
					}
				case n >= finished:
					if d := cmp.Diff(newState, visible); d != "" {
						t.Errorf("after the journal (-want +got):\n%s", d)
					}
				}
				if recovery == "apply" {
					if err := apply(dir, ApplyOptions{syncfs: noSync}); err != nil {
						t.Fatal(err)
					}
					wantTree(t, dir, "completed", newState)
					continue
				}
				_, err := Rollback(t.Context(), dir, ApplyOptions{syncfs: noSync})
				switch {
				case n >= finished:
					if err != nil && !errors.Is(err, ErrNoUpgrade) {
						t.Fatal(err)
					}
					wantTree(t, dir, "complete before", newState)
				case err != nil && !errors.Is(err, ErrNoUpgrade):
					t.Fatal(err)
				case err != nil && n > committed:
					t.Error(err)
				default:
					wantTree(t, dir, "rolled back", oldState)
				}
			}
		})
	}
}

// TestSecondCrash also interrupts the recovery at each point, and then recovers in
// either direction.
func TestSecondCrash(t *testing.T) {
	oldState, newState := contents(exampleTarget()), wantNew()
	apply := func(dir string, o ApplyOptions) error {
		_, err := applyFS(t.Context(), exampleKit(), dir, o)
		return err
	}
	rollback := func(dir string, o ApplyOptions) error {
		_, err := Rollback(t.Context(), dir, o)
		return err
	}
	points := record(t, func(o ApplyOptions) error { return apply(newTarget(t), o) })
	committed, finished := journalPoints(points)
	step := 3 // a sample; all of them take a minute
	switch {
	case needs.InCI():
		step = 2
	case testing.Short():
		step = 13
	}
	for n := committed + 1; n < finished; n += step {
		for first, recover := range map[string]func(string, ApplyOptions) error{"apply": apply, "rollback": rollback} {
			start := func() string {
				dir := newTarget(t)
				if err := apply(dir, crashed(n)); !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
				return dir
			}
			again := record(t, func(o ApplyOptions) error { return recover(start(), o) })
			_, gone := journalPoints(again)
			for m := 0; m < gone; m += (step + 1) / 2 {
				for second, finish := range map[string]func(string, ApplyOptions) error{"apply": apply, "rollback": rollback} {
					dir := start()
					if err := recover(dir, crashed(m)); !errors.Is(err, errCrash) {
						t.Fatal(err)
					}
					if err := finish(dir, ApplyOptions{syncfs: noSync}); err != nil {
						t.Fatalf("apply stopped at %v, %s at %v, then %s: %v", points[n], first, again[m], second, err)
					}
					want := newState
					if second == "rollback" {
						want = oldState
					}
					if d := cmp.Diff(want, tree(t, dir)); d != "" {
						t.Fatalf("apply stopped at %v, %s at %v, then %s (-want +got):\n%s", points[n], first, again[m], second, d)
					}
					os.RemoveAll(dir)
				}
			}
		}
	}
}

// TestFailedSteps makes single steps fail, with or without effect. Later steps may clean
// up.
func TestFailedSteps(t *testing.T) {
	oldState, newState := contents(exampleTarget()), wantNew()
	points := record(t, func(o ApplyOptions) error {
		_, err := applyFS(t.Context(), exampleKit(), newTarget(t), o)
		return err
	})
	for n, p := range points {
		dir := newTarget(t)
		i := -1
		_, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{syncfs: noSync, fault: func(string, string, bool) error {
			if i++; i == n {
				return unix.EIO
			}
			return nil
		}})
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("%+v: %v", p, err)
		}
		if !errors.Is(err, ErrUnfinished) {
			wantTree(t, dir, fmt.Sprintf("%+v failed and nothing is unfinished", p), oldState)
		}
		if _, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{syncfs: noSync}); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		wantTree(t, dir, fmt.Sprintf("apply after %+v failed", p), newState)
	}
}

// TestLostAndDamaged simulates what a power cut can do to renames on FAT. Apply replaces
// lost files from the kit, Rollback names those that it cannot restore.
func TestLostAndDamaged(t *testing.T) {
	stop := func(t *testing.T) string {
		dir := newTarget(t)
		crashAt(t, dir, point{"rename", "live/vmlinuz", true}, func(o ApplyOptions) error {
			_, err := applyFS(t.Context(), exampleKit(), dir, o)
			return err
		})
		return dir
	}
	t.Run("kernel and initrd lost, diff cut", func(t *testing.T) {
		dir := stop(t)
		for _, p := range []string{"live/vmlinuz", "live/initrd.img"} {
			if err := os.Remove(filepath.Join(dir, p)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(filepath.Join(dir, "live/6.9.squashfs"), 3); err != nil {
			t.Fatal(err)
		}
		if _, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		wantTree(t, dir, "completed", wantNew())
	})
	t.Run("rollback", func(t *testing.T) {
		dir := stop(t)
		if err := os.Remove(filepath.Join(dir, "live/vmlinuz")); err != nil {
			t.Fatal(err)
		}
		if _, err := Rollback(t.Context(), dir, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		wantTree(t, dir, "restored", contents(exampleTarget()))
	})
	t.Run("backup lost", func(t *testing.T) {
		dir := stop(t)
		if err := os.RemoveAll(filepath.Join(dir, backupDir)); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		_, err := Rollback(t.Context(), dir, ApplyOptions{})
		if want := "roll back: old copy of EFI/BOOT/grub.cfg is lost or damaged: journal on target is damaged: upgrade is unfinished"; err == nil || err.Error() != want {
			t.Errorf("expected %q, found %v", want, err)
		}
		wantTree(t, dir, "untouched", before)
	})
	t.Run("journal damaged", func(t *testing.T) {
		dir := stop(t)
		p := filepath.Join(dir, journalFile)
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, damaged := range [][]byte{nil, b[:len(b)/2], bytes.Replace(b, []byte("vmlinuz"), []byte("vmlinux"), 1)} {
			if err := os.WriteFile(p, damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			before := tree(t, dir)
			if _, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{}); !errors.Is(err, ErrJournal) {
				t.Errorf("apply: %v", err)
			}
			if _, err := Rollback(t.Context(), dir, ApplyOptions{}); !errors.Is(err, ErrJournal) {
				t.Errorf("rollback: %v", err)
			}
			wantTree(t, dir, "untouched", before)
		}
	})
	t.Run("kit changed", func(t *testing.T) {
		dir := stop(t)
		if err := os.Remove(filepath.Join(dir, "live/vmlinuz")); err != nil {
			t.Fatal(err)
		}
		kit := exampleKit()
		kit["overlay/live/vmlinuz"] = text("kernel x.x") // same size: the same kit by its shape
		_, err := applyFS(t.Context(), kit, dir, ApplyOptions{})
		if !errors.Is(err, ErrKit) || !errors.Is(err, ErrUnfinished) {
			t.Errorf("expected %v, found %v", ErrKit, err)
		}
	})
}

func TestCancelledApply(t *testing.T) {
	dir := newTarget(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := applyFS(ctx, exampleKit(), dir, ApplyOptions{syncfs: noSync, fault: func(op, name string, done bool) error {
		if op == "write" && name == slot(stagedDir, 2) {
			cancel()
		}
		return nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("expected %v, found %v", context.Canceled, err)
	}
	wantTree(t, dir, "target", contents(exampleTarget()))
}

// TestKilled kills a real process at each point.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("IUK_TEST_TARGET"); dir != "" {
		n, _ := strconv.Atoi(os.Getenv("IUK_TEST_POINT"))
		_, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{syncfs: noSync, fault: func(string, string, bool) error {
			if n--; n < 0 {
				syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
				select {}
			}
			return nil
		}})
		t.Fatalf("not killed: %v", err)
	}
	points := record(t, func(o ApplyOptions) error {
		_, err := applyFS(t.Context(), exampleKit(), newTarget(t), o)
		return err
	})
	committed, finished := journalPoints(points)
	step := 2 // the points of one step; the other one is for the next kill
	if testing.Short() {
		step = 11
	}
	for n := 0; n < len(points); n += step {
		for i, recovery := range []string{"apply", "rollback"} {
			at := min(n+i, len(points)-1)
			dir := newTarget(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), "IUK_TEST_TARGET="+dir, "IUK_TEST_POINT="+strconv.Itoa(at))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("point %d: %v\n%s", at, err, out)
			}
			want := wantNew()
			if recovery == "apply" {
				_, err = applyFS(t.Context(), exampleKit(), dir, ApplyOptions{syncfs: noSync})
			} else {
				_, err = Rollback(t.Context(), dir, ApplyOptions{syncfs: noSync})
				if at < finished {
					want = contents(exampleTarget())
				}
				if errors.Is(err, ErrNoUpgrade) && (at < committed || at >= finished) {
					err = nil
				}
			}
			if err != nil {
				t.Fatalf("%s after a kill at %+v: %v", recovery, points[at], err)
			}
			wantTree(t, dir, fmt.Sprintf("%s after a kill at %+v", recovery, points[at]), want)
		}
	}
}

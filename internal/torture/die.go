package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/sign"
)

// deathEnv tells a process of this program to die in the middle of a job.
const deathEnv = "SNAPD_TORTURE_DEATH"

// death is what such a process does.
type death struct {
	Dir      string
	URL      string // of upstream
	Keyring  string // file
	Key      string // file
	Exported string
	Now      time.Time
	Job      int
	Step     int
	After    bool // the write took effect
}

// dieIfAsked does the job and kills this process at the write.
func dieIfAsked() {
	text := os.Getenv(deathEnv)
	if text == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "did not die:", func() error {
		var d death
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return err
		}
		signer, err := sign.LoadSigner(d.Key)
		if err != nil {
			return err
		}
		s := &system{dir: d.Dir, mirrors: mirrors(d.URL, d.Keyring, tableKeep), signer: signer, now: d.Now}
		n, last := 0, d.Step
		if d.After {
			last++ // the next write is the first that is not made
		}
		s.fault = func(string, string) (bool, error) {
			if n++; n-1 == last {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return false, nil
		}
		if err := s.open(); err != nil {
			return err
		}
		if err := jobs(d.Exported)[d.Job].do(context.Background(), s, nil); err != nil {
			return err
		}
		// There was no next write: the end of the work is as good.
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}())
	os.Exit(1)
}

// dies lets a process of its own do a job and die at a write, then recovers.
func (t *faultTable) dies(ctx context.Context, job, step int, after bool, key string) error {
	dir, err := os.MkdirTemp(t.tmp, "death")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := t.lay(job, dir); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	spec, err := json.Marshal(death{
		Dir: dir, URL: t.u.srv.URL, Keyring: t.u.KeyringFile(), Key: key, Exported: filepath.Join(t.tmp, "exported"),
		Now: t.now[job], Job: job, Step: step, After: after,
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), deathEnv+"="+string(spec))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s: killed at write %d: the process ended otherwise: %v\n%s", t.jobs[job].name, step, err, out)
	}
	if err := t.recover(ctx, job, dir, errors.New("killed")); err != nil {
		return fmt.Errorf("%s: killed at write %d of %d (after it: %v): %w", t.jobs[job].name, step, t.steps[job], after, err)
	}
	return nil
}

// deaths does every n-th row as the death of a process.
func (t *faultTable) deaths(ctx context.Context, every int, report func(error)) (rows int, err error) {
	k, err := sign.Generate("freezer", "", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), sign.GenerateOptions{})
	if err != nil {
		return 0, err
	}
	key := filepath.Join(t.tmp, "key.asc")
	if err := os.WriteFile(key, k.Armored(), 0o600); err != nil {
		return 0, err
	}
	if t.signer, err = sign.LoadSigner(key); err != nil {
		return 0, err
	}
	var eg errgroup.Group
	eg.SetLimit(3)
	for i := range t.jobs {
		for step := range t.steps[i] {
			if (step+3*i)%every != 0 {
				continue
			}
			rows++
			eg.Go(func() error {
				if err := t.dies(ctx, i, step, step%2 == 1, key); err != nil {
					report(err)
				}
				return nil
			})
		}
	}
	_ = eg.Wait()
	return rows, nil
}

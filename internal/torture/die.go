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

// deathEnv contains a death as JSON. It makes this program do a job and kill itself.
const deathEnv = "SNAPD_TORTURE_DEATH"

// death describes a job during which the process kills itself.
type death struct {
	Dir      string
	Sites    sites
	Key      string // file
	Exported string
	Now      time.Time
	Job      int
	Step     int // number of writes before the process kills itself
}

// dieIfAsked does the job in deathEnv, if that is set, and kills this process at the
// given write.
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
		s := &system{dir: d.Dir, mirrors: d.Sites.all(tableKeep), signer: signer, now: d.Now}
		n := 0
		s.fault = func(string, string) (bool, error) {
			if n++; n-1 == d.Step {
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
		// Step is the number of all writes: die after the last.
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}())
	os.Exit(1)
}

// dies runs a job in a separate process that kills itself at a write, and then recovers.
func (t *faultTable) dies(ctx context.Context, job, step int, key string) error {
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
		Dir: dir, Sites: t.u.sites(), Key: key, Exported: filepath.Join(t.tmp, "exported"), Now: t.now[job], Job: job, Step: step,
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), deathEnv+"="+string(spec))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s: killed before write %d: the process was not killed: %v\n%s", t.jobs[job].name, step, err, out)
	}
	if err := t.recover(ctx, job, dir, errors.New("killed")); err != nil {
		return fmt.Errorf("%s: killed before write %d of %d: %w", t.jobs[job].name, step, t.steps[job], err)
	}
	return nil
}

// deaths kills a process at every n-th point: before the first write of a job, between
// two writes, and after the last.
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
		for step := range t.steps[i] + 1 {
			if (step+3*i)%every != 0 {
				continue
			}
			rows++
			eg.Go(func() error {
				if err := t.dies(ctx, i, step, key); err != nil {
					report(err)
				}
				return nil
			})
		}
	}
	_ = eg.Wait()
	return rows, nil
}

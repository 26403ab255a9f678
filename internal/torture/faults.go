package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/sign"
)

// job is an operation. Each of its writes is made to fail once.
type job struct {
	name string
	do   func(ctx context.Context, s *system, u *upstream) error
	// frozen lists the freezes that exist once the job has succeeded.
	frozen []string
}

// jobs returns the jobs, which run one after the other on one data directory. Each can be
// repeated.
func jobs(exported string) []job {
	list := func(lines string) []api.ManifestFile {
		return []api.ManifestFile{{Name: "build.list", Data: []byte(lines)}}
	}
	return []job{
		{name: "sync", do: func(ctx context.Context, s *system, _ *upstream) error { return s.sync(ctx, "debian") }},
		{name: "sync lazy", do: func(ctx context.Context, s *system, _ *upstream) error { return s.sync(ctx, "lazy") }},
		{name: "sync rpm", do: func(ctx context.Context, s *system, _ *upstream) error { return s.sync(ctx, "fedora") }},
		{name: "freeze", frozen: []string{"exact", "whole", "rpms", "both"}, do: func(ctx context.Context, s *system, _ *upstream) error {
			return errors.Join(
				s.freeze(ctx, api.FreezeRequest{Name: "exact", Mirrors: []string{"lazy"}, Manifests: list("alpha=1\nbeta=1\n"), Format: "list"}),
				s.freeze(ctx, api.FreezeRequest{Name: "whole", Mirrors: []string{"debian"}}),
				s.freeze(ctx, api.FreezeRequest{Name: "rpms", Mirrors: []string{"fedora"}, Packages: []string{"alpha", "beta"}}),
				s.freeze(ctx, api.FreezeRequest{Name: "both", Mirrors: []string{"debian", "fedora"}}),
			)
		}},
		{name: "sync again", do: func(ctx context.Context, s *system, u *upstream) error {
			return errors.Join(s.sync(ctx, "debian"), s.sync(ctx, "lazy"), s.sync(ctx, "fedora"))
		}},
		{name: "record", frozen: []string{"recorded"}, do: func(ctx context.Context, s *system, _ *upstream) error {
			if err := s.record(ctx, "recorded", "gamma", "delta"); err != nil {
				return err
			}
			return s.freeze(ctx, api.FreezeRequest{Name: "recorded"})
		}},
		{name: "channel", do: func(ctx context.Context, s *system, _ *upstream) error {
			return errors.Join(
				s.call(ctx, "channel/set", api.ChannelSet{Name: "stable", Freeze: "whole", AllowMissing: true}),
				s.call(ctx, "channel/set", api.ChannelSet{Name: "stable", Freeze: "both"}),
			)
		}},
		{name: "import", frozen: []string{"imported"}, do: func(ctx context.Context, s *system, _ *upstream) error {
			_, err := s.freezer.Import(ctx, &api.ImportRequest{Dir: exported}, nil)
			return err
		}},
		{name: "rm", do: func(ctx context.Context, s *system, _ *upstream) error {
			err := s.call(ctx, "rm", api.RefRequest{Ref: "exact"})
			if gone(err) {
				err = nil // the first attempt succeeded
			}
			return err
		}},
		{name: "gc", do: func(ctx context.Context, s *system, _ *upstream) error {
			s.now = s.now.Add(48 * time.Hour) // longer than keep
			return s.collect(ctx)
		}},
	}
}

// tableKeep is how long snapshots are kept in a fault table.
const tableKeep = 24 * time.Hour

// faultTable makes each write of each job fail. It contains copies of the state before
// each job.
type faultTable struct {
	u      *upstream
	signer *sign.Signer
	jobs   []job
	before []string         // a copy of the data directory before each job
	now    []time.Time      // the clock before each job
	steps  []int            // writes of each job
	names  []map[string]int // writes of each job by kind
	frozen [][]string       // freezes that exist before each job
	tmp    string
}

// newFaultTable does all jobs once without faults, and counts their writes.
func newFaultTable(ctx context.Context, tb testing.TB, signer *sign.Signer) (*faultTable, error) {
	date := time.Now().UTC().Truncate(time.Second).Add(-24 * time.Hour)
	t := &faultTable{u: newUpstream(tb, date), signer: signer, tmp: fastDir(tb)}
	exported := filepath.Join(t.tmp, "exported")
	if err := t.export(ctx, exported); err != nil {
		return nil, fmt.Errorf("make an export: %w", err)
	}
	t.jobs = jobs(exported)
	s := t.system(filepath.Join(t.tmp, "clean"), date.Add(time.Hour))
	var frozen []string
	for i, j := range t.jobs {
		if j.name == "sync again" {
			t.u.upgrade("alpha", "epsilon")
		}
		before := filepath.Join(t.tmp, fmt.Sprint("before", i))
		if err := os.CopyFS(before, os.DirFS(s.dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		t.before, t.now = append(t.before, before), append(t.now, s.now)
		t.frozen = append(t.frozen, slices.Clone(frozen))
		n, names := 0, map[string]int{}
		s.fault = func(where, what string) (bool, error) { n++; names[where+" "+what]++; return false, nil }
		if err := s.open(); err != nil {
			return nil, err
		}
		if err := j.do(ctx, s, t.u); err != nil {
			return nil, fmt.Errorf("%s without faults: %w", j.name, err)
		}
		t.steps, t.names = append(t.steps, n), append(t.names, maps.Clone(names))
		frozen = append(frozen, j.frozen...)
		if j.name == "rm" {
			frozen = slices.DeleteFunc(frozen, func(n string) bool { return n == "exact" })
		}
		if _, err := s.check(ctx); err != nil {
			return nil, fmt.Errorf("%s without faults: %w", j.name, err)
		}
		s.close()
	}
	return t, nil
}

func (t *faultTable) system(dir string, now time.Time) *system {
	return &system{dir: dir, mirrors: t.u.sites().all(tableKeep), signer: t.signer, now: now}
}

// export exports a freeze from another system into dir, for the import job.
func (t *faultTable) export(ctx context.Context, dir string) error {
	s := t.system(filepath.Join(t.tmp, "other"), t.u.date.Add(time.Hour))
	if err := s.open(); err != nil {
		return err
	}
	defer s.close()
	if err := errors.Join(s.sync(ctx, "debian"), s.sync(ctx, "fedora")); err != nil {
		return err
	}
	if err := s.freeze(ctx, api.FreezeRequest{Name: "imported", Mirrors: []string{"debian", "fedora"}, Manifests: []api.ManifestFile{
		{Name: "build.list", Data: []byte("beta=1\ngamma=1\n")}, {Name: "rpm-qa", Data: []byte("beta-1.0-1.noarch\ngamma-1.0-1.noarch\n")},
	}}); err != nil {
		return err
	}
	_, err := s.freezer.Export(ctx, "imported", dir, nil)
	return err
}

// total returns the number of rows. There are two for each write: it fails without
// effect, and it takes effect but reports an error.
func (t *faultTable) total() (n int) {
	for _, s := range t.steps {
		n += 2 * s
	}
	return n
}

var errInjected = errors.New("injected fault")

// row makes one write of one job fail and checks that nothing is lost. With apply the
// write takes effect nevertheless.
func (t *faultTable) row(ctx context.Context, job, step int, apply bool) (err error) {
	j := t.jobs[job]
	var what string
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: write %d of %d (%s), took effect: %v: %w", j.name, step, t.steps[job], what, apply, err)
		}
	}()
	dir, err := os.MkdirTemp(t.tmp, "row")
	if err != nil {
		return err
	}
	if err := t.lay(job, dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := t.system(dir, t.now[job])
	n := 0
	s.fault = func(where, op string) (bool, error) {
		n++
		if n-1 == step {
			what = where + " " + op
			return apply, errInjected
		}
		return false, nil
	}
	failed := s.open()
	if failed == nil {
		failed = j.do(ctx, s, t.u)
		s.close()
	}
	if what == "" {
		return fmt.Errorf("the write was not reached (%v)", failed)
	}
	return t.recover(ctx, job, dir, failed)
}

// lay copies the state before a job to a directory.
func (t *faultTable) lay(job int, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	err := os.CopyFS(dir, os.DirFS(t.before[job]))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// recover opens a directory in which a job was interrupted, checks that nothing is lost,
// repeats the job and checks again.
func (t *faultTable) recover(ctx context.Context, job int, dir string, failed error) error {
	j := t.jobs[job]
	s := t.system(dir, t.now[job].Add(time.Minute))
	if err := s.open(); err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	defer s.close()
	if _, err := s.check(ctx); err != nil {
		return fmt.Errorf("after the fault (%v): %w", failed, err)
	}
	for _, name := range t.frozen[job] {
		if _, err := s.freezer.Describe(ctx, meta.FreezeName(name)); err != nil && j.name != "rm" {
			return fmt.Errorf("frozen before: %w", err)
		}
	}
	if err := j.do(ctx, s, t.u); err != nil {
		return fmt.Errorf("repeat (after %v): %w", failed, err)
	}
	if _, err := s.check(ctx); err != nil {
		return fmt.Errorf("after the repeated work: %w", err)
	}
	for _, name := range j.frozen {
		if _, err := s.freezer.Describe(ctx, meta.FreezeName(name)); err != nil {
			return fmt.Errorf("after the repeated work: %w", err)
		}
	}
	return nil
}

// run does every n-th row, several at a time, and returns their number.
func (t *faultTable) run(ctx context.Context, every int, report func(error)) (rows int) {
	var eg errgroup.Group
	eg.SetLimit(4)
	for i := range t.jobs {
		for step := range t.steps[i] {
			for k, apply := range []bool{false, true} {
				if (2*step+k)%every != 0 {
					continue
				}
				rows++
				eg.Go(func() error {
					if err := t.row(ctx, i, step, apply); err != nil {
						report(err)
					}
					return nil
				})
			}
		}
	}
	_ = eg.Wait()
	return rows
}

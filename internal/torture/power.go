package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/torture/cutfs"
)

// powerRun is a recorded run of the real snapd on a file system that simulates power cuts.
type powerRun struct {
	u     *upstream
	trace *cutfs.Trace
	tmp   string
	skip  string // why the run could not be recorded, or empty
}

// recordPower starts snapd for the first time on an empty disk, makes it do each
// operation that writes, and records a trace of the writes. After each answer it adds a
// mark with what snapd confirmed. Long because the order of its steps is the test.
func recordPower(ctx context.Context, tb testing.TB, binary string) (p *powerRun, err error) {
	p = &powerRun{tmp: fastDir(tb), u: newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour))}
	// Compress like Debian, so that snapd can regenerate the indices.
	p.u.Programs = map[string][]string{".xz": {"xz", "-6e", "-T2"}}
	p.u.upgrade("delta")
	exported, err := exportedFreeze(ctx, p.u, p.tmp)
	if err != nil {
		return nil, err
	}
	mnt := filepath.Join(p.tmp, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return nil, err
	}
	fs, err := cutfs.Mount(mnt)
	if err != nil {
		p.skip = err.Error()
		return p, nil
	}
	defer func() { err = errors.Join(err, fs.Unmount()) }()
	s, err := newServer(binary, p.tmp, filepath.Join(mnt, "data"), p.u.mirrors(0), "reserve = \"0\"\nquarantine_time = \"1s\"\nkeep_indices = 1")
	if err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	defer s.kill()
	fs.Mark("started")
	key, err := httpGet(ctx, "http://"+s.listen+"/key.asc")
	if err != nil {
		return nil, err
	}
	fs.Mark("key:" + string(key))
	sync := func() error {
		res, err := s.sync(ctx, "debian", "lazy")
		if err != nil {
			return err
		}
		for _, m := range res.Mirrors {
			fs.Mark("snapshot:" + m.Snapshot)
		}
		return nil
	}
	freeze := func(req api.FreezeRequest) error {
		if err := s.call(ctx, "freeze", req, nil); err != nil {
			return fmt.Errorf("freeze %s: %w", req.Name, err)
		}
		fs.Mark("frozen:" + req.Name)
		return nil
	}
	list := []api.ManifestFile{{Name: "build.list", Data: []byte("alpha=1\nbeta=1\n")}}
	var firstSnap string
	for _, work := range []func() error{
		sync,
		func() error {
			var l api.SnapshotList
			err := s.call(ctx, "list", api.ListRequest{Mirror: "lazy"}, &l)
			if err == nil && len(l.Snapshots) > 0 {
				firstSnap = l.Snapshots[0].ID
			}
			return err
		},
		func() error {
			return freeze(api.FreezeRequest{Name: "exact", Mirrors: []string{"lazy"}, Manifests: list, Format: "list"})
		},
		func() error { return freeze(api.FreezeRequest{Name: "whole", Mirrors: []string{"debian"}}) },
		func() error { p.u.upgrade("alpha", "epsilon"); return sync() },
		func() error {
			if err := s.call(ctx, "record/start", api.RecordStart{Name: "recorded"}, nil); err != nil {
				return err
			}
			for _, pkg := range []string{"gamma", "delta"} {
				path := "/record/recorded/lazy/" + p.u.Default().PathOf(pkg)
				if _, err := httpGet(ctx, "http://"+s.listen+path); err != nil {
					return err
				}
				fs.Mark("noted:" + pkg)
			}
			return s.call(ctx, "record/stop", api.RecordRef{Name: "recorded"}, nil)
		},
		func() error { return freeze(api.FreezeRequest{Name: "recorded"}) },
		func() error {
			err := s.call(ctx, "import", api.ImportRequest{Dir: exported}, nil)
			fs.Mark("frozen:imported")
			return err
		},
		func() error {
			fs.Mark("removing:exact")
			if err := s.call(ctx, "rm", api.RefRequest{Ref: "exact"}, nil); err != nil {
				return err
			}
			fs.Mark("removing:" + firstSnap)
			if err := s.call(ctx, "rm", api.RefRequest{Ref: firstSnap}, nil); err != nil {
				return err
			}
			return s.call(ctx, "gc", api.GCRequest{}, nil)
		},
		// Old generations are compacted: their indices can be regenerated and are deleted.
		func() error { p.u.upgrade("alpha"); return sync() },
		func() error { p.u.upgrade("alpha"); return sync() },
		func() error {
			var res api.GCResult
			err := s.call(ctx, "gc", api.GCRequest{Compact: true}, &res)
			if err == nil && res.Indices == 0 {
				err = errors.New("no index was compacted")
			}
			return err
		},
		// Some blobs are restored from the quarantine; the rest are deleted when it
		// ends.
		func() error {
			return freeze(api.FreezeRequest{Name: "late", Mirrors: []string{"debian"}, Packages: []string{"beta"}})
		},
		func() error {
			time.Sleep(1100 * time.Millisecond)
			return s.call(ctx, "gc", api.GCRequest{}, nil)
		},
		s.stop,
	} {
		if err := work(); err != nil {
			return nil, fmt.Errorf("record the trace for power cuts: %w\n%s", err, s.log.tail())
		}
		if !s.alive() {
			continue
		}
		if err := s.watch(ctx); err != nil {
			return nil, err
		}
		seen, err := s.watched()
		if err != nil {
			return nil, err
		}
		fs.Mark("log:" + seen)
	}
	p.trace = fs.Trace()
	if p.trace.Counts()["unlink"] == 0 {
		return nil, errors.New("the trace contains no removal")
	}
	return p, nil
}

func httpGet(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := readAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &statusError{url, resp.StatusCode}
	}
	return data, err
}

// statusError is an answer other than 200.
type statusError struct {
	url    string
	status int
}

func (e *statusError) Error() string { return fmt.Sprintf("get %s: status %d", e.url, e.status) }

// throwawaySigner generates a key for data whose signatures are not verified.
func throwawaySigner() (*sign.Signer, error) {
	k, err := sign.Generate("torture", "", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), sign.GenerateOptions{})
	if err != nil {
		return nil, err
	}
	return sign.NewSigner(k)
}

// powerResult counts the power cuts.
type powerResult struct {
	Points int            // steps of the trace
	Cut    int            // steps after which the power was cut
	Steps  map[string]int // steps by kind
	Images int            // different states of the disk, each opened and checked
	Equal  int            // cuts with a state that had been checked
	Failed int
}

// cuts cuts the power after every n-th step. Each time, the writes that were not synced
// are once all kept, once all dropped and, tries times, randomly torn. It opens and
// checks each resulting disk.
func (p *powerRun) cuts(ctx context.Context, run uint64, every, tries int, report func(error)) (res powerResult) {
	res.Points, res.Steps = p.trace.Points(), p.trace.Counts()
	type state struct {
		img   [32]byte
		marks int
	}
	seen := map[state]bool{}
	var mu sync.Mutex
	var eg errgroup.Group
	eg.SetLimit(3)
	for cut := 0; cut <= p.trace.Points(); cut++ {
		if (cut+int(run))%every != 0 && cut != p.trace.Points() {
			continue
		}
		if cut > 0 {
			res.Cut++
		}
		marks := p.trace.Marks(cut)
		for try := range 2 + tries {
			fate, seed := cutfs.Fate(min(try, 2)), cutfs.Seed(run, cut, try)
			img := p.trace.Cut(cut, fate, seed)
			st := state{img.Digest(), len(marks)}
			if seen[st] {
				res.Equal++
				continue
			}
			seen[st] = true
			res.Images++
			eg.Go(func() error {
				if err := p.afterCut(ctx, img, marks); err != nil {
					mu.Lock()
					defer mu.Unlock()
					res.Failed++
					report(fmt.Errorf("power cut after step %d of %d (%s), the rest %s (run %d, seed %d): %w", cut, p.trace.Points(), p.trace.Step(cut), fate, run, seed, err))
				}
				return nil
			})
		}
	}
	_ = eg.Wait()
	return res
}

// afterCut opens the state of a disk after a cut, and checks that nothing that snapd
// confirmed is lost, that nothing else is incomplete, and that further work succeeds.
// Long because the order of its steps is the test.
func (p *powerRun) afterCut(ctx context.Context, img cutfs.Image, marks []string) error {
	disk, err := os.MkdirTemp(p.tmp, "cut")
	if err != nil {
		return err
	}
	defer os.RemoveAll(disk)
	if err := img.WriteTo(disk); err != nil {
		return err
	}
	s := &system{dir: filepath.Join(disk, "data"), mirrors: p.u.mirrors(0), now: time.Now().UTC().Truncate(time.Second), keep: 1}
	promised, removing := map[string]bool{}, map[string]bool{}
	notes, key, seen := 0, "", ""
	for _, m := range marks {
		kind, what, _ := strings.Cut(m, ":")
		switch kind {
		case "snapshot", "frozen":
			promised[what] = true
		case "removing":
			removing[what] = true
		case "noted":
			notes++
		case "key":
			key = what
		case "log":
			seen = what
		}
	}
	if s.signer, err = sign.LoadSigner(filepath.Join(s.dir, "signing-key.asc")); errors.Is(err, os.ErrNotExist) && key == "" {
		s.signer, err = throwawaySigner()
	}
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	if key != "" && !strings.Contains(key, "BEGIN PGP") {
		return errors.New("the trace has no key")
	}
	if seen != "" {
		if err := os.WriteFile(filepath.Join(s.dir, monitorState), []byte(seen), 0o600); err != nil {
			return err
		}
	}
	if err := s.open(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer s.close()
	if _, err := s.check(ctx); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	for what := range promised {
		if removing[what] {
			continue
		}
		if err := s.has(ctx, what); err != nil {
			return fmt.Errorf("confirmed and lost: %w", err)
		}
	}
	if notes > 0 {
		entries, err := s.store.RecordingEntries(ctx, "recorded")
		if err != nil {
			return err
		}
		if len(entries) < notes {
			return fmt.Errorf("confirmed and lost: %d of %d entries of the recording", notes-len(entries), notes)
		}
	}
	for _, m := range s.mirrors {
		if err := s.sync(ctx, string(m.Name)); err != nil {
			return fmt.Errorf("sync again: %w", err)
		}
	}
	if err := s.freeze(ctx, api.FreezeRequest{Name: "after", Mirrors: []string{"debian"}, Packages: []string{"beta"}}); err != nil {
		return fmt.Errorf("freeze again: %w", err)
	}
	if err := s.collect(ctx); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	if _, err := s.check(ctx); err != nil {
		return fmt.Errorf("check after further work: %w", err)
	}
	return nil
}

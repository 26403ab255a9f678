package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

// killResult counts what snapd and apt did between the kills.
type killResult struct {
	Kills    int
	Busy     int // kills during a sync, freeze, removal or collection
	Syncs    int64
	Freezes  int64
	Removals int64
	GCs      int64
	Updates  int64 // apt-get update that succeeded
	Installs int64 // apt-get install --download-only that succeeded
	Refused  int64 // runs of apt that failed because snapd was down
	Frozen   int   // freezes verified with every byte, over all restarts
}

// badApt matches messages in which apt says that it received wrong data, rather than none.
var badApt = regexp.MustCompile(`Hash Sum mismatch|BADSIG|NO_PUBKEY|not signed|unexpected size|Clearsigned file|has no Release|is not valid yet|expired|Malformed|Splitting`)

// kills kills snapd n times at random moments, while apt clients read and while syncs,
// freezes, removals and collections run. After each start it checks everything.
// Long because the order of its steps is the test.
func kills(ctx context.Context, tb testing.TB, binary string, seed uint64, n int) (res killResult, err error) {
	tmp := fastDir(tb)
	u := newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour))
	s, err := newServer(binary, tmp, filepath.Join(tmp, "data"), u.mirrors(0), `quarantine_time = "1s"`)
	if err != nil {
		return res, err
	}
	if err := s.start(ctx); err != nil {
		return res, err
	}
	defer s.kill()
	if _, err := s.sync(ctx, "debian", "lazy"); err != nil {
		return res, err
	}
	if err := s.call(ctx, "freeze", api.FreezeRequest{Name: "keeper", Mirrors: []string{"debian"}}, nil); err != nil {
		return res, err
	}
	frozenSources, err := httpGet(ctx, "http://"+s.listen+"/frozen/keeper/sources")
	if err != nil {
		return res, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	b := &bench{ctx: ctx}
	defer b.close()
	for i, sources := range []string{
		fmt.Sprintf("deb [signed-by=%s] http://%s/archive/debian/latest stable main\n", u.KeyringFile(), s.listen),
		string(frozenSources),
	} {
		apt := debtest.NewApt(b, sources)
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, argv := range [][]string{{"apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any"}, {"apt-get", "install", "-qq", "--download-only", "--reinstall", packageNames[i], packageNames[i+2]}} {
					out, err := apt.Try(argv...)
					switch {
					case ctx.Err() != nil:
						return
					case badApt.MatchString(out):
						cancel(fmt.Errorf("apt received wrong data: %s\n%s", sources, out))
						return
					case err != nil:
						atomic.AddInt64(&res.Refused, 1)
						time.Sleep(20 * time.Millisecond)
					case argv[1] == "update":
						atomic.AddInt64(&res.Updates, 1)
					default:
						atomic.AddInt64(&res.Installs, 1)
						os.RemoveAll(filepath.Join(apt.Root, "var/cache/apt/archives"))
						os.MkdirAll(filepath.Join(apt.Root, "var/cache/apt/archives/partial"), 0o755)
					}
				}
			}
		})
	}
	// Do the work. A freeze that was confirmed must never be lost.
	var mu sync.Mutex
	promised := map[string]bool{"keeper": true}
	var busy atomic.Int64
	wg.Go(func() {
		r := rand.New(rand.NewPCG(seed, 2))
		var old []string
		for i := 0; ctx.Err() == nil; i++ {
			busy.Add(1)
			switch {
			case i%5 == 0:
				if i%20 == 0 {
					u.upgrade(packageNames[r.IntN(len(packageNames))])
				}
				if _, err := s.sync(ctx, "debian", "lazy"); err == nil {
					res.Syncs++
				}
			case i%5 == 1 || i%5 == 3:
				name := fmt.Sprint("f", i)
				req := api.FreezeRequest{Name: name, Mirrors: []string{"debian"}}
				if i%5 == 1 {
					req.Packages = packageNames[:1+r.IntN(4)]
				}
				if err := s.call(ctx, "freeze", req, nil); err == nil {
					res.Freezes++
					mu.Lock()
					promised[name] = true
					mu.Unlock()
					old = append(old, name)
				}
			case i%5 == 2:
				// Keep few freezes, so that verifying them does not take longer and
				// longer.
				for len(old) > 4 && ctx.Err() == nil {
					mu.Lock()
					delete(promised, old[0])
					mu.Unlock()
					if err := s.call(ctx, "rm", api.RefRequest{Ref: old[0]}, nil); err == nil {
						res.Removals++
						old = old[1:]
					} else if gone(err) {
						old = old[1:]
					} else {
						break // snapd was killed; try again in the next round
					}
				}
			case i%5 == 4:
				if err := s.call(ctx, "gc", api.GCRequest{}, nil); err == nil {
					res.GCs++
				}
			}
			busy.Add(-1)
			if ctx.Err() == nil {
				time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
			}
		}
	})
	r := rand.New(rand.NewPCG(seed, 3))
	fail := func(err error) (killResult, error) {
		cancel(err)
		wg.Wait()
		err = context.Cause(ctx) // apt's error, if that came first
		return res, fmt.Errorf("kill %d (seed %d): %w\n%s", res.Kills, seed, err, s.log.tail())
	}
	for res.Kills < n {
		select {
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		case <-time.After(time.Duration(r.IntN(250)) * time.Millisecond):
		}
		if !s.alive() {
			return fail(errors.New("snapd exited by itself"))
		}
		if busy.Load() > 0 {
			res.Busy++
		}
		s.kill()
		res.Kills++
		if err := s.start(ctx); err != nil {
			return fail(fmt.Errorf("start again: %w", err))
		}
		mu.Lock()
		want := make([]string, 0, len(promised))
		for name := range promised {
			want = append(want, name)
		}
		mu.Unlock()
		frozen, err := s.proveAll(ctx)
		if err != nil {
			if gone(err) {
				err = nil // removed after it was listed
			} else {
				return fail(err)
			}
		}
		res.Frozen += frozen
		for _, name := range want {
			mu.Lock()
			still := promised[name]
			mu.Unlock()
			if err := s.call(ctx, "show", api.ShowRequest{Ref: name}, nil); err != nil && still {
				mu.Lock()
				still = promised[name]
				mu.Unlock()
				if still {
					return fail(fmt.Errorf("%s was frozen and is lost: %w", name, err))
				}
			}
		}
	}
	cancel(nil)
	wg.Wait()
	ctx = context.WithoutCancel(ctx)
	if err := s.stop(); err != nil {
		return res, err
	}
	if err := s.start(ctx); err != nil {
		return res, err
	}
	if _, err := s.proveAll(ctx); err != nil {
		return res, fmt.Errorf("seed %d: at the end: %w", seed, err)
	}
	return res, s.stop()
}

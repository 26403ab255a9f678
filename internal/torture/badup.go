package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/sign"
)

// upstreamResult counts syncs from an upstream that misbehaves.
type upstreamResult struct {
	Requests int // number in an undisturbed sync
	Cases    int
	Refused  int // syncs that failed
	Survived int // syncs that succeeded with the right state
}

// misbehave are the wrong ways to answer a request.
var misbehave = []struct {
	name string
	do   func(u *upstream, old map[string][]byte, w http.ResponseWriter, r *http.Request)
}{
	{"cut", func(u *upstream, _ map[string][]byte, w http.ResponseWriter, r *http.Request) {
		data := u.Get(strings.TrimPrefix(r.URL.Path, "/"))
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		panic(http.ErrAbortHandler)
	}},
	{"cut without a word", func(*upstream, map[string][]byte, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{"stall", func(u *upstream, _ map[string][]byte, w http.ResponseWriter, r *http.Request) {
		data := u.Get(strings.TrimPrefix(r.URL.Path, "/"))
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second):
		}
		panic(http.ErrAbortHandler)
	}},
	{"older generation", func(u *upstream, old map[string][]byte, w http.ResponseWriter, r *http.Request) {
		if data, ok := old[strings.TrimPrefix(r.URL.Path, "/")]; ok {
			w.Write(data)
			return
		}
		http.NotFound(w, r)
	}},
	{"garbage", func(u *upstream, _ map[string][]byte, w http.ResponseWriter, r *http.Request) {
		n := len(u.Get(strings.TrimPrefix(r.URL.Path, "/")))
		g := make([]byte, n)
		rand.NewChaCha8([32]byte{1}).Read(g)
		w.Write(g)
	}},
	{"flipped bit", func(u *upstream, _ map[string][]byte, w http.ResponseWriter, r *http.Request) {
		g := append([]byte(nil), u.Get(strings.TrimPrefix(r.URL.Path, "/"))...)
		g[len(g)/2] ^= 1
		w.Write(g)
	}},
	{"longer", func(u *upstream, _ map[string][]byte, w http.ResponseWriter, r *http.Request) {
		w.Write(u.Get(strings.TrimPrefix(r.URL.Path, "/")))
		w.Write(make([]byte, 1<<20))
	}},
	{"500", func(_ *upstream, _ map[string][]byte, w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "try later", http.StatusInternalServerError)
	}},
	{"a login page", func(_ *upstream, _ map[string][]byte, w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<html>please log in</html>")
	}},
}

// badUpstream answers every n-th request of a sync wrongly, in each of the ways in
// misbehave, one at a time. It checks that the sync fails or stores the right state,
// that nothing wrong is stored, and that the next sync succeeds.
func badUpstream(ctx context.Context, tb testing.TB, signer *sign.Signer, every int) (res upstreamResult, err error) {
	u := newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour))
	s := &system{dir: filepath.Join(fastDir(tb), "data"), mirrors: u.mirrors(0)[:1], signer: signer, now: u.date.Add(time.Hour)}
	if err := s.open(); err != nil {
		return res, err
	}
	defer s.close()
	if err := s.sync(ctx, "debian"); err != nil {
		return res, err
	}
	u.Requests()
	for n := 0; ; n++ {
		for i, bad := range misbehave {
			if (n+i)%every != 0 && res.Requests > 0 {
				continue
			}
			old := map[string][]byte{}
			for _, p := range u.Paths() {
				old[p] = u.Get(p)
			}
			u.upgrade(packageNames[(n+i)%len(packageNames)], packageNames[(n+i+1)%len(packageNames)])
			var count, hit atomic.Int64
			fault := func(w http.ResponseWriter, r *http.Request) bool {
				if count.Add(1)-1 != int64(n) || !u.Has(strings.TrimPrefix(r.URL.Path, "/")) {
					return false
				}
				hit.Add(1)
				bad.do(u, old, w, r)
				return true
			}
			u.fault.Store(&fault)
			short, cancel := context.WithTimeout(ctx, time.Second)
			err := s.sync(short, "debian")
			cancel()
			u.fault.Store(nil)
			res.Requests = max(res.Requests, int(count.Load()))
			row := fmt.Sprintf("request %d: %s", n, bad.name)
			res.Cases++
			if err != nil {
				res.Refused++
			} else {
				res.Survived++
			}
			if _, cerr := s.check(ctx); cerr != nil {
				return res, fmt.Errorf("%s (%v): %w", row, err, cerr)
			}
			if err := s.sync(ctx, "debian"); err != nil {
				return res, fmt.Errorf("%s: the next sync: %w", row, err)
			}
			if err := s.matches(ctx, u); err != nil {
				return res, fmt.Errorf("%s: after the next sync: %w", row, err)
			}
		}
		if n >= res.Requests {
			break
		}
		// Keep few snapshots, so that the checks are short.
		snaps, err := s.store.SnapshotsBefore(ctx, "debian", time.Time{}, 0)
		if err != nil {
			return res, err
		}
		for _, snap := range snaps[min(2, len(snaps)):] {
			if err := s.store.RemoveSnapshot(ctx, "debian", snap.Timestamp, true, s.now); err != nil {
				return res, err
			}
		}
		if err := s.collect(ctx); err != nil {
			return res, err
		}
	}
	return res, nil
}

// matches compares the newest snapshot with upstream.
func (s *system) matches(ctx context.Context, u *upstream) error {
	for _, p := range []string{"dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz"} {
		status, body, err := s.get(ctx, "/archive/debian/latest/"+p)
		if err != nil || status != http.StatusOK || string(body) != string(u.Get(p)) {
			return fmt.Errorf("%s is not upstream's: status %d, %d bytes: %v", p, status, len(body), err)
		}
	}
	return nil
}

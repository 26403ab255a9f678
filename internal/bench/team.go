package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
)

// Number and size of local packages that are added in one call.
const (
	ownPackages = 1000
	ownSize     = 1 << 20
)

// recorded is how many packages are fetched through a recording, by how many builders at
// a time.
const (
	recorded = 5000
	builders = 32
)

// runTeam measures the work of a team: local packages, channels, recordings, and requests
// over the network. Long because each measurement depends on the state that the previous
// one left.
func runTeam(ctx context.Context, b *bench) error {
	own, err := b.makeOwn(ctx)
	if err != nil {
		return err
	}
	if err := b.makeDeb(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "team")
	s, err := b.start(ctx, dir, "", fmt.Sprintf("[[mirror]]\nname = \"debian\"\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\nsources = false\ndownload = \"all\"\ninterval = \"\"\nlanguages = []\n"+
		"[[mirror]]\nname = \"own\"\ntype = \"deb\"\nlocal = true\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\n", b.up.url+"/deb", b.key.keyring))
	if err != nil {
		return err
	}
	defer s.stop()
	a := &aptly{b: b, dir: filepath.Join(dir, "aptly")}
	if !b.quick {
		if err := a.init(ctx); err != nil {
			return err
		}
	}

	// Local packages. Both programs keep each file under another name.
	hash, err := b.measure(ctx, exec.CommandContext(ctx, "sh", "-c", `sha256sum "$1"/*.deb`, "sh", own))
	if err != nil {
		return err
	}
	if _, err := a.run(ctx, "repo", "create", "own"); err != nil {
		return err
	}
	other, err := a.run(ctx, "repo", "add", "own", own)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(own, "*.deb"))
	if err != nil {
		return err
	}
	c, err := s.ctl(ctx, append([]string{"add", "own", "--suite", "stable"}, files...)...)
	if err != nil {
		return err
	}
	b.timed(fmt.Sprintf("add %d packages of 1 MiB", ownPackages), other, c, 1, 0)
	b.timed("… beside sha256sum of them", &hash, c, 3, 0)

	// A channel over the whole mirror.
	if _, err := s.ctl(ctx, "sync", "debian"); err != nil {
		return err
	}
	if _, err := a.run(ctx, "mirror", "update", "m"); err != nil {
		return err
	}
	if _, err := a.publish(ctx, 0); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "freeze", "4.0", "--mirror", "debian"); err != nil {
		return err
	}
	if err := b.up.state("deb", "1"); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "sync", "debian"); err != nil {
		return err
	}
	if _, err := a.run(ctx, "mirror", "update", "m"); err != nil {
		return err
	}
	if _, err := a.run(ctx, "snapshot", "create", "s1", "from", "mirror", "m"); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "freeze", "4.1", "--mirror", "debian"); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "channel", "set", "stable", "4.0"); err != nil {
		return err
	}
	if other, err = a.run(ctx, "publish", "switch", "-skip-signing", "-skip-contents", "stable", "s0", "s1"); err != nil {
		return err
	}
	var moves []cost
	for _, to := range []string{"4.1", "4.0", "4.1", "4.0", "4.1"} {
		if c, err = s.ctl(ctx, "channel", "set", "stable", to); err != nil {
			return err
		}
		moves = append(moves, c)
		time.Sleep(time.Second) // moves are dated in whole seconds, at most a few seconds ahead
	}
	b.timed("move a channel over the whole mirror", other, median(moves), 0.05, 0)
	if err := b.statusCalls(ctx, s); err != nil {
		return err
	}
	return b.recordings(ctx, s)
}

// makeOwn makes the local packages, once.
func (b *bench) makeOwn(ctx context.Context) (string, error) {
	dir := filepath.Join(b.fixtures, "own")
	if _, err := os.Stat(filepath.Join(dir, "done")); err == nil {
		return dir, nil
	}
	fmt.Printf("  making %d packages, once\n", ownPackages)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(b.dir, "own-")
	if err != nil {
		return "", err
	}
	var busy errgroup.Group
	busy.SetLimit(runtime.NumCPU())
	for i := range ownPackages {
		busy.Go(func() error {
			root := filepath.Join(work, fmt.Sprint(i))
			name := fmt.Sprintf("own-%04d", i)
			if err := os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755); err != nil {
				return err
			}
			control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\nDescription: package %d\n", name, i)
			if err := os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644); err != nil {
				return err
			}
			body := make([]byte, ownSize)
			rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(body)
			if err := os.WriteFile(filepath.Join(root, "body"), body, 0o644); err != nil {
				return err
			}
			out, err := exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "-Znone", "-b", root, filepath.Join(dir, name+"_1_amd64.deb")).CombinedOutput()
			if err != nil {
				return fmt.Errorf("dpkg-deb: %w\n%s", err, tail(out))
			}
			return os.RemoveAll(root)
		})
	}
	if err := busy.Wait(); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "done"), nil, 0o600)
}

// statusCalls measures a small request of the control API on an open connection, and, for
// comparison, a request for the description of the API, which is ready in memory.
func (b *bench) statusCalls(ctx context.Context, s *server) error {
	cl := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(s.dir, "snapd.sock"))
		},
	}}
	call := func(method, url string, body []byte) (time.Duration, error) {
		start := time.Now()
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return 0, err
		}
		res, err := cl.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return 0, err
		}
		if res.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("%s: %s", url, res.Status)
		}
		return time.Since(start), nil
	}
	middle := func(n int, method, path string, body []byte) (time.Duration, error) {
		times := make([]time.Duration, n)
		for i := range times {
			var err error
			if times[i], err = call(method, "http://snapd"+api.Path+path, body); err != nil {
				return 0, err
			}
		}
		slices.Sort(times)
		return times[n/2], nil
	}
	document, err := middle(500, http.MethodGet, "openapi.json", nil)
	if err != nil {
		return err
	}
	list, err := middle(500, http.MethodPost, "mirror/list", []byte("{}"))
	if err != nil {
		return err
	}
	q := list.Seconds() / document.Seconds()
	b.add(row{
		work: "a request of the control API (mirror/list)", other: seconds(document) + " for its description", ours: seconds(list),
		ratio: fmt.Sprintf("%.2f", q), bound: "<= 10 of it", ok: judge(q <= 10),
	})
	return nil
}

// recordings measures the fetches of packages through a recording, each of which is
// durable before it is answered. For comparison, it measures how many sequential writes
// the disk makes durable in that time.
func (b *bench) recordings(ctx context.Context, s *server) error {
	ids, err := s.snapshots(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ids, func(id string) bool { return strings.HasPrefix(id, "debian@") })
	if i < 0 {
		return fmt.Errorf("no snapshot of debian in %v", ids)
	}
	c, err := s.ctl(ctx, "packages", ids[i], "--json")
	if err != nil {
		return err
	}
	var list struct {
		Packages []struct {
			Path string `json:"path"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(c.out, &list); err != nil {
		return err
	}
	if len(list.Packages) < recorded {
		return fmt.Errorf("%d packages, expected %d", len(list.Packages), recorded)
	}
	if _, err := s.ctl(ctx, "record", "start", "build"); err != nil {
		return err
	}
	cl := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: builders}}
	_, timestamp, _ := strings.Cut(ids[i], "@")
	paths := make([]string, recorded)
	for i := range paths {
		paths[i] = list.Packages[i].Path
	}
	archive, err := fetchAll(cl, "http://"+s.addr+"/archive/debian/"+timestamp+"/", paths)
	if err != nil {
		return err
	}
	rate, err := fetchAll(cl, "http://"+s.addr+"/record/build/debian/", paths)
	if err != nil {
		return err
	}
	durable, err := writesPerSecond(filepath.Join(b.dir, "durable"))
	if err != nil {
		return err
	}
	q := rate / durable
	b.add(row{
		work: fmt.Sprintf("packages fetched through a recording by %d builders", builders), other: fmt.Sprintf("%.0f durable writes/s", durable), ours: fmt.Sprintf("%.0f/s", rate),
		ratio: fmt.Sprintf("%.2f", q), bound: ">= 2 of it", ok: judge(q >= 2), note: fmt.Sprintf("%.0f/s from the archive", archive),
	})
	var shown struct {
		Files int `json:"files"`
	}
	if c, err = s.ctl(ctx, "record", "show", "build", "--json"); err != nil {
		return err
	}
	if err := json.Unmarshal(c.out, &shown); err != nil {
		return err
	}
	if shown.Files != recorded {
		return fmt.Errorf("%d files were noted, expected %d", shown.Files, recorded)
	}
	return nil
}

// fetchAll fetches files with as many clients as there are builders, and returns the
// files per second.
func fetchAll(cl *http.Client, base string, paths []string) (float64, error) {
	var busy errgroup.Group
	var next atomic.Int64
	start := time.Now()
	for range builders {
		busy.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(paths)); i = next.Add(1) - 1 {
				res, err := cl.Get(base + paths[i])
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil {
					return err
				}
				if res.StatusCode != http.StatusOK {
					return fmt.Errorf("%s%s: %s", base, paths[i], res.Status)
				}
			}
			return nil
		})
	}
	err := busy.Wait()
	return float64(len(paths)) / time.Since(start).Seconds(), err
}

// writesPerSecond measures how many writes of one page the disk makes durable.
func writesPerSecond(name string) (float64, error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer os.Remove(name)
	defer f.Close()
	page := make([]byte, 4096)
	start := time.Now()
	n := 0
	for ; time.Since(start) < time.Second; n++ {
		if _, err := f.WriteAt(page, 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

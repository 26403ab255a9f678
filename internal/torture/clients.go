package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/demo/balancer"
	"example.org/snapd/internal/repo/deb/debtest"
)

// clientsResult counts what apt clients did.
type clientsResult struct {
	Clients, Syncs, Moves int
	Updates, Downloads    int64
	Refused               int64         // times that a node could not answer in time
	Gone                  int64         // downloads of versions that upstream had removed meanwhile
	Slowest               time.Duration // longest time until all nodes served a synced state
}

func (r clientsResult) String() string {
	return fmt.Sprintf("%d apt clients across %d syncs and %d moves of a channel: %d updates and %d downloads compared, %d of versions that upstream had removed meanwhile, %d refused by a node that was too busy; all nodes served what was synced within %v",
		r.Clients, r.Syncs, r.Moves, r.Updates, r.Downloads, r.Gone, r.Refused, r.Slowest.Round(time.Millisecond))
}

// refusal matches apt's message that a node did not answer in time, for example because
// the database was slow on a busy machine.
var refusal = regexp.MustCompile(`\b503\s+Service Unavailable`)

// parallelClients is how many of the clients run a program at one time.
const parallelClients = 12

// audience is apt clients that read from a cluster, each through the balancer and from
// one fixed node.
type audience struct {
	*cluster
	res   clientsResult
	whole string // a freeze of all packages
	sem   chan struct{}
	fail  context.CancelCauseFunc

	mu    sync.Mutex
	debs  map[string][32]byte // packages that upstream ever had, by file name
	roots map[[32]byte]bool   // InRelease files that were ever published
	seen  []sighting
}

// sighting is an InRelease file that a client has read.
type sighting struct {
	sources string
	digest  [32]byte
}

// clients runs n apt clients that read from three nodes behind a balancer while a mirror
// is synced and a channel is moved, each a number of times. It checks everything that
// each client receives.
func clients(ctx context.Context, tb testing.TB, binary string, seed uint64, n, syncs, moves int) (clientsResult, error) {
	c, err := newCluster(ctx, tb, binary, seed, nil)
	if err != nil {
		return clientsResult{}, err
	}
	a := &audience{cluster: c, whole: c.freezes[1], sem: make(chan struct{}, parallelClients), debs: map[string][32]byte{}, roots: map[[32]byte]bool{}, res: clientsResult{Clients: n}}
	ctx, a.fail = context.WithCancelCause(ctx)
	defer a.fail(nil)
	a.published()
	if err := a.move(ctx, a.whole); err != nil {
		return a.res, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer a.fail(nil)
	b := &bench{ctx: ctx}
	defer b.close()
	rounds := make([]atomic.Int64, n)
	for i := range n {
		apt, sources, err := a.client(ctx, b, i)
		if err != nil {
			return a.res, err
		}
		wg.Go(func() {
			for r := rand.New(rand.NewPCG(seed, uint64(i))); ctx.Err() == nil; rounds[i].Add(1) {
				if err := a.read(ctx, apt, sources, packageNames[r.IntN(len(packageNames))]); err != nil && ctx.Err() == nil {
					a.fail(err)
				}
			}
		})
	}
	if err := a.publish(ctx, syncs, moves); err != nil {
		return a.res, errors.Join(context.Cause(ctx), err)
	}
	for i := range rounds {
		for ctx.Err() == nil && rounds[i].Load() < 2 {
			pause(ctx, 50*time.Millisecond)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return a.res, fmt.Errorf("%w\n%s", err, c.logs())
	}
	a.fail(nil)
	wg.Wait()
	for _, s := range a.seen {
		if !a.roots[s.digest] {
			return a.res, c.wrong(s.sources + ": an InRelease file that was never published")
		}
	}
	return a.res, nil
}

// client creates the root of a client that reads a snapshot, a freeze or the channel.
func (a *audience) client(ctx context.Context, b *bench, i int) (apt *debtest.Apt, sources string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	b.Cleanup(func() { l.Close() })
	balance := &balancer.Balancer{Client: func(net.Conn) string { return fmt.Sprint("client", i) }}
	for _, s := range a.all {
		balance.Nodes = append(balance.Nodes, s.listen)
	}
	go balance.Run(ctx, l)
	key, err := httpGet(ctx, "http://"+a.all[0].listen+"/key.asc")
	if err != nil {
		return nil, "", err
	}
	own := filepath.Join(b.TempDir(), "key.asc")
	if err := os.WriteFile(own, key, 0o600); err != nil {
		return nil, "", err
	}
	from := []struct{ key, path string }{
		{a.u.KeyringFile(), "archive/debian/latest"}, {a.u.KeyringFile(), "archive/lazy/latest"}, {own, "channel/stable/debian"}, {own, "frozen/" + a.whole + "/debian"},
	}[i%4]
	sources = fmt.Sprintf("deb [signed-by=%s] http://%s/%s stable main\n", from.key, l.Addr(), from.path)
	return debtest.NewApt(b, sources), sources, nil
}

// read makes a client update and download a package, and checks what it received.
func (a *audience) read(ctx context.Context, apt *debtest.Apt, sources, name string) error {
	select {
	case a.sem <- struct{}{}:
		defer func() { <-a.sem }()
	case <-ctx.Done():
		return nil
	}
	out, err := apt.Try("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
	if refusal.MatchString(out) {
		atomic.AddInt64(&a.res.Refused, 1)
		return nil
	}
	if err != nil || badApt.MatchString(out) {
		return fmt.Errorf("apt-get update: %w: %s%s", err, sources, out)
	}
	roots, err := filepath.Glob(filepath.Join(apt.Root, "var/lib/apt/lists/*InRelease"))
	if err != nil || len(roots) != 1 {
		return fmt.Errorf("apt has %v, expected one InRelease file: %w", roots, err)
	}
	root, err := os.ReadFile(roots[0])
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.res.Updates++
	a.seen = append(a.seen, sighting{sources, sha256.Sum256(root)})
	a.mu.Unlock()
	out, err = apt.Try("apt-get", "download", "-qq", name)
	if refusal.MatchString(out) {
		atomic.AddInt64(&a.res.Refused, 1)
		return nil
	}
	if badApt.MatchString(out) {
		return fmt.Errorf("apt-get download: %s%s", sources, out)
	}
	if err != nil && strings.Contains(sources, "/lazy/latest") && strings.Contains(out, "404") {
		atomic.AddInt64(&a.res.Gone, 1)
		return nil
	}
	if err != nil {
		return fmt.Errorf("apt-get download: %w: %s%s", err, sources, out)
	}
	debs, err := filepath.Glob(filepath.Join(apt.Root, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt downloaded %v, expected one package: %w", debs, err)
	}
	body, err := os.ReadFile(debs[0])
	if err != nil {
		return err
	}
	a.mu.Lock()
	want := a.debs[filepath.Base(debs[0])]
	a.res.Downloads++
	a.mu.Unlock()
	if sha256.Sum256(body) != want {
		return a.wrong(fmt.Sprintf("%s%s: %d bytes", sources, debs[0], len(body)))
	}
	return os.Remove(debs[0])
}

// published records what upstream publishes now.
func (a *audience) published() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range packageNames {
		p := a.u.Default().PathOf(name)
		a.debs[path.Base(p)] = sha256.Sum256(a.u.Get(p))
	}
	a.roots[sha256.Sum256(a.u.Get("dists/stable/InRelease"))] = true
}

// publish syncs the mirrors and moves the channel to new freezes, on either of the nodes
// that may do so, while the clients read.
func (a *audience) publish(ctx context.Context, syncs, moves int) error {
	for i := range syncs {
		a.n++
		a.u.upgrade(packageNames[a.rnd.IntN(len(packageNames))], packageNames[a.rnd.IntN(len(packageNames))])
		a.published()
		if err := eventually(ctx, 5*time.Minute, func() error { return doSync(ctx, a.cluster, a.all[i%2]) }); err != nil {
			return err
		}
		from := time.Now()
		if err := settleSync(ctx, a.cluster); err != nil {
			return err
		}
		a.res.Slowest = max(a.res.Slowest, time.Since(from))
		a.res.Syncs++
		if (i+1)*moves/syncs > i*moves/syncs {
			if err := eventually(ctx, 5*time.Minute, func() error { return doFreeze(nil)(ctx, a.cluster, a.all[(i+1)%2]) }); err != nil {
				return err
			}
			if err := a.move(ctx, a.freezeName()); err != nil {
				return err
			}
			a.res.Moves++
		}
		a.mu.Lock()
		until := a.res.Updates + int64(a.res.Clients)/10
		a.mu.Unlock()
		for more := true; more && ctx.Err() == nil; {
			pause(ctx, 20*time.Millisecond)
			a.mu.Lock()
			more = a.res.Updates < until
			a.mu.Unlock()
		}
	}
	return ctx.Err()
}

// move moves the channel, and records what the channel then shows and what the freeze
// contains.
func (a *audience) move(ctx context.Context, freeze string) error {
	if err := a.all[a.n%2].call(ctx, "channel/set", api.ChannelSet{Name: "stable", Freeze: freeze, AllowMissing: true}, nil); err != nil {
		return err
	}
	for _, base := range []string{"/channel/stable", "/frozen/" + freeze} {
		body, err := httpGet(ctx, "http://"+a.all[a.n%2].listen+base+"/debian/dists/stable/InRelease")
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.roots[sha256.Sum256(body)] = true
		a.mu.Unlock()
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

// grown is a PostgreSQL server, an S3 server behind the proxy that counts requests, and
// nodes that share a database and a bucket on them.
type grown struct {
	b       *bench
	dir     string
	db      *pgtest.Server
	srv     *s3test.Server
	url     string // of the database
	store   string // lines of the [store] section
	mirrors string
	nodes   []*server
}

// startGrown starts the servers, without nodes. mirrors is the rest of the nodes'
// configuration.
func (b *bench) startGrown(f *fixtures, dir, mirrors string) *grown {
	g := &grown{b: b, dir: dir, db: pgtest.Start(f), srv: s3test.Start(f), mirrors: mirrors}
	g.url = g.db.Database(f)
	g.store = fmt.Sprintf("metadata = %q\nblobs = %q\ncredentials_file = %q\ncache = \"2GiB\"\n", g.url, g.srv.Location(g.srv.Bucket(f), "snapd"), s3test.CredentialsFile(f))
	f.Cleanup(func() {
		for _, s := range g.nodes {
			s.stop()
		}
	})
	return g
}

// add starts a node with a role and the keys of the first one.
func (g *grown) add(ctx context.Context, role string) (*server, error) {
	dir := filepath.Join(g.dir, fmt.Sprintf("node-%d", len(g.nodes)))
	if len(g.nodes) > 0 {
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			return nil, err
		}
		for _, name := range []string{"signing-key.asc", "log-key"} {
			key, err := os.ReadFile(filepath.Join(g.nodes[0].dir, name))
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(dir, "data", name), key, 0o600); err != nil {
				return nil, err
			}
		}
	}
	s, err := g.b.start(ctx, dir, "", g.store+fmt.Sprintf("role = %q\n", role)+g.mirrors)
	if err != nil {
		return nil, err
	}
	g.nodes = append(g.nodes, s)
	return s, nil
}

// traffic describes the requests at the proxy since the last call.
func (g *grown) traffic() (counts map[string]int, text string) {
	counts = g.srv.Counts()
	in, out := g.srv.Bytes()
	total := 0
	for _, n := range counts {
		total += n
	}
	return counts, fmt.Sprintf("%d S3 requests %v, %s sent, %s received", total, counts, mega(in), mega(out))
}

// debMirror configures the deb upstream.
func (b *bench) debMirror(name, download string) string {
	return fmt.Sprintf("[[mirror]]\nname = %q\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\nsources = false\ndownload = %q\ninterval = \"\"\nlanguages = []\n",
		name, b.up.url+"/deb", b.key.keyring, download)
}

// runCluster measures the same work with metadata and blobs in a directory, and with
// PostgreSQL and S3.
func runCluster(ctx context.Context, b *bench) (err error) {
	if err := b.makeDeb(ctx); err != nil {
		return err
	}
	if err := b.makeFiles(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "cluster")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f := &fixtures{ctx: ctx, dir: dir}
	defer f.end(&err)
	mirrors := b.debMirror("lazy", "on_demand") + b.debMirror("debian", "all") +
		fmt.Sprintf("[[mirror]]\nname = \"files\"\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\nsources = false\ndownload = \"on_demand\"\ninterval = \"\"\nlanguages = []\n", b.up.url+"/files", b.key.keyring)
	alone, err := b.start(ctx, filepath.Join(dir, "alone"), "", mirrors)
	if err != nil {
		return err
	}
	defer alone.stop()
	g := b.startGrown(f, dir, mirrors)
	one, err := g.add(ctx, "all")
	if err != nil {
		return err
	}
	if err := b.clusterSyncs(ctx, f, g, alone, one); err != nil {
		return err
	}
	if err := b.clusterFreezes(ctx, g, alone, one); err != nil {
		return err
	}
	if err := b.clusterServes(ctx, g, alone, one); err != nil {
		return err
	}
	return b.clusterTakeover(ctx, g, one)
}

// beside adds a row with the time in the grown form and that in the embedded form.
func (b *bench) beside(work string, embedded, ours cost, times float64, traffic string) {
	q := ours.wall.Seconds() / embedded.wall.Seconds()
	b.add(row{
		work: work, other: seconds(embedded.wall) + " embedded", ours: seconds(ours.wall), ratio: fmt.Sprintf("%.2f", q), bound: fmt.Sprintf("<= %.0f of it", times),
		ok: judge(q <= times), note: ours.detail() + "; " + traffic + "; embedded " + embedded.detail(),
	})
}

// clusterSyncs measures first syncs, and syncs in which nothing changed.
func (b *bench) clusterSyncs(ctx context.Context, f *fixtures, g *grown, alone, one *server) error {
	for _, m := range []struct{ name, what string }{{"lazy", "first sync, packages on demand"}, {"debian", "first sync, all packages"}} {
		embedded, err := alone.ctl(ctx, "sync", m.name)
		if err != nil {
			return err
		}
		g.traffic()
		ours, err := one.ctl(ctx, "sync", m.name)
		if err != nil {
			return err
		}
		counts, traffic := g.traffic()
		b.beside(m.what, embedded, ours, 2, traffic)
		if m.name != "debian" {
			continue
		}
		bare, err := g.barePuts(ctx, f, counts["put"])
		if err != nil {
			return err
		}
		limit := embedded.wall + bare
		q := ours.wall.Seconds() / limit.Seconds()
		b.add(row{
			work: "… beside the embedded form and bare uploads", other: seconds(limit), ours: seconds(ours.wall), ratio: fmt.Sprintf("%.2f", q),
			note: fmt.Sprintf("%d objects of the size of a package, 16 at a time, by a client that does nothing else: %s", counts["put"], seconds(bare)),
		})
	}
	embedded, err := alone.repeated(ctx, 7, "sync", "lazy")
	if err != nil {
		return err
	}
	g.traffic()
	ours, err := one.repeated(ctx, 7, "sync", "lazy")
	if err != nil {
		return err
	}
	counts, traffic := g.traffic()
	const idle = 50 * time.Millisecond
	b.add(row{work: "sync, nothing changed", other: seconds(embedded.wall) + " embedded", ours: seconds(ours.wall), ratio: ratio(ours.wall, embedded.wall), bound: "<= " + seconds(idle), ok: judge(ours.wall <= idle), note: ours.detail() + "; embedded " + embedded.detail()})
	b.add(row{work: "sync, nothing changed, S3 requests", ours: fmt.Sprint(len(counts)), bound: "0", ok: judge(len(counts) == 0), note: traffic})
	return b.clusterStatements(ctx, g)
}

// barePuts uploads as many small objects as a sync does, 16 at a time, and returns the
// time needed.
func (g *grown) barePuts(ctx context.Context, f *fixtures, n int) (time.Duration, error) {
	bucket := g.srv.Bucket(f)
	start := time.Now()
	err := g.srv.Upload(ctx, bucket, n, 16)
	return time.Since(start), err
}

// clusterStatements counts the SQL statements of a sync in which nothing changed. It
// leaves out the statements with which the node follows the others at the same time, and
// those of the audit list.
func (b *bench) clusterStatements(ctx context.Context, g *grown) error {
	taken, err := g.db.Statements(ctx, g.url)
	if err != nil {
		return err
	}
	one := g.nodes[0]
	one.stop()
	if err := one.run(ctx); err != nil {
		return err
	}
	var all []int
	for range 7 {
		if _, err := taken(); err != nil {
			return err
		}
		if _, err := one.ctl(ctx, "sync", "lazy"); err != nil {
			return err
		}
		run, err := taken()
		if err != nil {
			return err
		}
		all = append(all, pgtest.Count(run, pgtest.Background...))
	}
	n := slices.Max(all[1:])
	b.add(row{work: "sync, nothing changed, SQL statements", ours: fmt.Sprint(n), bound: "<= 2", ok: judge(n <= 2), note: fmt.Sprintf("of 7 syncs, the first after a start: %v, with begin and commit", all)})
	if err := g.db.Quiet(ctx, g.url); err != nil {
		return err
	}
	one.stop()
	return one.run(ctx)
}

// clusterFreezes measures exact freezes whose packages are stored.
func (b *bench) clusterFreezes(ctx context.Context, g *grown, alone, one *server) error {
	manifest := filepath.Join(b.fixtures, "deb", "manifest")
	freeze := func(s *server, name string) (cost, error) {
		return s.ctl(ctx, "freeze", name, "--mirror", "debian", "--manifest", manifest, "--no-sources")
	}
	var medians []cost
	var traffic string
	heads := 0
	if err := b.up.state("deb", "2"); err != nil { // the state of the manifest
		return err
	}
	for _, s := range []*server{alone, one} {
		if _, err := s.ctl(ctx, "sync", "debian"); err != nil {
			return err
		}
		if _, err := freeze(s, "exact-0"); err != nil {
			return err
		}
		g.traffic()
		var all []cost
		for i := range 3 {
			c, err := freeze(s, fmt.Sprintf("exact-%d", i+1))
			if err != nil {
				return err
			}
			all = append(all, c)
		}
		var counts map[string]int
		counts, traffic = g.traffic()
		heads = counts["head"]
		medians = append(medians, median(all))
	}
	b.beside("exact freeze of 2,000, bytes there", medians[0], medians[1], 3, "in 3 freezes "+traffic)
	b.add(row{work: "exact freeze of 2,000, HEAD requests", ours: fmt.Sprint(heads), bound: "0", ok: judge(heads == 0)})
	return nil
}

// Number of files of each size that clients request in turn.
const (
	servedLarge = 8
	servedSmall = 500
)

// clusterServes measures nodes that serve from their caches.
func (b *bench) clusterServes(ctx context.Context, g *grown, alone, one *server) error {
	for _, s := range []*server{alone, one} {
		if _, err := s.ctl(ctx, "sync", "files"); err != nil {
			return err
		}
	}
	var nodes []*server
	for range 3 {
		s, err := g.add(ctx, "serve")
		if err != nil {
			return err
		}
		nodes = append(nodes, s)
	}
	large, small, err := b.served()
	if err != nil {
		return err
	}
	if err := b.clusterRate(ctx, g, "16 MiB", large, 16, true, alone, nodes); err != nil {
		return err
	}
	if err := b.clusterRate(ctx, g, "10 kB", small, 64, false, alone, nodes); err != nil {
		return err
	}
	anon := rssAnon(nodes[0].cmd.Process.Pid)
	b.add(row{work: "memory of a serving node after these", ours: mega(anon), bound: "<= 200.0 MB", ok: judge(anon <= 200e6), note: fmt.Sprintf("of %d package entries in three mirrors", 2*b.packages+largeFiles+smallFiles)})
	return nil
}

// served returns the paths of the files that clients request.
func (b *bench) served() (large, small []string, err error) {
	root := filepath.Join(b.fixtures, "files", "0")
	err = filepath.WalkDir(filepath.Join(root, "pool"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		switch {
		case err != nil:
		case strings.HasPrefix(d.Name(), "large"):
			large = append(large, rel)
		default:
			small = append(small, rel)
		}
		return err
	})
	return large[:min(len(large), servedLarge)], small[:min(len(small), servedSmall)], err
}

// clusterRate compares the rate of a serving node with that of the embedded form, and the
// CPU time per request with one, two and three nodes at once.
func (b *bench) clusterRate(ctx context.Context, g *grown, what string, paths []string, conns int, bytes bool, alone *server, nodes []*server) error {
	const prefix = "/archive/files/latest/"
	script := filepath.Join(g.dir, "paths.lua")
	if err := writePaths(script, prefix, paths); err != nil {
		return err
	}
	for _, s := range append([]*server{alone}, nodes...) {
		for range 2 {
			if err := s.fetchEach(prefix, paths); err != nil {
				return err
			}
		}
	}
	g.traffic()
	var embedded, ours []float64
	var embeddedCPU, oursCPU time.Duration
	for range wrkRounds {
		v, cpu, err := b.rate(ctx, script, conns, bytes, alone)
		if err != nil {
			return err
		}
		embedded, embeddedCPU = append(embedded, v), embeddedCPU+cpu
		if v, cpu, err = b.rate(ctx, script, conns, bytes, nodes[0]); err != nil {
			return err
		}
		ours, oursCPU = append(ours, v), oursCPU+cpu
	}
	unit := "requests/s"
	if bytes {
		unit = "MB/s"
	}
	_, traffic := g.traffic()
	q := slices.Max(ours) / slices.Max(embedded)
	b.add(row{
		work: "a serving node, warm, files of " + what, other: fmt.Sprintf("%.0f %s embedded", slices.Max(embedded), unit), ours: fmt.Sprintf("%.0f %s", slices.Max(ours), unit),
		ratio: fmt.Sprintf("%.2f", q), bound: ">= 0.90 of it", ok: judge(q >= 0.9), note: perUnit(ours, oursCPU, bytes) + "; embedded " + perUnit(embedded, embeddedCPU, bytes) + "; " + traffic,
	})
	if bytes {
		return nil
	}
	var each []float64
	var texts []string
	for n := 1; n <= len(nodes); n++ {
		v, cpu, err := b.rate(ctx, script, conns, bytes, nodes[:n]...)
		if err != nil {
			return err
		}
		each = append(each, float64(cpu.Milliseconds())/(v*wrkTime.Seconds()/1000))
		texts = append(texts, fmt.Sprintf("%.1f ms", each[n-1]))
	}
	spread := slices.Max(each) / slices.Min(each)
	b.add(row{work: "CPU per 1,000 requests with 1, 2, 3 nodes", ours: strings.Join(texts, ", "), ratio: fmt.Sprintf("%.2f", spread), bound: "equal (<= 1.20)", ok: judge(spread <= 1.2)})
	return nil
}

// rate loads nodes at the same time, and returns the sum of their rates and of their CPU
// times.
func (b *bench) rate(ctx context.Context, script string, conns int, bytes bool, nodes ...*server) (sum float64, cpu time.Duration, err error) {
	var pids []int
	for _, s := range nodes {
		pids = append(pids, s.cmd.Process.Pid)
	}
	before := cpuOf(pids)
	rates, errs := make([]float64, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, s := range nodes {
		wg.Go(func() { rates[i], errs[i] = wrk(ctx, s.addr, script, conns, bytes) })
	}
	wg.Wait()
	for _, v := range rates {
		sum += v
	}
	return sum, cpuOf(pids) - before, errors.Join(errs...)
}

// clusterTakeover kills a node in the middle of a sync, and measures how long no other
// node can sync.
func (b *bench) clusterTakeover(ctx context.Context, g *grown, one *server) error {
	two, err := g.add(ctx, "all")
	if err != nil {
		return err
	}
	// The mirror lazy has the first state, and upstream the last one.
	uploads := make(chan bool, 1)
	g.srv.Decide(func(op, _ string) *s3test.Fault {
		if op != "put" {
			return nil
		}
		select {
		case uploads <- true:
		default:
		}
		return &s3test.Fault{Hang: true, HangTime: time.Second}
	})
	defer g.srv.Decide(nil)
	ended := make(chan error, 1)
	client, hangUp := context.WithCancel(ctx)
	defer hangUp()
	go func() {
		_, err := one.ctl(client, "sync", "lazy")
		ended <- err
	}()
	select {
	case <-uploads:
	case err := <-ended:
		return fmt.Errorf("the sync uploaded nothing: %v", err)
	}
	if err := one.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = one.cmd.Wait()
	killed := time.Now()
	one.cmd = nil
	hangUp() // the client would try to reconnect for half a minute
	<-ended
	g.srv.Decide(nil)
	const lease = 15 * time.Second
	for {
		c, err := two.ctl(ctx, "sync", "lazy")
		took := time.Since(killed) - c.wall
		if err == nil {
			b.add(row{work: "takeover after a kill in a sync", ours: seconds(took), bound: "<= " + seconds(lease+2*time.Second), ok: judge(took <= lease+2*time.Second), note: "the lease is for 15 s; then a sync of " + seconds(c.wall)})
			return nil
		}
		if took > 2*time.Minute {
			return fmt.Errorf("no node takes over: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

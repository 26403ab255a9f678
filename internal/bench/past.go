package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/repo"
)

const (
	pastGenerations = 1500
	pastUpdates     = 2000 // packages of the suite that changes
	pastChanged     = 60   // changed packages of each generation
	pastAsked       = 3000 // number of questions
	pastWanted      = 500  // packages in one question of debootsnap
)

// A past is a mirror with many generations: one of all packages, and then those of a
// suite in which some packages change each time.
type past struct {
	stable, updates []repo.Record
	versions        []string // of the first package of updates
}

func makePast(ctx context.Context, b *bench, dir string) (*past, error) {
	pars, _, err := stanzas(b.packages)
	if err != nil {
		return nil, err
	}
	p := &past{stable: make([]repo.Record, len(pars))}
	for i, s := range pars {
		p.stable[i] = recordOf(withTinyBody(s))
	}
	st, err := openStore(dir)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	// snapd refuses metadata without any blob. The blobs of packages are not needed here.
	if err := anyBlob(ctx, dir); err != nil {
		return nil, err
	}
	if err := stageOne(ctx, st, "stable", 0, p.stable, nil); err != nil {
		return nil, err
	}
	p.updates = slices.Clone(p.stable[:min(pastUpdates, len(p.stable))])
	p.versions = []string{p.updates[0].Version}
	for gen := range pastGenerations - 1 {
		var changed []int
		for i := range pastChanged {
			k := (gen*pastChanged + i) % len(p.updates)
			p.updates[k] = recordOf(withTinyBody(bump(string(p.stable[k].Bytes), "+"+fmt.Sprint(gen))))
			changed = append(changed, k)
		}
		if changed[0] == 0 {
			p.versions = append(p.versions, p.updates[0].Version)
		}
		if err := stageOne(ctx, st, "updates", gen, p.updates, changed); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// anyBlob stores a blob below a data directory.
func anyBlob(ctx context.Context, dir string) error {
	blobs, err := casdir.Open(dir, casdir.Options{})
	if err != nil {
		return err
	}
	batch := blobs.NewBatch()
	defer batch.Discard()
	if _, err := cas.PutBatch(ctx, batch, []byte("any"), time.Time{}); err != nil {
		return err
	}
	return batch.Flush(ctx)
}

// runPast measures answers about the past, one after the other, on one connection. Each
// is followed by a request for a small file, so that both are measured under the same
// load.
func runPast(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "past")
	p, err := makePast(ctx, b, filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	s, err := b.start(ctx, dir, "", fmt.Sprintf("[[mirror]]\nname = \"debian\"\ntype = \"deb\"\nurl = \"http://127.0.0.1:1/debian\"\nsuites = [\"stable\", \"updates\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\ninterval = \"\"\n", b.key.keyring))
	if err != nil {
		return err
	}
	defer s.stop()
	small := func() (time.Duration, error) { return ask(ctx, http.MethodGet, "http://"+s.addr+"/key.asc", "") }
	r := rand.New(rand.NewPCG(1, 2))
	var names []string
	for i := range pastAsked {
		of := p.stable
		if i%2 == 0 {
			of = p.updates // with dozens of versions
		}
		names = append(names, of[r.IntN(len(of))].Name)
	}
	if err := b.past(fmt.Sprintf("/mr/package/NAME/, each of %d", pastAsked), pastAsked, 5*time.Millisecond, small, func(i int) (time.Duration, error) {
		return ask(ctx, http.MethodGet, "http://"+s.addr+"/mr/package/"+url.PathEscape(names[i])+"/", "")
	}); err != nil {
		return err
	}
	var pkgs []string
	for i, k := range r.Perm(len(p.stable))[:min(pastWanted, len(p.stable))] {
		one := p.stable[k]
		if i%2 == 0 {
			one = p.updates[k%len(p.updates)]
		}
		pkgs = append(pkgs, one.Name+":amd64="+one.Version)
	}
	pkgs[0] = p.updates[0].Name + ":amd64=" + p.versions[len(p.versions)/2]
	body := url.Values{"archive": {"debian"}, "arch": {"amd64"}, "pkgs": {strings.Join(pkgs, ",")}}.Encode()
	return b.past(fmt.Sprintf("where and when %d packages were, as debootsnap asks", len(pkgs)), 20, time.Second, small, func(int) (time.Duration, error) {
		return ask(ctx, http.MethodPost, "http://"+s.addr+"/cgi-bin/api", body)
	})
}

// past asks n questions, alternating with a small file, and adds a row with the 99th
// percentile of their times. bound is how much longer it may be than that of the file,
// which waits for the machine equally long.
func (b *bench) past(work string, n int, bound time.Duration, small func() (time.Duration, error), question func(i int) (time.Duration, error)) error {
	var theirs, ours []time.Duration
	for i := range n {
		d, err := question(i)
		if err != nil {
			return err
		}
		ours = append(ours, d)
		if d, err = small(); err != nil {
			return err
		}
		theirs = append(theirs, d)
	}
	first := ours[0] // with empty caches
	slices.Sort(theirs)
	slices.Sort(ours)
	at := func(all []time.Duration, percent int) time.Duration {
		return all[min(len(all)*percent/100, len(all)-1)]
	}
	micros := func(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d.Microseconds())/1000) }
	b.add(row{
		work: work + ", 99 %", other: micros(at(theirs, 99)), ours: micros(at(ours, 99)), ratio: ratio(at(ours, 99), at(theirs, 99)),
		bound: "<= " + micros(bound) + " more", ok: judge(at(ours, 99) <= bound+at(theirs, 99)),
		note: fmt.Sprintf("half are below %s, beside %s; the slowest %s, beside %s; the first %s", micros(at(ours, 50)), micros(at(theirs, 50)), micros(ours[n-1]), micros(theirs[n-1]), micros(first)),
	})
	return nil
}

// ask sends a request and returns the time until its whole answer has arrived.
func ask(ctx context.Context, method, to, variant string) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(variant))
	if err != nil {
		return 0, err
	}
	if variant != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	start := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	data, err := io.ReadAll(res.Body)
	took := time.Since(start)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s %s: %s: %s", method, to, res.Status, tail(data))
	}
	return took, nil
}

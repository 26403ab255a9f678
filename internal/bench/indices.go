package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

// The compacted index, and the bounds on its size and on the time to make it again.
const (
	indexGens     = 3
	indexName     = "main/binary-amd64/Packages"
	xzPackages    = 4000 // xz takes a second for 700 kB
	keptOfIndex   = 1.0 / 30
	plainRatio    = 1.5
	xzRatio       = 1.3
	indexBlobPath = "dists/stable/"
)

// runIndices compacts generations that differ in 63 stanzas, and measures how their
// indices are made again.
func runIndices(ctx context.Context, b *bench) error {
	large := &indexBench{argv: []string{"gzip", "-9n", "--rsyncable", "-c"}, suffix: ".gz", packages: b.packages}
	if err := large.run(ctx, filepath.Join(b.dir, "indices")); err != nil {
		return err
	}
	each := large.res.Order/int64(indexGens-1) + large.metadata
	kept := float64(each) / float64(large.res.Bytes/int64(indexGens-1))
	b.add(row{
		work: fmt.Sprintf("kept for a sync of %d changes in %d, after keep_indices", changed1, b.packages), other: mega(large.res.Bytes/int64(indexGens-1)) + " of index (gz)",
		ours:  fmt.Sprintf("%d bytes", each),
		ratio: fmt.Sprintf("%.4f", kept), bound: "<= 1/30", ok: judge(kept <= keptOfIndex),
		note: fmt.Sprintf("order %d bytes, pages of metadata %d bytes; without Release files", large.res.Order/int64(indexGens-1), large.metadata),
	})
	plain := large.plain.Seconds() / large.decoder.Seconds()
	b.add(row{
		work: "plain index of an old generation", other: "gzip -dc of it " + seconds(large.decoder), ours: seconds(large.plain),
		ratio: fmt.Sprintf("%.2f", plain), bound: "<= 1.50", ok: judge(plain <= plainRatio),
		note: fmt.Sprintf("%s, %.0f MB/s, verified and kept in the cache; the best of %d", mega(large.plainSize), float64(large.plainSize)/large.plain.Seconds()/1e6, indexGens-1),
	})
	small := &indexBench{argv: []string{"xz", "-6e", "-T2", "-c"}, suffix: ".xz", packages: xzPackages}
	if err := small.run(ctx, filepath.Join(b.dir, "indices-xz")); err != nil {
		return err
	}
	r := small.variant.Seconds() / small.program.Seconds()
	b.add(row{
		work: fmt.Sprintf("xz of an old generation, %d packages", xzPackages), other: "xz -6e -T2 " + seconds(small.program), ours: seconds(small.variant),
		ratio: fmt.Sprintf("%.2f", r), bound: "<= 1.30", ok: judge(r <= xzRatio),
	})
	return nil
}

// indexBench is the history of one index, and what was measured on it.
type indexBench struct {
	argv     []string // the program that compresses its variant
	suffix   string
	packages int

	st       *bolt.Store
	blobs    cas.Store
	res      indices.Result
	plains   []cas.Digest
	forms    []cas.Digest
	metadata int64 // bytes for each further generation

	plainSize      int64
	plain, variant time.Duration
	program        time.Duration
	decoder        time.Duration // for the program to decompress the variant
	listed         map[uint32]map[string]repo.Listed
}

func (x *indexBench) run(ctx context.Context, dir string) (err error) {
	if x.st, err = openStore(dir); err != nil {
		return err
	}
	defer x.st.Close()
	if x.blobs, err = casdir.Open(dir, casdir.Options{}); err != nil {
		return err
	}
	defer x.blobs.Close()
	if err := x.fill(ctx); err != nil {
		return err
	}
	c := indices.NewCompactor(indices.CompactorConfig{Meta: x.st, Blobs: x.blobs, Engine: x, Keep: 1})
	if err := c.Run(ctx, "debian", "stable", true, &x.res); err != nil {
		return err
	}
	if x.res.Indices != indexGens-1 {
		return fmt.Errorf("compacted %d indices, expected %d: is %s another version?", x.res.Indices, indexGens-1, x.argv[0])
	}
	return x.make(ctx, dir)
}

// fill stages and seals the generations.
func (x *indexBench) fill(ctx context.Context) error {
	pars, _, err := stanzas(x.packages)
	if err != nil {
		return err
	}
	x.listed = map[uint32]map[string]repo.Listed{}
	records := make([]repo.Record, len(pars))
	for i, p := range pars {
		records[i] = recordOf(strings.TrimRight(withTinyBody(p), "\n"))
	}
	var used int64
	for gen := range indexGens {
		for i := range changed1 * min(gen, 1) {
			k := (gen*changed1*31 + i*997) % len(records)
			records[k] = recordOf(strings.TrimRight(withTinyBody(bump(string(records[k].Bytes), "+"+fmt.Sprint(gen))), "\n"))
		}
		if err := x.generation(ctx, gen, records); err != nil {
			return err
		}
		u, err := x.st.Usage(ctx)
		if err != nil {
			return err
		}
		if gen > 0 {
			x.metadata = (u.Used - used) / int64(gen)
		} else {
			used = u.Used
		}
	}
	return nil
}

func (x *indexBench) generation(ctx context.Context, gen int, records []repo.Record) error {
	stage, err := x.st.NewStage(ctx, "debian", "stable")
	if err != nil {
		return err
	}
	if err := stage.Begin(ctx, indexName); err != nil {
		return err
	}
	var plain bytes.Buffer
	for i := range records {
		if err := stage.Add(ctx, &records[i]); err != nil {
			return err
		}
		plain.Write(records[i].Bytes)
		plain.WriteString("\n\n")
	}
	if _, _, err := stage.End(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, x.argv[0], x.argv[1:]...)
	cmd.Stdin = bytes.NewReader(plain.Bytes())
	start := time.Now()
	packed, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", x.argv[0], err)
	}
	x.program = time.Since(start)
	info, err := cas.Put(ctx, x.blobs, packed, time.Time{})
	if err != nil {
		return err
	}
	p := repo.Listed{Path: indexName, Size: int64(plain.Len()), SHA256: cas.Sum(plain.Bytes())}
	f := repo.Listed{Path: indexName + x.suffix, Size: info.Size, SHA256: info.Digest}
	x.plains, x.forms, x.plainSize = append(x.plains, p.SHA256), append(x.forms, f.SHA256), p.Size
	x.listed[stage.Gen()] = map[string]repo.Listed{p.Path: p, f.Path: f}
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(gen) * 6 * time.Hour)
	_, err = x.st.Seal(ctx, &meta.Sealing{
		Snapshot: meta.Snapshot{Mirror: "debian", Type: "deb", Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: stage.Gen(), Date: date}}},
		Generations: []meta.Generation{{
			Mirror: "debian", Suite: "stable", Gen: stage.Gen(), Date: date, Trust: repo.TrustSignature, Complete: true, Packages: len(records),
			Groups: []meta.Group{{Index: indexName, Packages: true, Count: len(records), Form: f, Plain: p}},
		}},
		Listings: [][]repo.File{{{Path: indexBlobPath + p.Path, Size: p.Size, SHA256: p.SHA256}, {Path: indexBlobPath + f.Path, Size: f.Size, SHA256: f.SHA256}}},
	}, date)
	return err
}

// decode measures how long the program takes to decompress a variant, the other way to
// get the plain index.
func (x *indexBench) decode(ctx context.Context, form cas.Digest) error {
	data, err := cas.ReadAll(ctx, x.blobs, form, 1<<30)
	if err != nil {
		return err
	}
	for range indexGens - 1 {
		cmd := exec.CommandContext(ctx, x.argv[0], "-dc")
		cmd.Stdin = bytes.NewReader(data)
		start := time.Now()
		if _, err := cmd.Output(); err != nil {
			return fmt.Errorf("%s -dc: %w", x.argv[0], err)
		}
		if took := time.Since(start); x.decoder == 0 || took < x.decoder {
			x.decoder = took
		}
	}
	return nil
}

// make measures making both variants of the newest compacted generation.
func (x *indexBench) make(ctx context.Context, dir string) error {
	gone := x.forms[indexGens-2]
	if err := x.decode(ctx, gone); err != nil {
		return err
	}
	if err := x.blobs.Remove(ctx, gone, "bench", nil); err != nil {
		return err
	}
	store, err := indices.Open(indices.Options{Blobs: x.blobs, Meta: x.st, Dir: filepath.Join(dir, "made"), Size: 1 << 30})
	if err != nil {
		return err
	}
	read := func(d cas.Digest) (time.Duration, error) {
		start := time.Now()
		r, err := store.Open(ctx, d)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
		return time.Since(start), err
	}
	for _, d := range x.plains[:indexGens-1] {
		took, err := read(d)
		if err != nil {
			return err
		}
		if x.plain == 0 || took < x.plain {
			x.plain = took
		}
	}
	x.variant, err = read(gone)
	return err
}

// Signed implements indices.Engine.
func (x *indexBench) Signed(_ context.Context, g *meta.Generation) (map[string]repo.Listed, error) {
	return x.listed[g.Gen], nil
}

// Decode implements indices.Engine.
func (x *indexBench) Decode(_ *meta.Generation, form string, r io.Reader) (io.ReadCloser, error) {
	return deb.Format{}.Decode(form, r)
}

// Flush implements indices.Engine.
func (x *indexBench) Flush(ctx context.Context, batch cas.Batch) error { return batch.Flush(ctx) }

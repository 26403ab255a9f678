package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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

// The compacted index, and the bounds on its size and on the time to regenerate it.
const (
	indexGens     = 3
	indexName     = "main/binary-amd64/Packages"
	xzPackages    = 4000 // xz takes a second for 700 kB
	keptOfIndex   = 1.0 / 30
	plainRatio    = 1.5
	xzRatio       = 1.3
	compactRatio  = 3        // times the program's time to compress an index
	compactMemory = 1.0 / 10 // of the size of a list of files
	indexBlobPath = "dists/stable/"
)

// runIndices compacts generations that differ in 63 stanzas, and generations of a list of
// files that differ in the files of 63 packages, and measures how their indices are
// regenerated.
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
	return runContents(ctx, b)
}

// runContents compacts generations of a list of files as large as Debian's for the
// architecture all.
func runContents(ctx context.Context, b *bench) error {
	x := &indexBench{argv: []string{"gzip", "-9n", "--rsyncable", "-c"}, suffix: ".gz", files: contentsFiles, packages: contentsPackages, bench: b}
	if b.quick {
		x.files = contentsFiles / 10
	}
	if err := x.run(ctx, filepath.Join(b.dir, "indices-contents")); err != nil {
		return err
	}
	// The first generation is stored whole, not as a difference.
	size, packed := mega(x.plainSize), x.res.Bytes/int64(indexGens-1)
	kept := float64(x.lastOrder) / float64(packed)
	b.add(row{
		work: fmt.Sprintf("kept of a list of files for a sync that changed those of %d packages", changed1), other: mega(packed) + " of list (gz)",
		ours: fmt.Sprintf("%d bytes", x.lastOrder), ratio: fmt.Sprintf("%.4f", kept), bound: "<= 1/30", ok: judge(kept <= keptOfIndex),
		note: size + " plain",
	})
	took := x.compact.wall.Seconds() / float64(indexGens-1) / x.program.Seconds()
	b.add(row{
		work: "compact a list of files, " + size, other: "gzip -9n of it " + seconds(x.program), ours: seconds(x.compact.wall / (indexGens - 1)),
		ratio: fmt.Sprintf("%.2f", took), bound: "<= 3.00", ok: judge(took <= compactRatio),
	})
	memory := float64(x.compact.anon) / float64(x.plainSize)
	b.add(row{
		work: "memory for it", other: size + " of list", ours: mega(x.compact.anon),
		ratio: fmt.Sprintf("%.2f", memory), bound: "<= 1/10", ok: judge(b.quick || memory <= compactMemory),
	})
	plain := x.plain.Seconds() / x.decoder.Seconds()
	b.add(row{
		work: "plain list of files of an old generation", other: "gzip -dc of it " + seconds(x.decoder), ours: seconds(x.plain),
		ratio: fmt.Sprintf("%.2f", plain), bound: "<= 1.50", ok: judge(plain <= plainRatio),
		note: fmt.Sprintf("%s, %.0f MB/s, verified and kept in the cache; the first byte after %s", size, float64(x.plainSize)/x.plain.Seconds()/1e6, seconds(x.first)),
	})
	return nil
}

// indexBench is the history of one index, and its measurements.
type indexBench struct {
	argv     []string // the program that compresses its variant
	suffix   string
	packages int
	files    int // of each package: a list of files in place of an index of stanzas
	bench    *bench
	dir      string

	st        *bolt.Store
	blobs     cas.Store
	res       indices.Result
	lastOrder int64 // bytes of the newest order
	compact   cost
	plains    []cas.Digest
	variants  []cas.Digest
	metadata  int64 // bytes for each further generation

	plainSize      int64
	plain, variant time.Duration
	first          time.Duration // until the first byte of the plain index
	program        time.Duration
	decoder        time.Duration // for the program to decompress the variant
}

func (x *indexBench) run(ctx context.Context, dir string) (err error) {
	x.dir = dir
	if err := x.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.blobs.Close(), x.st.Close()) }()
	if err := x.fill(ctx); err != nil {
		return err
	}
	if err := x.compactAll(ctx); err != nil {
		return err
	}
	if x.res.Indices != indexGens-1 {
		return fmt.Errorf("compacted %d indices, expected %d: is %s another version?", x.res.Indices, indexGens-1, x.argv[0])
	}
	return x.make(ctx)
}

func (x *indexBench) open() (err error) {
	if x.st, err = openStore(x.dir); err != nil {
		return err
	}
	if x.blobs, err = casdir.Open(x.dir, casdir.Options{}); err != nil {
		return errors.Join(err, x.st.Close())
	}
	return nil
}

// compactAll compacts the generations. For lists of files it does so in a process whose
// memory is measured.
func (x *indexBench) compactAll(ctx context.Context) (err error) {
	if x.files == 0 {
		x.res, err = compactIn(ctx, x.st, x.blobs)
		return err
	}
	if err := errors.Join(x.blobs.Close(), x.st.Close()); err != nil {
		return err
	}
	x.compact, err = x.bench.measure(ctx, exec.CommandContext(ctx, os.Args[0], "@compact", x.dir))
	if err == nil {
		err = json.Unmarshal(x.compact.out, &x.res)
	}
	if err = errors.Join(err, x.open()); err != nil {
		return err
	}
	g, err := x.st.Generation(ctx, "debian", "stable", indexGens-1)
	if err != nil || g.Groups[0].Made == nil {
		return err
	}
	info, err := x.blobs.Stat(ctx, g.Groups[0].Made.Order[0])
	x.lastOrder = info.Size
	return err
}

// compactDir compacts the generations in a data directory, and prints the result.
func compactDir(dir string) error {
	st, err := openStore(dir)
	if err != nil {
		return err
	}
	defer st.Close()
	blobs, err := casdir.Open(dir, casdir.Options{})
	if err != nil {
		return err
	}
	defer blobs.Close()
	res, err := compactIn(context.Background(), st, blobs)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

func compactIn(ctx context.Context, st *bolt.Store, blobs cas.Store) (res indices.Result, err error) {
	c := indices.NewCompactor(indices.CompactorConfig{Meta: st, Blobs: blobs, Engine: engine{}, Keep: 1})
	return res, c.Run(ctx, "debian", "stable", true, &res)
}

// fill stages and seals the generations.
func (x *indexBench) fill(ctx context.Context) error {
	if x.files > 0 {
		list := &contents{packages: x.packages, files: x.files, changed: map[int]int{}}
		for gen := range indexGens {
			for i := range changed1 * min(gen, 1) {
				list.changed[(gen*changed1*31+i*997)%x.packages] = gen
			}
			list.rewind()
			if err := x.generation(ctx, gen, nil, list); err != nil {
				return err
			}
		}
		return nil
	}
	pars, _, err := stanzas(x.packages)
	if err != nil {
		return err
	}
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
		var plain bytes.Buffer
		for i := range records {
			plain.Write(records[i].Bytes)
			plain.WriteString("\n\n")
		}
		if err := x.generation(ctx, gen, records, &plain); err != nil {
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

// generation stages and seals one generation of an index.
func (x *indexBench) generation(ctx context.Context, gen int, records []repo.Record, plain io.Reader) error {
	stage, err := x.st.NewStage(ctx, "debian", "stable")
	if err != nil {
		return err
	}
	if err := stage.Begin(ctx, indexName); err != nil {
		return err
	}
	for i := range records {
		if err := stage.Add(ctx, &records[i]); err != nil {
			return err
		}
	}
	if _, _, err := stage.End(ctx); err != nil {
		return err
	}
	sum := sha256.New()
	p := repo.Listed{Path: indexName}
	file, err := os.Create(filepath.Join(x.dir, "plain"))
	if err != nil {
		return err
	}
	defer file.Close()
	if p.Size, err = io.Copy(io.MultiWriter(file, sum), plain); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, x.argv[0], x.argv[1:]...)
	cmd.Stdin = file
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
	p.SHA256 = cas.Digest(sum.Sum(nil))
	f := repo.Listed{Path: indexName + x.suffix, Size: info.Size, SHA256: info.Digest}
	x.plains, x.variants, x.plainSize = append(x.plains, p.SHA256), append(x.variants, f.SHA256), p.Size
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(gen) * 6 * time.Hour)
	_, err = x.st.Seal(ctx, &meta.Sealing{
		Snapshot: meta.Snapshot{Mirror: "debian", Type: "deb", Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: stage.Gen(), Date: date}}},
		Generations: []meta.Generation{{
			Mirror: "debian", Suite: "stable", Gen: stage.Gen(), Date: date, Trust: repo.TrustSignature, Complete: true, Packages: len(records),
			Groups: []meta.Group{{Index: indexName, Packages: x.files == 0, Count: len(records), Variant: f, Plain: p}},
		}},
		Listings: [][]repo.File{{{Path: indexBlobPath + p.Path, Size: p.Size, SHA256: p.SHA256}, {Path: indexBlobPath + f.Path, Size: f.Size, SHA256: f.SHA256}}},
	}, date)
	return err
}

// decode measures how long the program takes to decompress a variant, which is the other
// way to get the plain index.
func (x *indexBench) decode(ctx context.Context, variant cas.Digest) error {
	data, err := cas.ReadAll(ctx, x.blobs, variant, 1<<30)
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

// make measures the regeneration of both variants of the newest compacted generation.
func (x *indexBench) make(ctx context.Context) error {
	gone := x.variants[indexGens-2]
	if err := x.decode(ctx, gone); err != nil {
		return err
	}
	if err := x.blobs.Remove(ctx, gone, "bench", nil); err != nil {
		return err
	}
	store, err := indices.Open(indices.Options{Blobs: x.blobs, Meta: x.st, Dir: filepath.Join(x.dir, "made"), Size: 1 << 30})
	if err != nil {
		return err
	}
	var first time.Duration
	read := func(d cas.Digest) (time.Duration, error) {
		start := time.Now()
		r, err := store.Open(ctx, d)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
			return 0, err
		}
		first = time.Since(start)
		_, err = io.Copy(io.Discard, r)
		return time.Since(start), err
	}
	for _, d := range x.plains[:indexGens-1] {
		took, err := read(d)
		if err != nil {
			return err
		}
		if x.plain == 0 || took < x.plain {
			x.plain, x.first = took, first
		}
	}
	x.variant, err = read(gone)
	return err
}

// engine is the part of snapd that a compaction needs and the bench lacks.
type engine struct{}

// Signed implements indices.Engine.
func (engine) Signed(_ context.Context, g *meta.Generation) (map[string]repo.Listed, error) {
	gr := &g.Groups[0]
	return map[string]repo.Listed{gr.Plain.Path: gr.Plain, gr.Variant.Path: gr.Variant}, nil
}

// Decode implements indices.Engine.
func (engine) Decode(_ *meta.Generation, variant string, r io.Reader) (io.ReadCloser, error) {
	return deb.Format{}.Decode(variant, r)
}

// Flush implements indices.Engine.
func (engine) Flush(ctx context.Context, batch cas.Batch) error { return batch.Flush(ctx) }

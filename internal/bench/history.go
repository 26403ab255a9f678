package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

const historySyncs = 200

// runHistory stages and seals 200 generations as a sync does, but without a network, to
// measure only the metadata store.
func runHistory(ctx context.Context, b *bench) error {
	pars, _, err := stanzas(b.packages)
	if err != nil {
		return err
	}
	records := make([]repo.Record, len(pars))
	for i, p := range pars {
		records[i] = recordOf(withTinyBody(p))
	}
	dir := filepath.Join(b.dir, "history")
	st, err := openStore(dir)
	if err != nil {
		return err
	}
	defer st.Close()
	start := time.Now()
	var first time.Duration
	for gen := range historySyncs + 1 {
		var changed []int
		if gen > 0 {
			// Change different packages each time, until all have changed.
			for i := range changed1 {
				k := (gen*changed1*31 + i*997) % len(records)
				records[k] = recordOf(withTinyBody(bump(string(records[k].Bytes), "+"+fmt.Sprint(gen))))
				changed = append(changed, k)
			}
		}
		if err := stageOne(ctx, st, "stable", gen, records, changed); err != nil {
			return err
		}
		if gen == 0 {
			first = time.Since(start)
			start = time.Now()
		}
	}
	each := time.Since(start) / historySyncs
	u, err := st.Usage(ctx)
	if err != nil {
		return err
	}
	b.add(row{
		work: "metadata after 200 syncs, used pages", other: mega(u.Data) + " of keys and values", ours: mega(u.Used),
		ratio: fmt.Sprintf("%.2f", float64(u.Used)/float64(u.Data)), bound: "<= 4.00 of them", ok: judge(u.Used <= 4*u.Data),
		note: fmt.Sprintf("staging %s the first time, %s each further sync; file of %s", seconds(first), seconds(each), mega(u.File)),
	})
	return nil
}

// recordOf returns the record of a stanza of the upstream.
func recordOf(p string) repo.Record {
	r := repo.Record{Kind: repo.KindBinary, Bytes: []byte(p)}
	var f repo.File
	for l := range strings.SplitSeq(p, "\n") {
		switch k, v, _ := strings.Cut(l, ": "); k {
		case "Package":
			r.Name = v
		case "Version":
			r.Version = v
		case "Architecture":
			r.Arch = v
		case "Filename":
			f.Path = v
		}
	}
	body := tinyBody(f.Path)
	f.Size, f.SHA256 = int64(len(body)), cas.Sum(body)
	r.Files = []repo.File{f}
	r.Sources = []repo.Ref{{Name: r.Name, Version: r.Version}}
	return r
}

// stageOne stages and seals a state of a suite in which the records at the indices in
// changed differ. In the first state all are new. Other suites stay the same.
func stageOne(ctx context.Context, st *bolt.Store, suite repo.SuiteName, gen int, records []repo.Record, changed []int) error {
	stage, err := st.NewStage(ctx, "debian", suite)
	if err != nil {
		return err
	}
	if err := stage.Begin(ctx, "main/binary-amd64/Packages"); err != nil {
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
	if gen == 0 {
		changed = make([]int, len(records))
		for i := range changed {
			changed[i] = i
		}
	}
	for len(changed) > 0 {
		n := min(4096, len(changed))
		var aliases []meta.Alias
		for _, i := range changed[:n] {
			sum := records[i].Files[0].SHA256
			other := cas.Sum(sum[:]) // as random as a SHA-1
			aliases = append(aliases, meta.Alias{Algo: meta.AliasSHA1, Other: other[:20], SHA256: sum})
		}
		if err := st.NoteBlobs(ctx, nil, aliases, time.Time{}); err != nil {
			return err
		}
		changed = changed[n:]
	}
	digest := func(what byte) cas.Digest {
		return cas.Sum(binary.BigEndian.AppendUint64(append([]byte(suite), what), uint64(gen)))
	}
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(gen) * 6 * time.Hour)
	dist := "dists/" + string(suite)
	variants := []repo.File{
		{Path: dist + "/main/binary-amd64/Packages", Size: 50e6, SHA256: digest('p')},
		{Path: dist + "/main/binary-amd64/Packages.gz", Size: 12e6, SHA256: digest('g')},
		{Path: dist + "/main/binary-amd64/Packages.xz", Size: 9e6, SHA256: digest('x')},
	}
	suites := []meta.SnapshotSuite{{Suite: suite, Gen: stage.Gen(), Date: date}}
	if last, err := st.Latest(ctx, "debian"); err == nil {
		for _, s := range last.Suites {
			if s.Suite != suite {
				suites = append(suites, s)
			}
		}
	}
	s := &meta.Sealing{
		Snapshot: meta.Snapshot{Mirror: "debian", Type: "deb", Suites: suites},
		Generations: []meta.Generation{{
			Mirror: "debian", Suite: suite, Gen: stage.Gen(), Date: date, Trust: repo.TrustSignature, ByHash: true, Complete: true, Packages: len(records),
			Docs: []meta.Doc{{File: repo.File{Path: dist + "/InRelease", Size: 2000, SHA256: digest('r')}, LastModified: date}},
			Groups: []meta.Group{{
				Index: "main/binary-amd64/Packages", Component: "main", Arch: "amd64", Packages: true, Count: len(records),
				Variant: repo.Listed{Path: "main/binary-amd64/Packages.xz", Size: 9e6, SHA256: digest('x')},
				Plain:   repo.Listed{Path: "main/binary-amd64/Packages", Size: 50e6, SHA256: digest('p')},
			}},
		}},
		Listings: [][]repo.File{variants},
	}
	_, err = st.Seal(ctx, s, date)
	return err
}

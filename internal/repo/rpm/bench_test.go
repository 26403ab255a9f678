package rpm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// benchPackages returns the number of packages in the benchmark's repository. Set
// SNAPD_BENCH_PACKAGES=60000 for a repository as large as Fedora's.
func benchPackages() int {
	if n, err := strconv.Atoi(os.Getenv("SNAPD_BENCH_PACKAGES")); err == nil {
		return n
	}
	return 3000
}

type largeUpstream struct {
	l *rpmtest.Large
}

func (u largeUpstream) open(_ context.Context, f repo.Listed) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(u.l.File(f.Path))), nil
}

// discard is a sink that only counts files and bytes.
type discard struct{ files, bytes int }

func (d *discard) Put(_ context.Context, p string, data []byte) (repo.File, error) {
	d.files++
	d.bytes += len(data)
	return repo.File{Path: p, Size: int64(len(data)), SHA256: cas.Sum(data)}, nil
}
func (d *discard) Link(context.Context, string, repo.File) error { return nil }
func (d *discard) Create(_ context.Context, p string) (repo.SinkWriter, error) {
	return &discardFile{d: d, path: p}, nil
}

type discardFile struct {
	bytes.Buffer
	d    *discard
	path string
}

func (f *discardFile) Commit() (repo.File, error) {
	return f.d.Put(context.Background(), f.path, f.Bytes())
}
func (f *discardFile) Abort() {}

func BenchmarkLarge(b *testing.B) {
	key := signtest.NewKey(b, "fedora")
	for _, compress := range []string{".gz", ".zst"} {
		l, err := rpmtest.NewLarge(benchPackages(), signtest.Signer(b, key), compress, t0, nil)
		if err != nil {
			b.Fatal(err)
		}
		docs := []repo.Doc{{Path: repomdPath, Data: l.File(repomdPath)}, {Path: ascPath, Data: l.File(ascPath)}}
		root, err := Format{}.ParseRoot(config.Mirror{}, Suite, docs, repo.VerifyParams{Keyring: signtest.Keyring(key)})
		if err != nil {
			b.Fatal(err)
		}
		groups, err := Format{}.Plan(config.Mirror{}, root)
		if err != nil {
			b.Fatal(err)
		}
		md, err := rpmmd.ParseRepoMD(docs[0].Data)
		if err != nil {
			b.Fatal(err)
		}
		var plain int64
		for _, d := range md.Data {
			plain += d.OpenSize
		}
		u := largeUpstream{l}
		var recs []repo.Record
		b.Run("read"+compress, func(b *testing.B) {
			b.SetBytes(plain)
			b.ReportAllocs()
			for b.Loop() {
				recs = recs[:0]
				err := Format{}.Read(b.Context(), root, groups[0], groups[0].Variants[0], u.open, func(r *repo.Record) error {
					if len(recs) < 2000 {
						c := *r
						c.Bytes = bytes.Clone(r.Bytes)
						recs = append(recs, c)
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("derive%s", compress), func(b *testing.B) {
			b.SetBytes(plain)
			for b.Loop() {
				c := repo.Choice{Suite: Suite, Root: root, Groups: groups, Open: u.open, Records: recordsOf(recs)}
				err := Format{}.Derive(b.Context(), repo.DeriveParams{Mirror: config.Mirror{Name: "fedora"}, Date: t1, Choices: []repo.Choice{c}, Signer: signtest.Signer(b, key)}, &discard{})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

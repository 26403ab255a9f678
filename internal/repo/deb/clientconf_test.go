package deb

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign/signtest"
)

func TestClientConfig(t *testing.T) {
	p := repo.SourceParams{
		URL: "http://mirror.example.org/frozen/4.1/debian", Suites: []repo.SuiteName{"bookworm", "bookworm-updates", "sec", "flat/"},
		Components: map[repo.SuiteName][]string{"bookworm": {"main", "contrib"}, "bookworm-updates": {"main", "contrib"}, "sec": {"updates/main"}},
		Archs:      []string{"all", "amd64", "source"}, HasSources: true, Name: "snapd-4.1-debian",
		KeyArmored: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n=efgh\n-----END PGP PUBLIC KEY BLOCK-----\n", Comment: "Frozen 4.1\n",
	}
	got, err := Format{}.ClientConfig("deb822", p)
	if err != nil {
		t.Fatal(err)
	}
	const key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n =efgh\n -----END PGP PUBLIC KEY BLOCK-----\n"
	const uri = "Types: deb deb-src\nURIs: http://mirror.example.org/frozen/4.1/debian\n"
	want := "# Frozen 4.1\n" + uri + "Suites: bookworm bookworm-updates\nComponents: main contrib\nArchitectures: amd64\n" + key +
		"\n" + uri + "Suites: sec\nComponents: updates/main\nArchitectures: amd64\n" + key +
		"\n" + uri + "Suites: flat/\nArchitectures: amd64\n" + key
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	// Only suites with sources get deb-src, because apt complains about others.
	some := p
	some.Suites, some.NoSources, some.KeyArmored, some.Comment = p.Suites[:2], map[repo.SuiteName]bool{"bookworm-updates": true}, "", ""
	some.KeyFiles = []string{"/etc/apt/keyrings/a.asc"}
	got, err = Format{}.ClientConfig("list", some)
	if err != nil {
		t.Fatal(err)
	}
	const line = " [arch=amd64 signed-by=/etc/apt/keyrings/a.asc] http://mirror.example.org/frozen/4.1/debian bookworm"
	if d := cmp.Diff("deb"+line+" main contrib\ndeb-src"+line+" main contrib\ndeb"+line+"-updates main contrib\n", got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if _, err := (Format{}).ClientConfig("list", p); err == nil || err.Error() != "one-line sources of snapd-4.1-debian cannot contain a key: expected a key file" {
		t.Errorf("error %v", err)
	}
	p.KeyFiles, p.HasSources = []string{"/etc/apt/keyrings/a.asc", "/etc/apt/keyrings/b.asc"}, false
	got, err = Format{}.ClientConfig("list", p)
	if err != nil {
		t.Fatal(err)
	}
	want = "# Frozen 4.1\n"
	for _, s := range []string{"bookworm main contrib", "bookworm-updates main contrib", "sec updates/main", "flat/"} {
		want += "deb [arch=amd64 signed-by=/etc/apt/keyrings/a.asc,/etc/apt/keyrings/b.asc] http://mirror.example.org/frozen/4.1/debian " + s + "\n"
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if _, err := (Format{}).ClientConfig("repo", p); err == nil || err.Error() != `client configuration of snapd-4.1-debian: kind "repo": expected deb822, list or mmdebstrap` {
		t.Errorf("error %v", err)
	}
}

func TestMmdebstrapReadsClientConfig(t *testing.T) {
	if testing.Short() {
		t.Skip("runs mmdebstrap")
	}
	mm := needs.Program(t, "mmdebstrap")
	a := debtest.New(t)
	a.Suite("stable").Add(debtest.Package{Name: "hello"})
	a.Publish(published)
	m := mirror()
	m.Suites, m.Sources = []string{"stable"}, false
	key := signtest.NewKey(t, "server")
	srv := derive(t, key, m, frozen, choice(t, a, m, "stable", func(*repo.Record) bool { return true })).serve(t, a)
	conf, err := Format{}.ClientConfig("mmdebstrap", repo.SourceParams{URL: srv.URL, Suites: []repo.SuiteName{"stable"},
		Components: map[repo.SuiteName][]string{"stable": {"main"}}, Archs: []string{"amd64"}, KeyArmored: signtest.Signer(t, key).PublicKeyArmored()})
	if err != nil {
		t.Fatal(err)
	}
	cmd := needs.AsRoot(exec.CommandContext(t.Context(), mm, "--simulate", "--variant=custom", "--mode=root", "--include=hello", "--architectures=amd64", "", "/dev/null", "-"))
	cmd.Stdin = strings.NewReader(conf)
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("mmdebstrap: %v\n%s", err, out)
	}
}

// discard is a sink for benchmarks, which stores nothing.
type discard struct{}

func (discard) Put(context.Context, string, []byte) (repo.File, error) { return repo.File{}, nil }
func (discard) Link(context.Context, string, repo.File) error          { return nil }
func (discard) Create(context.Context, string) (repo.SinkWriter, error) {
	return discardFile{io.Discard}, nil
}

type discardFile struct{ io.Writer }

func (discardFile) Commit() (repo.File, error) { return repo.File{}, nil }
func (discardFile) Abort()                     {}

// BenchmarkDeriveExact freezes 2,000 packages of a real index.
func BenchmarkDeriveExact(b *testing.B) {
	data := realPackages(b)
	var recs []repo.Record
	n, size := 0, 0
	if err := readIndex(b.Context(), bytes.NewReader(data), repo.KindBinary, func(r *repo.Record) error {
		if n++; n%31 == 0 && len(recs) < 2000 {
			recs = append(recs, clone(r))
			size += len(r.Bytes)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	root := &repo.Root{Suite: "x", Docs: []repo.Doc{{Path: "Release", Data: []byte("Date: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n")}}}
	c := repo.Choice{Suite: "x", Root: root, Groups: []repo.Group{{Index: "main/binary-amd64/Packages", Packages: true}},
		Records: func(_ context.Context, _ string, emit func(repo.Record) error) error {
			for _, r := range recs {
				if err := emit(r); err != nil {
					return err
				}
			}
			return nil
		}}
	signer := signtest.Signer(b, signtest.NewKey(b, "x"))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := (Format{}).Derive(b.Context(), repo.DeriveParams{Date: frozen, Choices: []repo.Choice{c}, Signer: signer}, discard{}); err != nil {
			b.Fatal(err)
		}
	}
}

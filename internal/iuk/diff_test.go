package iuk

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

type fixture = squashfstest.Member

const fixtureTime = 1_700_000_000

func fdir(name string) fixture {
	return fixture{Name: "./" + name + "/", Kind: tar.TypeDir, Mode: 0o755, MTime: fixtureTime}
}

func ffile(name string, data []byte) fixture {
	return fixture{Name: "./" + name, Kind: tar.TypeReg, Mode: 0o644, MTime: fixtureTime, Data: data}
}

func fsym(name, to string) fixture {
	return fixture{Name: "./" + name, Kind: tar.TypeSymlink, Mode: 0o777, MTime: fixtureTime, Link: to}
}

func fhard(name, to string) fixture {
	return fixture{Name: "./" + name, Kind: tar.TypeLink, Link: to}
}

func fdev(name string, minor int64) fixture {
	return fixture{Name: "./" + name, Kind: tar.TypeChar, Mode: 0o600, MTime: fixtureTime, Major: 1, Minor: minor}
}

func with(m fixture, change func(m *fixture)) fixture {
	change(&m)
	return m
}

// diff writes the difference between two images to w.
func diff(ctx context.Context, w io.WriterAt, old, new *squashfs.Reader, o DiffOptions) (DiffStats, error) {
	d, err := newDiffer(ctx, new, []*squashfs.Reader{old}, o)
	if err != nil {
		return DiffStats{}, err
	}
	err = d.write(ctx, []io.WriterAt{w})
	return d.olds[0].stats, err
}

// states returns two states of a tree with differences of every kind. Long because it
// is one list.
func states() (old, new []fixture) {
	text, noise := squashfstest.Text, squashfstest.Noise
	xattr := func(k, v string) func(*fixture) {
		return func(m *fixture) { m.Xattr = map[string]string{k: v} }
	}
	both := func(m ...fixture) { old, new = append(old, m...), append(new, m...) }
	was := func(m ...fixture) { old = append(old, m...) }
	now := func(m ...fixture) { new = append(new, m...) }

	was(fixture{Name: "./", Kind: tar.TypeDir, Mode: 0o755, MTime: fixtureTime, Xattr: map[string]string{"user.root": "old"}})
	now(fixture{Name: "./", Kind: tar.TypeDir, Mode: 0o711, UID: 3, MTime: fixtureTime + 5, Xattr: map[string]string{"user.root": "new"}})

	// Unchanged, of each kind.
	both(fdir("same"), fdir("same/deep"), ffile("same/deep/big", text(1, 1<<20+4000)), ffile("same/small", text(2, 3000)),
		fsym("same/link", "small"), fdev("same/dev", 3), ffile("same/empty", nil),
		with(ffile("same/cap", text(3, 10_000)), xattr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
		ffile("same/hard-a", text(4, 20_000)), fhard("same/hard-b", "same/hard-a"))

	// Gone.
	both(fdir("gone"), fdir("gone/stays"), ffile("gone/stays/file", []byte("stays")))
	was(ffile("gone/file", []byte("x")), fdir("gone/dir"), ffile("gone/dir/in", text(5, 5000)), fdir("gone/dir/dir"),
		fsym("gone/link", "nowhere"), ffile("gone/stays/goes", []byte("y")), ffile(`gone/back\slash`, []byte("z")), ffile("gone/\xff", []byte("f")))

	// New.
	both(fdir("new"))
	now(ffile("new/file", text(6, 70_000)), fdir("new/dir"), ffile("new/dir/big", append(text(7, 1<<19), noise(8, 1<<18)...)), fdir("new/dir/empty"),
		fsym("new/link", "file"), fdev("new/null", 3), fixture{Name: "./new/fifo", Kind: tar.TypeFifo, Mode: 0o622, MTime: fixtureTime},
		ffile("new/holes", append(make([]byte, 5<<20), text(9, 1000)...)), ffile(`new/x\x2dy`, []byte("b")), ffile("new/\xfe", []byte("fe")),
		with(ffile("new/xattrs", []byte("x")), xattr("user.k", strings.Repeat("v", 3000))))

	// Content.
	both(fdir("content"))
	was(ffile("content/small", []byte("abc")), ffile("content/same-size", []byte("aaaa")), ffile("content/big", text(10, 1<<19)), ffile("content/grown", text(11, 1<<20)))
	now(ffile("content/small", []byte("abcd")), ffile("content/same-size", []byte("aaab")), ffile("content/big", append(text(10, 1<<19-1), '!')), ffile("content/grown", text(11, 1<<20+1)))
	was(ffile("content/tail", text(12, 1<<20+100)), ffile("content/hole", make([]byte, 3<<20)))
	now(ffile("content/tail", append(text(12, 1<<20+99), '!')), ffile("content/hole", append(make([]byte, 3<<20-1), '!')))

	// Attributes only.
	both(fdir("attr"))
	for i, change := range []func(*fixture){
		func(m *fixture) { m.Mode = 0o4711 },
		func(m *fixture) { m.UID, m.GID = 33, 70000 },
		func(m *fixture) { m.MTime++ },
		xattr("user.a", "1"),
	} {
		f, d, l := ffile(fmt.Sprintf("attr/file%d", i), text(20+int64(i), 50_000)), fdir(fmt.Sprintf("attr/dir%d", i)), fsym(fmt.Sprintf("attr/link%d", i), "to")
		was(f, d, l, ffile(fmt.Sprintf("attr/dir%d/in", i), []byte("in")))
		now(with(f, change), with(d, change))
		now(ffile(fmt.Sprintf("attr/dir%d/in", i), []byte("in")))
		if i == 1 || i == 2 {
			now(with(l, change))
		} else {
			now(l)
		}
	}
	was(fdev("attr/dev", 3), fsym("attr/target", "one"), with(ffile("attr/unx", []byte("u")), xattr("user.gone", "1")))
	now(fdev("attr/dev", 5), fsym("attr/target", "two"), ffile("attr/unx", []byte("u")))

	// Types.
	both(fdir("type"))
	kinds := []func(string) []fixture{
		func(n string) []fixture { return []fixture{ffile(n, []byte("file"))} },
		func(n string) []fixture { return []fixture{fdir(n), ffile(n+"/in", []byte("in")), fdir(n + "/sub")} },
		func(n string) []fixture { return []fixture{fsym(n, "somewhere")} },
		func(n string) []fixture { return []fixture{fdev(n, 7)} },
		func(n string) []fixture {
			return []fixture{{Name: "./" + n, Kind: tar.TypeFifo, Mode: 0o644, MTime: fixtureTime}}
		},
	}
	for i, a := range kinds {
		for j, b := range kinds {
			if i != j {
				n := fmt.Sprintf("type/%d-%d", i, j)
				was(a(n)...)
				now(b(n)...)
			}
		}
	}

	// Hard links.
	both(fdir("hard"))
	body := func(i int64) []byte { return text(30+i, 40_000) }
	was(ffile("hard/split-a", body(0)), fhard("hard/split-b", "hard/split-a"))
	now(ffile("hard/split-a", body(0)), ffile("hard/split-b", body(0)))
	was(ffile("hard/join-a", body(1)), ffile("hard/join-b", body(1)))
	now(ffile("hard/join-a", body(1)), fhard("hard/join-b", "hard/join-a"))
	was(ffile("hard/add-a", body(2)), fhard("hard/add-b", "hard/add-a"))
	now(ffile("hard/add-a", body(2)), fhard("hard/add-b", "hard/add-a"), fhard("hard/add-c", "hard/add-a"))
	was(ffile("hard/drop-a", body(3)), fhard("hard/drop-b", "hard/drop-a"), fhard("hard/drop-c", "hard/drop-a"))
	now(ffile("hard/drop-a", body(3)), fhard("hard/drop-c", "hard/drop-a"))
	was(ffile("hard/last-a", body(4)), fhard("hard/last-b", "hard/last-a"))
	now(ffile("hard/last-a", body(4)))
	was(ffile("hard/content-a", body(5)), fhard("hard/content-b", "hard/content-a"))
	now(ffile("hard/content-a", body(6)), fhard("hard/content-b", "hard/content-a"))
	was(ffile("hard/swap-a", body(7)), fhard("hard/swap-b", "hard/swap-a"), ffile("hard/swap-c", body(7)), fhard("hard/swap-d", "hard/swap-c"))
	now(ffile("hard/swap-a", body(7)), ffile("hard/swap-b", body(7)), fhard("hard/swap-c", "hard/swap-a"), fhard("hard/swap-d", "hard/swap-b"))
	both(fsym("hard/sym-a", "x"), fhard("hard/sym-b", "hard/sym-a"))
	was(fdev("hard/dev-a", 9), fhard("hard/dev-b", "hard/dev-a"))
	now(fdev("hard/dev-a", 8), fhard("hard/dev-b", "hard/dev-a"))

	// Many small files, some of them changed, so that fragment blocks contain both
	// changed and unchanged files.
	both(fdir("many"))
	for i := range 600 {
		f := ffile(fmt.Sprintf("many/%03d", i), text(1000+int64(i), 300+i*5))
		was(f)
		switch {
		case i%29 == 0: // gone
		case i%31 == 0 || i > 200 && i < 300:
			now(with(f, func(m *fixture) { m.Data = text(5000+int64(i), len(m.Data)) }))
		default:
			now(f)
		}
	}
	// Duplicates.
	both(ffile("dup-a", text(1, 1<<20+4000)))
	now(ffile("dup-b", text(1, 1<<20+4000)), ffile("dup-c", text(6, 70_000)))
	return old, new
}

// builder makes an image of a tree.
type builder struct {
	name  string
	build func(t testing.TB, m []fixture) string
}

func packed(o squashfs.Options) builder {
	return builder{fmt.Sprintf("%v-%d", o.Compressor, o.BlockSize>>10), func(t testing.TB, m []fixture) string { return squashfstest.Pack(t, m, o) }}
}

func mksquashfs(args ...string) builder {
	return builder{"mksquashfs" + strings.Join(args, ""), func(t testing.TB, m []fixture) string { return squashfstest.Mksquashfs(t, m, args...) }}
}

func diffImage(t testing.TB, old, new string, o DiffOptions) (string, DiffStats) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "diff.squashfs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stats, err := diff(t.Context(), f, squashfstest.Open(t, old), squashfstest.Open(t, new), o)
	if err != nil {
		t.Fatal(err)
	}
	return name, stats
}

func input(t testing.TB, name string) Input {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Input{R: f, Size: st.Size(), Name: filepath.Base(name)}
}

func verifyDiff(ctx context.Context, t testing.TB, old, diff, new string) (*VerifyReport, error) {
	rep := &VerifyReport{}
	return rep, verifyOverlay(ctx, squashfstest.Open(t, old), squashfstest.Open(t, diff), squashfstest.Open(t, new), nil, VerifyOptions{}, rep)
}

// TestLaw checks the law of differences: the kernel's overlay of the old image and the
// difference equals the new image in every path, type, mode, owner, size, time,
// content, target, device number, xattr and hard-link group. Verify agrees.
func TestLaw(t *testing.T) {
	old, new := states()
	zstd := squashfs.Options{Compressor: squashfs.Zstd, BlockSize: 128 << 10}
	lz4 := squashfs.Options{Compressor: squashfs.LZ4, BlockSize: 64 << 10}
	tails := []string{"-comp", "xz", "-Xbcj", "x86", "-b", "256K", "-Xdict-size", "256K"}
	for _, c := range []struct{ old, new builder }{
		{packed(zstd), packed(zstd)},
		{packed(squashfs.Options{Compressor: squashfs.XZ, BlockSize: 1 << 20}), packed(squashfs.Options{Compressor: squashfs.Gzip, BlockSize: 8192, Exportable: true})},
		{packed(lz4), packed(lz4)},
		{mksquashfs(tails...), mksquashfs(tails...)},
		{mksquashfs("-comp", "zstd", "-no-fragments"), mksquashfs("-comp", "zstd", "-always-use-fragments", "-Xcompression-level", "3")},
	} {
		t.Run(c.old.name+" to "+c.new.name, func(t *testing.T) {
			if testing.Short() && c.new.name != "zstd-128" {
				t.Skip("short")
			}
			lower, next := c.old.build(t, old), c.new.build(t, new)
			diff, stats := diffImage(t, lower, next, DiffOptions{})
			if _, err := verifyDiff(t.Context(), t, lower, diff, next); err != nil {
				t.Errorf("Verify: %v", err)
			}
			tree := squashfstest.Image(t, squashfstest.Open(t, diff))
			for name, f := range tree {
				if strings.Contains(f.Xattrs, "trusted.overlay") {
					t.Errorf("%s: %s", name, f.Xattrs)
				}
				if strings.HasPrefix(name, "./same") {
					t.Errorf("%s is in the difference and did not change", name)
				}
			}
			if stats.Removed != 29 {
				t.Errorf("%d whiteouts, want 29: %+v", stats.Removed, stats)
			}
			want := squashfstest.Dir(t, squashfstest.Mount(t, next))
			got := squashfstest.Dir(t, squashfstest.Overlay(t, squashfstest.Mount(t, diff), squashfstest.Mount(t, lower)))
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("overlay and new image differ (-new +overlay):\n%s", d)
			}
			out := squashfstest.Run(t, "unsquashfs", "-no-progress", "-d", filepath.Join(t.TempDir(), "out"), diff)
			if s := strings.ToLower(out); strings.Contains(s, "warn") || strings.Contains(s, "error") || strings.Contains(s, "fail") {
				t.Errorf("unsquashfs says:\n%s", out)
			}
		})
	}
}

// TestEqualImages checks that equal trees result in an empty difference, regardless of
// the layout of the images.
func TestEqualImages(t *testing.T) {
	_, m := states()
	lz4 := squashfs.LZ4
	a := squashfstest.Pack(t, m, squashfs.Options{Compressor: lz4})
	for _, o := range []squashfs.Options{{Compressor: lz4}, {Compressor: lz4, BlockSize: 8192}, {Compressor: squashfs.Gzip}} {
		diff, stats := diffImage(t, a, squashfstest.Pack(t, m, o), DiffOptions{})
		if tree := squashfstest.Image(t, squashfstest.Open(t, diff)); len(tree) != 1 || stats.Added+stats.Changed+stats.Removed != 0 {
			t.Errorf("%v %d: %d names, %+v", o.Compressor, o.BlockSize, len(tree), stats)
		}
		if o.Compressor == lz4 && o.BlockSize == 0 && stats.DecodedBlocks != 0 {
			t.Errorf("%d blocks of equal images were decoded", stats.DecodedBlocks)
		}
	}
}

// TestDiffIgnores checks that files that match a glob and have equal content are left
// out.
func TestDiffIgnores(t *testing.T) {
	later := func(m *fixture) { m.MTime += 100 }
	f := func(n string) fixture { return ffile(n, []byte("content of "+n)) }
	old := []fixture{fdir("a"), fdir("a/b"), f("a/b/one"), f("a/two"), f("a/changed"), f("a/hard1"), fhard("a/hard2", "a/hard1"), f("other"), ffile("a/empty", nil)}
	new := []fixture{fdir("a"), fdir("a/b"), with(f("a/b/one"), later), with(f("a/two"), later), with(ffile("a/changed", []byte("CONTENT of a/changed")), later),
		with(f("a/hard1"), later), fhard("a/hard2", "a/hard1"), with(f("other"), later), with(ffile("a/empty", nil), later)}
	lower, next := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	for _, c := range []struct {
		globs []string
		want  []string
	}{
		{nil, []string{".", "./a", "./a/b", "./a/b/one", "./a/changed", "./a/empty", "./a/hard1", "./a/hard2", "./a/two", "./other"}},
		{[]string{"/a/*"}, []string{".", "./a", "./a/b", "./a/b/one", "./a/changed", "./other"}},
		{[]string{"a/hard1"}, []string{".", "./a", "./a/b", "./a/b/one", "./a/changed", "./a/empty", "./a/hard1", "./a/hard2", "./a/two", "./other"}},
		{[]string{"/**"}, []string{".", "./a", "./a/changed"}},
		{[]string{"/**/one", "/oth?r"}, []string{".", "./a", "./a/changed", "./a/empty", "./a/hard1", "./a/hard2", "./a/two"}},
	} {
		diff, _ := diffImage(t, lower, next, DiffOptions{IgnoreIfSameContent: c.globs})
		var got []string
		for name := range squashfstest.Image(t, squashfstest.Open(t, diff)) {
			got = append(got, name)
		}
		if d := cmp.Diff(c.want, sorted(got)); d != "" {
			t.Errorf("%v (-want +got):\n%s", c.globs, d)
		}
	}
	var w discardAt
	if _, err := diff(t.Context(), &w, squashfstest.Open(t, lower), squashfstest.Open(t, next), DiffOptions{IgnoreIfSameContent: []string{"a/[b"}}); err == nil || err.Error() != `bad glob "a/[b": syntax error in pattern` {
		t.Errorf("got %v", err)
	}
}

type discardAt struct{}

func (*discardAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func sorted(s []string) []string {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s
}

// TestRandomDiffs checks the law of differences for random changes.
func TestRandomDiffs(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	rng := rand.New(rand.NewSource(20240229))
	o := squashfs.Options{Compressor: squashfs.LZ4, BlockSize: 4096}
	state := map[string]fixture{}
	mutate := func() {
		for range 40 {
			name := fmt.Sprintf("d%d/%c", rng.Intn(4), 'a'+rng.Intn(12))
			if rng.Intn(3) == 0 {
				delete(state, name)
				continue
			}
			m := ffile(name, squashfstest.Text(int64(rng.Intn(3)), rng.Intn(4)*3000))
			switch rng.Intn(8) {
			case 0:
				m = fsym(name, fmt.Sprint("to", rng.Intn(2)))
			case 1:
				m = fdir(name)
			case 2:
				m = fdev(name, int64(1+rng.Intn(2)))
			case 3:
				m = fhard(name, fmt.Sprintf("base%d", rng.Intn(3)))
			}
			if m.Kind != tar.TypeLink {
				m.MTime += int64(rng.Intn(2))
				m.UID = rng.Intn(2)
			}
			state[name] = m
		}
	}
	build := func() string {
		members := []fixture{ffile("base0", []byte("0")), ffile("base1", squashfstest.Text(9, 9000)), ffile("base2", nil)}
		for i := range 4 {
			members = append(members, fdir(fmt.Sprintf("d%d", i)))
		}
		var names []string
		for n := range state {
			names = append(names, n)
		}
		for _, n := range sorted(names) {
			members = append(members, state[n])
		}
		return squashfstest.Pack(t, members, o)
	}
	mutate()
	old := build()
	for i := range rounds {
		mutate()
		new := build()
		diff, _ := diffImage(t, old, new, DiffOptions{})
		if _, err := verifyDiff(t.Context(), t, old, diff, new); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		// A difference from another state must not pass.
		if rep, err := verifyDiff(t.Context(), t, new, diff, old); err == nil {
			t.Fatalf("round %d: the wrong way round passes: %+v", i, rep)
		}
		old = new
	}
}

func TestDiffCanceled(t *testing.T) {
	old, new := smallStates()
	a, b := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	var w discardAt
	if _, err := diff(ctx, &w, squashfstest.Open(t, a), squashfstest.Open(t, b), DiffOptions{}); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("got %v", err)
	}
}

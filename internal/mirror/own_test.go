package mirror_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// ownWorld is an engine with the local mirror "debian".
func ownWorld(t *testing.T, change func(*config.Mirror)) *mirrortest.World {
	t.Helper()
	w := mirrortest.New(t, func(m *config.Mirror) {
		*m = config.Mirror{
			Name: "debian", Type: "deb", Local: true, Suites: []string{"stable", "testing"}, Components: []string{"main", "contrib"},
			Architectures: []string{"amd64", "arm64"}, Sources: true, Udebs: true, Download: config.All, Origin: "Own", Label: "Own packages",
		}
		if change != nil {
			change(m)
		}
	})
	w.CloseAll()
	w.Config.Signer = signtest.Signer(t, signtest.NewKey(t, "server"))
	w.Open()
	if err := w.EnsureLocal(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// upload is a file to add.
type upload struct {
	name string
	data []byte
}

func debOf(t *testing.T, p debtest.Package) upload {
	t.Helper()
	if p.Version == "" {
		p.Version = "1.0-1"
	}
	if p.Arch == "" {
		p.Arch = "amd64"
	}
	ext := ".deb"
	if p.Udeb {
		ext = ".udeb"
	}
	_, version, ok := strings.Cut(p.Version, ":")
	if !ok {
		version = p.Version
	}
	return upload{p.Name + "_" + version + "_" + p.Arch + ext, p.Deb(t)}
}

func add(t *testing.T, w *mirrortest.World, o mirror.AddOptions, files ...upload) (*mirror.OwnChange, error) {
	t.Helper()
	w.SetNow(w.Now().Add(time.Minute))
	o.Names = nil
	for _, f := range files {
		o.Names = append(o.Names, f.name)
	}
	left := files
	o.Next = func() (io.Reader, error) {
		if len(left) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		f := left[0]
		left = left[1:]
		if f.data == nil {
			return nil, io.ErrUnexpectedEOF // the client went away
		}
		return bytes.NewReader(f.data), nil
	}
	return w.Add(t.Context(), "debian", o)
}

func mustAdd(t *testing.T, w *mirrortest.World, o mirror.AddOptions, files ...upload) *mirror.OwnChange {
	t.Helper()
	c, err := add(t, w, o, files...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// contents lists what a snapshot has: name, version and architecture with suites and
// indices.
func contents(t *testing.T, w *mirrortest.World, s *meta.Snapshot) (out []string) {
	t.Helper()
	err := w.EachPackage(t.Context(), s, func(e meta.Entry) error {
		for _, p := range e.Places {
			out = append(out, fmt.Sprintf("%s %s %s in %s %s", e.Name, e.Version, e.Arch, p.Suite, p.Index))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// listOf is a .dsc or .changes with its files.
func listOf(name string, key func(string) []byte, fields, section string, files ...upload) upload {
	var sums, md5s strings.Builder
	for _, f := range files {
		fmt.Fprintf(&sums, "\n %x %d %s", sha256.Sum256(f.data), len(f.data), f.name)
		if section != "" {
			fmt.Fprintf(&md5s, "\n %s %d %s optional %s", debtest.Digest("MD5Sum", f.data), len(f.data), section, f.name)
		} else {
			fmt.Fprintf(&md5s, "\n %s %d %s", debtest.Digest("MD5Sum", f.data), len(f.data), f.name)
		}
	}
	text := fields + "Checksums-Sha256:" + sums.String() + "\nFiles:" + md5s.String() + "\n"
	if key == nil {
		return upload{name, []byte(text)}
	}
	return upload{name, key(text)}
}

func TestOwnFirstSnapshot(t *testing.T) {
	w := ownWorld(t, nil)
	first, err := w.ResolveSnapshot(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, w, first); len(got) != 0 {
		t.Errorf("the first snapshot has %v", got)
	}
	release := read(t, w, first, "dists/stable/Release", false)
	for _, line := range []string{"Origin: Own\n", "Label: Own packages\n", "Suite: stable\n", "Codename: stable\n", "Architectures: amd64 arm64\n", "Components: main contrib\n", "Acquire-By-Hash: yes\n"} {
		if !strings.Contains(release, line) {
			t.Errorf("no %q in\n%s", line, release)
		}
	}
	if _, err := sign.VerifyClearsigned([]byte(read(t, w, first, "dists/stable/InRelease", false)), sign.VerifyOptions{Keyring: w.Config.Signer.Keyring()}); err != nil {
		t.Error(err)
	}
	if got := read(t, w, first, "dists/testing/main/binary-amd64/Packages", false); got != "" {
		t.Errorf("Packages: %q", got)
	}
	gens, err := w.Store().Generations(t.Context(), first)
	if err != nil || len(gens) != 2 || gens[0].Trust != repo.TrustOwn {
		t.Errorf("generations %v, %v", gens, err)
	}

	// A start without a change makes no snapshot, one with another key or component does.
	w.SetNow(w.Now().Add(time.Hour))
	ensure := func() *meta.Snapshot {
		t.Helper()
		if err := w.EnsureLocal(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := w.ResolveSnapshot(t.Context(), "debian")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := ensure(); s.ID() != first.ID() {
		t.Errorf("a start made snapshot %s", s.ID())
	}
	w.CloseAll()
	w.Config.Signer = signtest.Signer(t, signtest.NewKey(t, "another"))
	w.Open()
	second := ensure()
	if second.ID() == first.ID() {
		t.Error("the newest snapshot is signed by an earlier key")
	}
	w.CloseAll()
	w.Config.Mirrors[0].Components = []string{"main"}
	w.Open()
	w.SetNow(w.Now().Add(time.Hour))
	if release := read(t, w, ensure(), "dists/stable/Release", false); !strings.Contains(release, "Components: main\n") {
		t.Errorf("Release after a change of the configuration:\n%s", release)
	}
	if _, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{}); !errors.Is(err, mirror.ErrLocal) {
		t.Errorf("sync: %v", err)
	}
}

// Suites, components and architectures are those that the files say, unless others
// are given.
func TestOwnPlaces(t *testing.T) {
	w := ownWorld(t, nil)
	tool := debOf(t, debtest.Package{Name: "tool", Version: "1:2.0-1", Fields: map[string]string{"Section": "contrib/utils"}})
	data := debOf(t, debtest.Package{Name: "tool-data", Version: "1:2.0-1", Arch: "all", Source: "tool"})
	inst := debOf(t, debtest.Package{Name: "tool-udeb", Version: "1:2.0-1", Arch: "arm64", Source: "tool", Udeb: true})
	tar := upload{"tool_2.0.orig.tar.gz", []byte("tar")}
	dsc := listOf("tool_2.0-1.dsc", nil, "Format: 3.0 (quilt)\nSource: tool\nBinary: tool\nArchitecture: any\nVersion: 1:2.0-1\nPackage-List:\n tool deb contrib/utils optional arch=any\n", "", tar)
	changes := listOf("tool_2.0-1_amd64.changes", nil, "Source: tool\nVersion: 1:2.0-1\nDistribution: testing\n", "utils", dsc, tar, data)
	c := mustAdd(t, w, mirror.AddOptions{}, changes, dsc, tar, data)
	want := []string{
		"tool 1:2.0-1 source in testing main/source/Sources",
		"tool-data 1:2.0-1 all in testing main/binary-amd64/Packages",
		"tool-data 1:2.0-1 all in testing main/binary-arm64/Packages",
	}
	if got := contents(t, w, c.Snapshot); !slices.Equal(got, want) {
		t.Errorf("after .changes: %q", got)
	}
	sources := read(t, w, c.Snapshot, "dists/testing/main/source/Sources", false)
	for _, line := range []string{"Package: tool\n", "Directory: pool/main/t/tool", " tool_2.0-1.dsc\n", " tool_2.0.orig.tar.gz\n", "Package-List:\n tool deb"} {
		if !strings.Contains(sources, line) {
			t.Errorf("no %q in\n%s", line, sources)
		}
	}
	if got := read(t, w, c.Snapshot, "pool/main/t/tool/tool_2.0.orig.tar.gz", false); got != "tar" {
		t.Errorf("orig.tar: %q", got)
	}
	// The second revision shares the tar file, which need not be sent again.
	dsc2 := listOf("tool_2.0-2.dsc", nil, "Source: tool\nVersion: 1:2.0-2\n", "", tar)
	mustAdd(t, w, mirror.AddOptions{Suite: "testing"}, dsc2)

	c = mustAdd(t, w, mirror.AddOptions{Suite: "stable"}, tool, inst)
	for _, p := range []string{
		"tool 1:2.0-1 amd64 in stable contrib/binary-amd64/Packages",
		"tool-udeb 1:2.0-1 arm64 in stable main/debian-installer/binary-arm64/Packages",
	} {
		if got := contents(t, w, c.Snapshot); !slices.Contains(got, p) {
			t.Errorf("no %q in %q", p, got)
		}
	}
	read(t, w, c.Snapshot, "pool/contrib/t/tool/tool_2.0-1_amd64.deb", false)
	c = mustAdd(t, w, mirror.AddOptions{Suite: "testing", Component: "main"}, tool)
	if got := contents(t, w, c.Snapshot); !slices.Contains(got, "tool 1:2.0-1 amd64 in testing main/binary-amd64/Packages") {
		t.Errorf("with --suite and --component: %q", got)
	}

	// Removal: by version and architecture, then by name.
	w.SetNow(w.Now().Add(time.Minute))
	c, err := w.Remove(t.Context(), "debian", []string{"tool:source=1:2.0-2", "tool-udeb"})
	if err != nil || len(c.Packages) != 2 || !c.New {
		t.Fatalf("%+v, %v", c, err)
	}
	w.SetNow(w.Now().Add(time.Minute))
	if _, err = w.Remove(t.Context(), "debian", []string{"tool", "gone"}); !errors.Is(err, mirror.ErrNoPackage) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("removal of a package that is not there: %v", err)
	}
	if c, err = w.Remove(t.Context(), "debian", []string{"tool"}); err != nil {
		t.Fatal(err)
	}
	want = want[1:] // tool-data stays
	if got := contents(t, w, c.Snapshot); !slices.Equal(got, want) {
		t.Errorf("after removal: %q", got)
	}
}

// The order of calls does not change the indices.
func TestOwnDeterministic(t *testing.T) {
	a := debOf(t, debtest.Package{Name: "a"})
	b := debOf(t, debtest.Package{Name: "b", Version: "2"})
	key := signtest.NewKey(t, "server")
	var got [2]string
	for i, order := range [][]upload{{a, b}, {b, a}} {
		w := ownWorld(t, nil)
		w.CloseAll()
		w.Config.Signer = signtest.Signer(t, key)
		w.Open()
		for _, f := range order {
			mustAdd(t, w, mirror.AddOptions{Suite: "stable"}, f)
		}
		s, err := w.ResolveSnapshot(t.Context(), "debian")
		if err != nil {
			t.Fatal(err)
		}
		got[i] = read(t, w, s, "dists/stable/InRelease", false) + read(t, w, s, "dists/stable/main/binary-amd64/Packages", false)
	}
	if got[0] != got[1] {
		t.Errorf("the order of two calls changes the result:\n%s\n%s", got[0], got[1])
	}
}

// Long because of its table of cases.
func TestOwnRefuses(t *testing.T) {
	good := debOf(t, debtest.Package{Name: "good"})
	other := debOf(t, debtest.Package{Name: "good", Description: "other bytes"})
	tar := upload{"src_1.tar.gz", []byte("tar")}
	dsc := listOf("src_1.dsc", nil, "Source: src\nVersion: 1\n", "", tar)
	named := func(f upload, name string) upload { return upload{name, f.data} }
	w := ownWorld(t, nil)
	before := mustAdd(t, w, mirror.AddOptions{Suite: "stable"}, good)
	for _, c := range []struct {
		name  string
		files []upload
		o     mirror.AddOptions
		is    error
		text  string
	}{
		{"other bytes", []upload{other}, mirror.AddOptions{Suite: "stable"}, repo.ErrOtherBytes, "good 1.0-1 amd64"},
		{"other bytes in another suite", []upload{other}, mirror.AddOptions{Suite: "testing"}, repo.ErrOtherBytes, "good 1.0-1 amd64"},
		{"another epoch at the same path", []upload{debOf(t, debtest.Package{Name: "good", Version: "1:1.0-1"})}, mirror.AddOptions{Suite: "stable"}, repo.ErrOtherBytes, "pool/main/g/good"},
		{"twice with other bytes", []upload{debOf(t, debtest.Package{Name: "new"}), named(debOf(t, debtest.Package{Name: "new", Description: "x"}), "new.deb")}, mirror.AddOptions{Suite: "stable"}, repo.ErrOtherBytes, "new 1.0-1 amd64"},
		{"no suite", []upload{debOf(t, debtest.Package{Name: "new"})}, mirror.AddOptions{}, repo.ErrNotPackage, "--suite"},
		{"unknown suite", []upload{debOf(t, debtest.Package{Name: "new"})}, mirror.AddOptions{Suite: "sid"}, repo.ErrNotPackage, `"sid"`},
		{"unknown component", []upload{debOf(t, debtest.Package{Name: "new", Fields: map[string]string{"Section": "non-free/x"}})}, mirror.AddOptions{Suite: "stable"}, repo.ErrNotPackage, "non-free"},
		{"unknown architecture", []upload{debOf(t, debtest.Package{Name: "new", Arch: "riscv64"})}, mirror.AddOptions{Suite: "stable"}, repo.ErrNotPackage, "riscv64"},
		{"another name", []upload{named(good, "evil_1.0-1_amd64.deb")}, mirror.AddOptions{Suite: "stable"}, repo.ErrMismatch, "good_1.0-1_amd64.deb"},
		{"another version", []upload{named(good, "good_1.0-2_amd64.deb")}, mirror.AddOptions{Suite: "stable"}, repo.ErrMismatch, "good_1.0-1_amd64.deb"},
		{"cut in the middle", []upload{{good.name, good.data[:len(good.data)-100]}}, mirror.AddOptions{Suite: "stable"}, repo.ErrMalformed, "ends"},
		{"bytes behind it", []upload{{good.name, append(slices.Clone(good.data), "garbage"...)}}, mirror.AddOptions{Suite: "stable"}, repo.ErrMalformed, "ends"},
		{"no package", []upload{{"new_1_amd64.deb", []byte("text")}}, mirror.AddOptions{Suite: "stable"}, repo.ErrMalformed, "ar archive"},
		{"a client that went away", []upload{debOf(t, debtest.Package{Name: "new"}), {"more_1_amd64.deb", nil}}, mirror.AddOptions{Suite: "stable"}, io.ErrUnexpectedEOF, "more_1_amd64.deb"},
		{"a relation that apt cannot read", []upload{debOf(t, debtest.Package{Name: "new", Fields: map[string]string{"Depends": "a (>> "}})}, mirror.AddOptions{Suite: "stable"}, repo.ErrMalformed, "Depends"},
		{"an index field", []upload{debOf(t, debtest.Package{Name: "new", Fields: map[string]string{"Filename": "pool/x"}})}, mirror.AddOptions{Suite: "stable"}, repo.ErrMalformed, "Filename"},
		{"a file of nobody", []upload{tar}, mirror.AddOptions{Suite: "stable"}, repo.ErrNotPackage, "src_1.tar.gz"},
		{"a .dsc without its file", []upload{dsc}, mirror.AddOptions{Suite: "stable"}, repo.ErrNotPackage, "src_1.tar.gz"},
		{"a .dsc with another file", []upload{dsc, {tar.name, []byte("rat")}}, mirror.AddOptions{Suite: "stable"}, repo.ErrMismatch, "src_1.tar.gz"},
		{"a .dsc by another name", []upload{named(dsc, "src_2.dsc"), tar}, mirror.AddOptions{Suite: "stable"}, repo.ErrMismatch, "src_1.dsc"},
		{"a .changes for another suite", []upload{listOf("g.changes", nil, "Source: good\nVersion: 1\nDistribution: sid\n", "x", good), good}, mirror.AddOptions{}, repo.ErrNotPackage, `"sid"`},
		{"a .changes with a path", []upload{listOf("g.changes", nil, "Source: good\nVersion: 1\nDistribution: stable\n", "x", named(good, "../"+good.name)), good}, mirror.AddOptions{}, repo.ErrHostile, ".."},
		{"a path", []upload{named(good, "../"+good.name)}, mirror.AddOptions{Suite: "stable"}, nil, "not the name of a file"},
		{"nothing", nil, mirror.AddOptions{}, nil, "0 files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := add(t, w, c.o, c.files...)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("%v, expected %v with %q", err, c.is, c.text)
			}
			now, err := w.ResolveSnapshot(t.Context(), "debian")
			if err != nil || now.ID() != before.Snapshot.ID() {
				t.Errorf("the newest snapshot is %v, %v; expected %s", now, err, before.Snapshot.ID())
			}
		})
	}
	mustAdd(t, w, mirror.AddOptions{Suite: "stable"}, debOf(t, debtest.Package{Name: "later"}))
	w = mirrortest.New(t, nil)
	if _, err := add(t, w, mirror.AddOptions{}, good); !errors.Is(err, mirror.ErrNotLocal) {
		t.Errorf("adding to a mirror of an upstream: %v", err)
	}
	if _, err := w.Remove(t.Context(), "debian", []string{"good"}); !errors.Is(err, mirror.ErrNotLocal) {
		t.Errorf("removing from a mirror of an upstream: %v", err)
	}
}

// The bytes of a package that was removed are remembered.
func TestOwnRemovedWithOtherBytes(t *testing.T) {
	w := ownWorld(t, nil)
	mustAdd(t, w, mirror.AddOptions{Suite: "stable"}, debOf(t, debtest.Package{Name: "good"}))
	w.SetNow(w.Now().Add(time.Minute))
	if _, err := w.Remove(t.Context(), "debian", []string{"good"}); err != nil {
		t.Fatal(err)
	}
	if _, err := add(t, w, mirror.AddOptions{Suite: "stable"}, debOf(t, debtest.Package{Name: "good", Description: "other"})); !errors.Is(err, repo.ErrOtherBytes) {
		t.Errorf("other bytes after the removal: %v", err)
	}
	mustAdd(t, w, mirror.AddOptions{Suite: "stable"}, debOf(t, debtest.Package{Name: "good"}))
}

// With a keyring, whatever is added must be signed.
func TestOwnKeyring(t *testing.T) {
	key := signtest.NewKey(t, "uploader")
	stranger := signtest.NewKey(t, "stranger")
	w := ownWorld(t, func(m *config.Mirror) { m.Keyring = config.Strings{signtest.KeyringFile(t, key)} })
	signed := func(k *sign.PrivateKey) func(string) []byte {
		return func(text string) []byte { return signtest.ClearSign(t, k, text, k.Public().Created) }
	}
	good := debOf(t, debtest.Package{Name: "good"})
	const fields = "Source: good\nVersion: 1\nDistribution: stable\n"
	for name, c := range map[string]struct {
		changes upload
		is      error
	}{
		"no .changes":         {upload{}, repo.ErrUntrusted},
		"an unsigned one":     {listOf("g.changes", nil, fields, "x", good), repo.ErrUntrusted},
		"signed by a strange": {listOf("g.changes", signed(stranger), fields, "x", good), sign.ErrUnknownKey},
		"signed":              {listOf("g.changes", signed(key), fields, "x", good), nil},
	} {
		files := []upload{good}
		if c.changes.name != "" {
			files = append(files, c.changes)
		}
		if _, err := add(t, w, mirror.AddOptions{Suite: "stable"}, files...); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, expected %v", name, err, c.is)
		}
	}
}

// A connection that breaks anywhere in a package is the fault that is reported: what
// arrived is not called malformed.
func TestAddBroken(t *testing.T) {
	w := ownWorld(t, nil)
	deb := debOf(t, debtest.Package{Name: "new"})
	reset := errors.New("connection reset")
	for at := 0; at < len(deb.data); at += 41 {
		for _, broken := range []error{reset, io.ErrUnexpectedEOF} {
			next := func() (io.Reader, error) {
				return io.MultiReader(bytes.NewReader(deb.data[:at]), iotest.ErrReader(broken)), nil
			}
			_, err := w.Add(t.Context(), "debian", mirror.AddOptions{Suite: "stable", Names: []string{deb.name}, Next: next})
			if !errors.Is(err, broken) || errors.Is(err, repo.ErrMalformed) {
				t.Fatalf("broken after %d of %d bytes: %v, expected %v", at, len(deb.data), err, broken)
			}
		}
	}
}

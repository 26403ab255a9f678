package catalog_test

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// entry is the expected Entry of a path.
type entry struct {
	file      string // content
	names     []string
	redirect  string
	immutable bool
	err       error
}

func check(t *testing.T, p string, got catalog.Entry, err error, want entry) {
	t.Helper()
	if !errors.Is(err, want.err) || err != nil && want.err == nil {
		t.Errorf("%s: error %v, expected %v", p, err, want.err)
		return
	}
	switch {
	case (got.File != nil) != (want.file != "") || got.File != nil && got.File.Digest != cas.Sum([]byte(want.file)):
		t.Errorf("%s: %+v, expected a file with SHA-256 %s", p, got.File, cas.Sum([]byte(want.file)))
	case (got.Dir != nil) != (want.names != nil) || got.Dir != nil && !slices.Equal(got.Dir.Names, want.names):
		t.Errorf("%s: %+v, expected the names %v", p, got.Dir, want.names)
	case got.Redirect != want.redirect || got.Immutable != want.immutable:
		t.Errorf("%s: redirect %q, immutable %v, expected %q, %v", p, got.Redirect, got.Immutable, want.redirect, want.immutable)
	}
}

func TestArchiveEntry(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a"})
	w.Archive.Publish(w.Now())
	one := meta.FormatTimestamp(w.MustSync().Snapshot.Timestamp)
	release := string(w.Archive.Get("dists/stable/InRelease"))
	pool := w.Archive.Default().PathOf("a")
	for p, want := range map[string]entry{
		"":                     {names: []string{"debian/"}},
		"debian/":              {names: []string{"latest/", one + "/"}},
		"debian/" + one + "/":  {names: []string{"dists/", "pool/"}, immutable: true},
		"debian/latest/dists/": {names: []string{"stable/"}},
		"debian/" + one + "/dists/stable/InRelease": {file: release, immutable: true},
		"debian/latest/dists/stable/InRelease":      {file: release},
		"debian/latest/" + pool:                     {file: string(w.Archive.Get(pool))},
		"debian/2030-01-01/dists/x":                 {redirect: "debian/" + one + "/dists/x"},
		"debian/2030-01-01":                         {redirect: "debian/" + one},
		"debian/2020-01-01/":                        {err: meta.ErrNotFound},
		"debian/yesterday/":                         {err: catalog.ErrRef},
		"debian/" + one + "/pool/main/absent":       {err: meta.ErrNotFound},
		"fedora/":                                   {err: meta.ErrNotFound},
		"fedora/latest/":                            {err: meta.ErrNotFound},
	} {
		got, err := w.ArchiveEntry(t.Context(), p)
		check(t, p, got, err, want)
	}
}

func TestDigestEntry(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a"})
	w.Archive.Publish(w.Now())
	w.MustSync()
	deb := w.Archive.Get(w.Archive.Default().PathOf("a"))
	sha1sum := sha1.Sum(deb)
	sum := cas.Sum(deb).String()
	for p, want := range map[string]entry{
		sum: {file: string(deb)}, hex.EncodeToString(sha1sum[:]): {file: string(deb)},
		strings.Repeat("0", 40): {err: meta.ErrNotFound}, strings.Repeat("0", 64): {err: cas.ErrNotFound}, "meta.db": {}, sum[:62]: {},
	} {
		got, err := w.DigestEntry(t.Context(), p)
		check(t, p, got, err, want)
		if got.File != nil && !got.Volatile {
			t.Errorf("%s: a blob that a collection may delete is not volatile", p)
		}
	}
	got, err := w.ByHashEntry(t.Context(), "SHA256/"+sum)
	check(t, "SHA256/"+sum, got, err, entry{file: string(deb)})
	got, err = w.ByHashEntry(t.Context(), "SHA512/"+sum)
	check(t, "SHA512/"+sum, got, err, entry{})
}

func TestKitEntry(t *testing.T) {
	w := mirrortest.New(t, nil)
	info, err := cas.Put(t.Context(), w.Blobs(), []byte("kit"), mirrortest.Start)
	if err != nil {
		t.Fatal(err)
	}
	kits := []meta.Kit{{Path: "lost", Digest: cas.Sum([]byte("lost"))}}
	for _, p := range []string{"top", "v1/a", "v1/b", "v1-2/c", "v1/sub/d"} {
		kits = append(kits, meta.Kit{Path: p, Digest: info.Digest, Size: info.Size})
	}
	if err := w.Store().PutKits(t.Context(), kits); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]entry{
		"": {names: []string{"lost", "top", "v1-2/", "v1/"}}, "v1/": {names: []string{"a", "b", "sub/"}}, "v1/sub/d": {file: "kit"},
		"absent/": {}, "v1": {err: meta.ErrNotFound}, "lost": {err: cas.ErrNotFound},
	} {
		got, err := w.KitEntry(t.Context(), p)
		check(t, p, got, err, want)
		if p == "lost" && !got.Frozen {
			t.Error("a published kit that is lost is not a fault of this server")
		}
	}
}

func TestRecordedEntry(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a"})
	w.Archive.Publish(w.Now())
	snap := w.MustSync().Snapshot
	put := func(r meta.Recording) {
		t.Helper()
		if err := w.Store().StartRecording(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	pins := []meta.RecordingPin{{Mirror: "debian", Timestamp: snap.Timestamp}}
	put(meta.Recording{Name: "build", Pins: pins})
	put(meta.Recording{Name: "over", Pins: pins})
	if _, err := w.Store().StopRecording(t.Context(), "over", mirrortest.Start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.RunningRecording(t.Context(), "over"); !errors.Is(err, catalog.ErrStopped) {
		t.Errorf("stopped recording: %v, expected ErrStopped", err)
	}
	if _, err := w.RunningRecording(t.Context(), "absent"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("absent recording: %v, expected ErrNotFound", err)
	}
	rec, err := w.RunningRecording(t.Context(), "build")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RecordedSnapshot(t.Context(), rec, "fedora"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("mirror that is not recorded: %v, expected ErrNotFound", err)
	}
	shown, err := w.RecordedSnapshot(t.Context(), rec, "debian")
	if err != nil || shown.ID() != snap.ID() {
		t.Fatalf("snapshot: %v, %v, expected %s", shown, err, snap.ID())
	}
	p := "dists/stable/InRelease"
	got, err := w.RecordedEntry(t.Context(), rec, shown, p)
	check(t, p, got, err, entry{file: string(w.Archive.Get(p))}) // not immutable: the name may be used again
}

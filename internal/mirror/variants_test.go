package mirror_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// tryRead is read for what may not be there.
func tryRead(t *testing.T, w *mirrortest.World, snap *meta.Snapshot, path string, latest bool) (string, error) {
	t.Helper()
	f, err := w.Lookup(t.Context(), snap, path, latest)
	if err != nil {
		return "", err
	}
	r, _, err := w.OpenFound(t.Context(), f)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := readAll(r)
	return b, err
}

// moveOn publishes another state in which nothing of the indices before is left.
func moveOn(w *mirrortest.World) {
	w.SetNow(w.Now().Add(24 * time.Hour))
	w.Archive.DeleteMatching("dists/stable/*/*/by-hash/*/*")
	w.Archive.Add(debtest.Package{Name: "later", Version: "1"})
	w.Archive.Publish(w.Now())
}

const binaryIndex = "dists/stable/main/binary-amd64/Packages"

// A sync stores one compression variant of an index, for each set of variants and of digests
// that upstream may have. If upstream lists the plain index without having it, snapd makes it
// from the stored variant, also at an old timestamp.
func TestVariants(t *testing.T) {
	for i, variants := range [][]string{{".xz"}, {".gz"}, {".bz2"}, {".lz4"}, {".zst"}, {".lzma"}, {""}, {".xz", ".gz"}, {".gz", ""}, {".zst", ".bz2"}} {
		for j, digests := range [][]string{{"MD5Sum", "SHA256"}, {"SHA512"}, {"SHA256", "SHA512"}} {
			for _, byHash := range []bool{true, false} {
				if i > 1 && byHash == ((i+j)%2 == 0) {
					continue // half of it shows as much
				}
				t.Run(fmt.Sprint(variants, digests, byHash), func(t *testing.T) {
					t.Parallel()
					w := mirrortest.New(t, nil)
					s := w.Archive.Default()
					s.Compressions, s.Digests, s.ByHash = variants, digests, byHash
					w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
					w.Archive.Publish(mirrortest.Start)
					one := w.MustSync()
					first := variants[0]
					upstream := string(w.Archive.Get(binaryIndex + first))
					plain := ""
					if slices.Contains(variants, "") {
						plain = string(w.Archive.Get(binaryIndex))
					}
					w.Archive.Requests()
					if got := read(t, w, one.Snapshot, binaryIndex+first, false); got != upstream {
						t.Errorf("%s is not upstream's: %q", binaryIndex+first, got)
					}
					if r := w.Archive.Requests(); len(r) > 0 {
						t.Errorf("the form that was taken was fetched again: %+v", r)
					}
					hashed := map[string]string{} // by-hash name: content
					for _, p := range w.Archive.Paths() {
						if strings.Contains(p, "binary-amd64/by-hash/SHA") && string(w.Archive.Get(p)) == upstream {
							hashed[p] = upstream
						}
					}
					if byHash == (len(hashed) == 0) {
						t.Fatalf("names by hash: %v", hashed)
					}
					moveOn(w)
					two := w.MustSync()
					for range 2 { // as made, and as kept
						text := read(t, w, one.Snapshot, binaryIndex, false)
						if plain != "" && text != plain || !strings.HasPrefix(text, "Package: a\n") || strings.Contains(text, "later") {
							t.Errorf("plain form at the first timestamp: %q", text)
						}
					}
					if got := read(t, w, one.Snapshot, binaryIndex+first, false); got != upstream {
						t.Errorf("%s at the first timestamp: %q", binaryIndex+first, got)
					}
					if got := read(t, w, two.Snapshot, binaryIndex, false); !strings.Contains(got, "Package: later\n") {
						t.Errorf("plain form at the second timestamp: %q", got)
					}
					for p, want := range hashed {
						for _, snap := range []*meta.Snapshot{one.Snapshot, two.Snapshot} {
							if got, err := tryRead(t, w, snap, p, snap == two.Snapshot); got != want {
								t.Errorf("%s in %s: %v, %q", p, snap.ID(), err, got)
							}
						}
					}
					if got := names(t, w, two.Snapshot); len(got) != 2 {
						t.Errorf("packages: %v", got)
					}
				})
			}
		}
	}
}

// Release and Release.gpg, and signatures of which one is known, are as good as
// InRelease; the documents are served as upstream had them.
func TestSignedAs(t *testing.T) {
	stranger := signtest.NewKey(t, "stranger")
	for _, tt := range []struct {
		name string
		set  func(s *debtest.Suite, own *sign.PrivateKey)
		docs []string
		also []string // served beside them
		is   error
	}{
		{"InRelease", func(*debtest.Suite, *sign.PrivateKey) {}, []string{"InRelease"}, nil, nil},
		{"Release.gpg", func(s *debtest.Suite, _ *sign.PrivateKey) { s.InRelease = false }, []string{"Release", "Release.gpg"}, nil, nil},
		{"both", func(s *debtest.Suite, _ *sign.PrivateKey) { s.Both = true }, []string{"InRelease"}, []string{"Release", "Release.gpg"}, nil},
		{"stranger first", func(s *debtest.Suite, own *sign.PrivateKey) { s.Signers = []*sign.PrivateKey{stranger, own} }, []string{"InRelease"}, nil, nil},
		{"stranger last, detached", func(s *debtest.Suite, own *sign.PrivateKey) {
			s.Signers, s.InRelease = []*sign.PrivateKey{own, stranger}, false
		}, []string{"Release", "Release.gpg"}, nil, nil},
		{"strangers alone", func(s *debtest.Suite, _ *sign.PrivateKey) {
			s.Signers = []*sign.PrivateKey{stranger, signtest.NewKey(t, "another")}
		}, nil, nil, sign.ErrUnknownKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mirrortest.New(t, nil)
			tt.set(w.Archive.Default(), w.Archive.Key)
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			if tt.is != nil {
				if _, err := w.TrySync(); !errors.Is(err, tt.is) {
					t.Errorf("error %v, expected %v", err, tt.is)
				}
				return
			}
			one := w.MustSync()
			want := map[string]string{}
			for _, d := range append(tt.docs, tt.also...) {
				want[d] = string(w.Archive.Get("dists/stable/" + d))
			}
			w.Archive.Requests()
			if again, n := w.MustSync(), len(w.Archive.Requests()); again.New || n != len(tt.docs) {
				// InRelease is asked for each time, also where there is none.
				t.Errorf("a sync of nothing new: %+v, %d requests", again, n)
			}
			moveOn(w)
			if !w.MustSync().New {
				t.Error("the next state made no snapshot")
			}
			for _, d := range []string{"InRelease", "Release", "Release.gpg"} {
				got, err := tryRead(t, w, one.Snapshot, "dists/stable/"+d, false)
				if want[d] == "" && !errors.Is(err, meta.ErrNotFound) || got != want[d] {
					t.Errorf("%s at the first timestamp: %v, %q", d, err, got)
				}
			}
		})
	}
}

// A root whose two files are of different generations is looked at again, and
// never taken.
func TestTornRelease(t *testing.T) {
	w := mirrortest.New(t, nil)
	s := w.Archive.Default()
	s.InRelease = false
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	old := w.Archive.State()
	w.Archive.Add(debtest.Package{Name: "b", Version: "1"})
	w.Archive.Publish(mirrortest.Start.Add(time.Minute))
	now := w.Archive.State()
	w.Archive.Restore(old)
	w.Archive.AfterRequest("dists/stable/Release", func() { w.Archive.Restore(now) })
	w.SetNow(w.Now().Add(time.Hour))
	if got := names(t, w, w.MustSync().Snapshot); len(got) != 2 {
		t.Errorf("packages: %v", got)
	}
}

package mirror_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// in replaces text in the plain content of every package index.
func in(old, new string) func(w *mirrortest.World) {
	return func(w *mirrortest.World) {
		w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
			if !strings.Contains(path, "binary-") {
				return plain
			}
			return bytes.Replace(plain, []byte(old), []byte(new), 1)
		}
	}
}

// inAll is in for every place.
func inAll(old, new string) func(w *mirrortest.World) {
	return func(w *mirrortest.World) {
		w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
			if !strings.Contains(path, "binary-") {
				return plain
			}
			return bytes.ReplaceAll(plain, []byte(old), []byte(new))
		}
	}
}

// answer makes the upstream answer requests whose path ends in suffix.
func answer(suffix string, f func(w http.ResponseWriter, r *http.Request)) func(w *mirrortest.World) {
	return func(w *mirrortest.World) {
		w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, suffix) && !(suffix == ".xz" && strings.Contains(r.URL.Path, "by-hash")) {
				return false
			}
			f(rw, r)
			return true
		}
	}
}

// Each kind of bad input ends in an error that names the object; the last
// snapshot stays, and is served as before. Long because of its table of cases.
func TestHostileUpstream(t *testing.T) {
	next := mirrortest.Start.Add(time.Hour)
	huge := 100 << 20 // bytes
	if testing.Short() {
		huge = 24 << 20
	}
	cases := []struct {
		name  string
		set   func(w *mirrortest.World) // before the next state is published
		after func(w *mirrortest.World) // after it
		is    error
		says  []string
	}{
		{name: "wrong key", set: func(w *mirrortest.World) {
			w.Archive.Default().Signers = []*sign.PrivateKey{signtest.NewKey(t, "stranger")}
		}, is: sign.ErrUnknownKey, says: []string{"suite stable", "InRelease"}},
		{name: "unsigned", set: func(w *mirrortest.World) { w.Archive.Default().Unsigned = true }, says: []string{"suite stable"}},
		{name: "changed after signing", after: func(w *mirrortest.World) {
			b := w.Archive.Get("dists/stable/InRelease")
			w.Archive.Set("dists/stable/InRelease", bytes.Replace(b, []byte("Origin: Example"), []byte("Origin: Exbmple"), 1))
		}, is: sign.ErrBadSignature, says: []string{"InRelease"}},
		{name: "text before the signed part", after: func(w *mirrortest.World) {
			w.Archive.Set("dists/stable/InRelease", append([]byte("Origin: Evil\n"), w.Archive.Get("dists/stable/InRelease")...))
		}, is: repo.ErrUntrusted},
		{name: "expired Valid-Until", set: func(w *mirrortest.World) { w.Archive.Default().ValidFor = time.Minute }, is: repo.ErrExpired, says: []string{"stable", "valid until"}},
		{name: "rollback", set: func(w *mirrortest.World) {
			w.Archive.Default().EditRelease = func(s string) string {
				return strings.Replace(s, next.Format(time.RFC1123), next.Add(-48*time.Hour).Format(time.RFC1123), 1)
			}
		}, says: []string{"stable"}},
		{name: "only weak digests", set: func(w *mirrortest.World) { w.Archive.Default().Digests = []string{"MD5Sum", "SHA1"} }, is: repo.ErrWeak, says: []string{"stable"}},
		{name: "HTML with 200", set: answer("InRelease", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<!DOCTYPE html><html><body>Please log in</body></html>")
		}), is: fetch.ErrNotRepository, says: []string{"InRelease"}},
		{name: "redirect loop", set: answer("InRelease", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }), is: fetch.ErrRefused},
		{name: "endless root", set: answer("InRelease", func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < 1<<12; i++ {
				if _, err := w.Write(bytes.Repeat([]byte("Origin: x\n"), 6400)); err != nil {
					return
				}
			}
		}), is: fetch.ErrTooLarge, says: []string{"InRelease"}},
		{name: "endless index", set: answer(".xz", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}), is: fetch.ErrMismatch, says: []string{"size"}},
		{name: "truncated index", after: func(w *mirrortest.World) {
			for _, p := range w.Archive.Paths() {
				if strings.Contains(p, "binary-amd64") && w.Archive.Has(p) {
					w.Archive.Truncate(p, len(w.Archive.Get(p))/2)
				}
			}
		}, is: fetch.ErrMismatch},
		{name: "decompression bomb", set: func(w *mirrortest.World) {
			// The signed compressed variant unpacks to far more than the signed plain size.
			w.Archive.Default().Compressions = []string{".gz"}
			w.Archive.Default().EditRelease = func(s string) string { return bomb(w, s) }
		}, says: []string{"Packages.gz"}},
		{name: "path above the repository", set: in("Filename: pool/", "Filename: ../../etc/"), is: repo.ErrHostile, says: []string{"../../etc/", "Packages.xz"}},
		{name: "absolute path", set: in("Filename: pool/", "Filename: /etc/"), is: repo.ErrHostile},
		{name: "NUL in a path", set: in("Filename: pool/", "Filename: pool/\x00"), says: []string{"Packages"}},
		{name: "CR in a path", set: in("Filename: pool/", "Filename: pool/\r"), says: []string{"Packages"}},
		{name: "no Package", set: in("Package: new", "Xackage: new"), is: repo.ErrMalformed, says: []string{"Package"}},
		{name: "no Version at all", set: inAll("Version: ", "Xersion: "), is: repo.ErrMalformed, says: []string{"Version"}},
		{name: "no SHA256 at all", set: inAll("SHA256: ", "XHA256: "), is: repo.ErrWeak, says: []string{"SHA256"}},
		{name: "a huge field", set: in("Package: new", "Huge: "+strings.Repeat("x", huge)+"\nPackage: new"), is: repo.ErrMalformed},
		{name: "negative sizes", set: inAll("\nSize: ", "\nSize: -"), is: repo.ErrMalformed, says: []string{"Size"}},
		{name: "package of another size", after: func(w *mirrortest.World) {
			p := w.Archive.Default().PathOf("new")
			w.Archive.Set(p, append(w.Archive.Get(p), 0))
		}, is: fetch.ErrMismatch, says: []string{"package new", "size"}},
		{name: "package with other bytes", after: func(w *mirrortest.World) { w.Archive.Corrupt(w.Archive.Default().PathOf("new")) }, is: fetch.ErrMismatch, says: []string{"package new", "SHA256", "expected", "found"}},
		{name: "package cut short", set: answer(".deb", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4000")
			w.Write(make([]byte, 100))
			panic(http.ErrAbortHandler)
		}), says: []string{"package new"}},
		{name: "upstream down", set: answer("", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }), is: fetch.ErrUnavailable},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false })
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			one := w.MustSync()
			was := read(t, w, one.Snapshot, "dists/stable/InRelease", true)
			if c.set != nil {
				c.set(w)
			}
			w.Archive.Add(debtest.Package{Name: "new", Version: "1"})
			w.Archive.Publish(next)
			if c.after != nil {
				c.after(w)
			}
			w.SetNow(next.Add(time.Hour))
			_, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{})
			if err == nil {
				t.Fatal("the sync succeeded")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %q, expected %q", err, c.is)
			}
			for _, s := range append(c.says, "sync debian") {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
			last, err := w.Store().Latest(t.Context(), "debian")
			if err != nil {
				t.Fatal(err)
			}
			if last.ID() != one.Snapshot.ID() {
				t.Errorf("newest snapshot is %s, expected %s", last.ID(), one.Snapshot.ID())
			}
			if now := read(t, w, last, "dists/stable/InRelease", true); now != was {
				t.Error("latest serves another InRelease than before")
			}
			if got := names(t, w, last); len(got) != 1 || got["a"] != "1" {
				t.Errorf("packages: %v", got)
			}
		})
	}
}

// bomb exchanges Packages.gz for one that unpacks to 64 MiB of white space and
// signs its digest, leaving the plain index's size as it was.
func bomb(w *mirrortest.World, release string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 64 {
		z.Write(bytes.Repeat([]byte("\n"), 1<<20))
	}
	z.Close()
	const p = "main/binary-amd64/Packages.gz"
	old := w.Archive.Get("dists/stable/" + p)
	w.Archive.Set("dists/stable/"+p, b.Bytes())
	w.Archive.DeleteMatching("dists/stable/main/binary-amd64/by-hash/*/*")
	release = strings.ReplaceAll(release, digest(old), digest(b.Bytes()))
	var out strings.Builder
	for line := range strings.Lines(release) {
		if strings.Contains(line, p) {
			f := strings.Fields(line)
			if len(f[0]) == 64 {
				line = fmt.Sprintf(" %s %d %s\n", f[0], b.Len(), p)
			} else {
				continue
			}
		}
		out.WriteString(line)
	}
	return out.String()
}

// Two stanzas that are the same are one; two that contradict each other
// under one name and version stay apart.
func TestDuplicateParagraphs(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
		if !strings.Contains(path, "binary-") {
			return plain
		}
		other := bytes.Replace(plain, []byte("Section: "), []byte("Section: other-"), 1)
		if bytes.Equal(other, plain) {
			other = bytes.Replace(plain, []byte("Package: a\n"), []byte("Package: a\nSection: other\n"), 1)
		}
		return bytes.Join([][]byte{plain, plain, other}, []byte("\n"))
	}
	w.Archive.Publish(mirrortest.Start)
	res := w.MustSync()
	n := 0
	if err := w.EachPackage(t.Context(), res.Snapshot, func(e meta.Entry) error {
		if e.Kind == repo.KindBinary {
			n++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != 2 {
		t.Errorf("%d stanzas, expected 2", n)
	}
}

// Bytes under one pool path that change, and change back, stay apart in history.
func TestPathChangesAndReturns(t *testing.T) {
	w := mirrortest.New(t, nil)
	p := "pool/main/a/a/a_1_all.deb"
	var snaps []*meta.Snapshot
	for i, body := range []string{"one", "two", "one"} {
		w.Archive.Default().Remove("a", "1")
		w.Archive.Add(debtest.Package{Name: "a", Version: "1", Filename: p, Body: []byte(body)})
		w.Archive.Publish(mirrortest.Start.Add(time.Duration(i) * time.Hour))
		w.SetNow(mirrortest.Start.Add(time.Duration(i) * time.Hour))
		snaps = append(snaps, w.MustSync().Snapshot)
	}
	for i, want := range []string{"one", "two", "one"} {
		if got := read(t, w, snaps[i], p, false); got != want {
			t.Errorf("%s in snapshot %d: %q, expected %q", p, i, got, want)
		}
	}
	if got := read(t, w, snaps[0], p, true); got != "one" {
		t.Errorf("latest: %q", got)
	}
}

// A change of Section without a new .deb is a new stanza of the same file.
func TestSectionOverride(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	one := w.MustSync()
	w.Archive.Default().Override("a", "Section", "other")
	w.Archive.Publish(mirrortest.Start.Add(time.Hour))
	w.SetNow(w.Now().Add(2 * time.Hour))
	two := w.MustSync()
	if !two.New || two.Files != 3 && two.Files > 6 {
		t.Errorf("second sync: %+v", two)
	}
	for _, s := range []*meta.Snapshot{one.Snapshot, two.Snapshot} {
		idx := read(t, w, s, "dists/stable/main/binary-amd64/Packages", false)
		if strings.Contains(idx, "Section: other") != (s == two.Snapshot) {
			t.Errorf("%s has the other snapshot's section", s.ID())
		}
	}
}

package mirror_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

const (
	inRelease  = "dists/stable/InRelease"
	release    = "dists/stable/Release"
	releaseGPG = "dists/stable/Release.gpg"
	sigBegin   = "-----BEGIN PGP SIGNATURE-----\n"
	sigEnd     = "-----END PGP SIGNATURE-----\n"
)

// edit changes a file of the archive.
func edit(path string, f func(string) string) func(*mirrortest.World) {
	return func(w *mirrortest.World) { w.Archive.Set(path, []byte(f(string(w.Archive.Get(path))))) }
}

func behind(path, text string) func(*mirrortest.World) {
	return edit(path, func(s string) string { return s + text })
}

func before(path, text string) func(*mirrortest.World) {
	return edit(path, func(s string) string { return text + s })
}

func swap(path, old, new string) func(*mirrortest.World) {
	return edit(path, func(s string) string {
		if !strings.Contains(s, old) {
			panic(path + " has no " + old)
		}
		return strings.Replace(s, old, new, 1)
	})
}

// block is the signature block of a clear-signed message.
func block(s string) string { return s[strings.Index(s, sigBegin):] }

// packets decodes one armored block.
func packets(s string) []byte {
	_, s, _ = strings.Cut(s, "\n\n")
	s, _, _ = strings.Cut(s, "\n=")
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(s, "\n", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func armored(packets ...[]byte) string {
	s := base64.StdEncoding.EncodeToString(bytes.Join(packets, nil))
	var b strings.Builder
	for len(s) > 64 {
		b.WriteString(s[:64] + "\n")
		s = s[64:]
	}
	return sigBegin + "\n" + b.String() + s + "\n" + sigEnd
}

// What real apt refuses of a suite's signed documents the sync refuses, too, and
// the last snapshot stays; what apt accepts is accepted. Long because of its
// table of cases.
func TestSameVerdictAsApt(t *testing.T) {
	if testing.Short() {
		t.Skip("asks apt, one case after the other")
	}
	next := mirrortest.Start.Add(time.Hour)
	stranger := signtest.NewKey(t, "stranger")
	const inOnly, detached, both = 0, 1, 2
	other := func(w *mirrortest.World, k *sign.PrivateKey) string { // a signature over other data
		if k == nil {
			k = w.Archive.Key
		}
		return string(signtest.Detach(t, k, []byte("other"), next))
	}
	otherBlock := func(w *mirrortest.World, k *sign.PrivateKey) string {
		if k == nil {
			k = w.Archive.Key
		}
		return block(string(signtest.ClearSign(t, k, "other\n", next)))
	}
	signers := func(keys ...*sign.PrivateKey) func(*mirrortest.World) { // nil stands for the archive's
		return func(w *mirrortest.World) {
			for _, k := range keys {
				if k == nil {
					k = w.Archive.Key
				}
				w.Archive.Default().Signers = append(w.Archive.Default().Signers, k)
			}
		}
	}
	text := func(f func(string) string) func(*mirrortest.World) {
		return func(w *mirrortest.World) { w.Archive.Default().EditRelease = f }
	}
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	status := func(code int) func(*mirrortest.World) {
		return answer("InRelease", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	for _, c := range []struct {
		name   string
		how    int
		accept bool
		set    func(*mirrortest.World) // before the state is published
		change func(*mirrortest.World) // after it
	}{
		{name: "InRelease", accept: true},
		{name: "blank line behind", change: behind(inRelease, "\n")},
		{name: "blank lines behind", change: behind(inRelease, "\n\n\n")},
		{name: "CRLF behind", change: behind(inRelease, "\r\n")},
		{name: "blanks behind", change: behind(inRelease, " \t")},
		{name: "form feed behind", change: behind(inRelease, "\f")},
		{name: "NUL behind", change: behind(inRelease, "\x00")},
		{name: "text behind", change: behind(inRelease, "Origin: Evil\n")},
		{name: "text on the last line", change: edit(inRelease, func(s string) string { return strings.TrimSuffix(s, "\n") + "x\n" })},
		{name: "NUL on the last line", change: swap(inRelease, sigEnd, strings.Replace(sigEnd, "\n", "\x00\n", 1))},
		{name: "second block", accept: true, change: edit(inRelease, func(s string) string { return s + block(s) })},
		{name: "second block by another key", accept: true, set: signers(nil, stranger)},
		{name: "first block by another key", accept: true, set: signers(stranger, nil)},
		{name: "second block after a blank line", change: edit(inRelease, func(s string) string { return s + "\n" + block(s) })},
		{name: "second block over other data", change: func(w *mirrortest.World) { behind(inRelease, otherBlock(w, nil))(w) }},
		{name: "second packet by another key", accept: true, change: func(w *mirrortest.World) {
			edit(inRelease, func(s string) string {
				return strings.Replace(s, block(s), armored(packets(block(s)), packets(otherBlock(w, stranger))), 1)
			})(w)
		}},
		{name: "second packet over other data", change: func(w *mirrortest.World) {
			edit(inRelease, func(s string) string {
				return strings.Replace(s, block(s), armored(packets(block(s)), packets(otherBlock(w, nil))), 1)
			})(w)
		}},
		{name: "first packet over other data", change: func(w *mirrortest.World) {
			edit(inRelease, func(s string) string {
				return strings.Replace(s, block(s), armored(packets(otherBlock(w, nil)), packets(block(s))), 1)
			})(w)
		}},
		{name: "two messages", change: edit(inRelease, func(s string) string { return s + s })},
		{name: "two messages apart", change: edit(inRelease, func(s string) string { return s + "\n" + s })},
		{name: "blank line before", change: before(inRelease, "\n")},
		{name: "blank before", change: before(inRelease, " ")},
		{name: "text before", change: before(inRelease, "Origin: Evil\n")},
		{name: "byte order mark", change: before(inRelease, "\xef\xbb\xbf")},
		{name: "no final newline", accept: true, change: edit(inRelease, func(s string) string { return strings.TrimSuffix(s, "\n") })},
		{name: "CRLF throughout", accept: true, change: edit(inRelease, crlf)},
		{name: "CRLF in the signature", accept: true, change: edit(inRelease, func(s string) string { return strings.Replace(s, block(s), crlf(block(s)), 1) })},
		{name: "CRLF in the text", accept: true, change: edit(inRelease, func(s string) string { return crlf(strings.TrimSuffix(s, block(s))) + block(s) })},
		{name: "CRLF on one line", accept: true, change: swap(inRelease, "Label: Example\n", "Label: Example\r\n")},
		{name: "CR in a line", change: swap(inRelease, "Label: Example\n", "Label: Exa\rmple\n")},
		{name: "blanks at the end of a line", accept: true, change: swap(inRelease, "Label: Example\n", "Label: Example \t\n")},
		{name: "form feed at the end of a line", change: swap(inRelease, "Label: Example\n", "Label: Example\f\n")},
		{name: "blanks behind BEGIN and END", accept: true, change: edit(inRelease, func(s string) string { return strings.ReplaceAll(s, "-----\n", "----- \t\n") })},
		{name: "form feed behind BEGIN SIGNATURE", change: swap(inRelease, sigBegin, strings.Replace(sigBegin, "\n", "\f\n", 1))},
		{name: "escaped line", accept: true, change: swap(inRelease, "\nLabel: ", "\n- Label: ")},
		{name: "dash alone", change: swap(inRelease, "\nLabel: ", "\n-\nLabel: ")},
		{name: "dash and tab", change: swap(inRelease, "\nLabel: ", "\n-\tLabel: ")},
		{name: "unescaped dash", change: swap(inRelease, "\nLabel: ", "\n-x\nLabel: ")},
		{name: "blank line at the end of the text", change: swap(inRelease, sigBegin, "\n"+sigBegin)},
		{name: "blank line before the text", change: swap(inRelease, "\n\n", "\n\n\n")},
		{name: "two Hash headers", accept: true, change: swap(inRelease, "\nHash:", "\nHash: SHA1\nHash:")},
		{name: "header with a dash", change: swap(inRelease, "\nHash:", "\n-x: y\nHash:")},
		{name: "armor header", accept: true, change: swap(inRelease, sigBegin, sigBegin+"Version: GnuPG v2\nComment: x\n")},
		{name: "armor header with a dash", change: swap(inRelease, sigBegin, sigBegin+"-X: y\n")},
		{name: "armor header without a colon", change: swap(inRelease, sigBegin, sigBegin+"x\n")},
		{name: "no checksum", accept: true, change: edit(inRelease, func(s string) string { i := strings.LastIndex(s, "\n="); return s[:i] + s[i+6:] })},
		{name: "wrong checksum", change: edit(inRelease, func(s string) string {
			i := strings.LastIndex(s, "\n=") + 2
			other := "A"
			if s[i] == 'A' {
				other = "B"
			}
			return s[:i] + other + s[i+1:]
		})},
		{name: "blanks in base64", accept: true, change: edit(inRelease, func(s string) string {
			i := strings.Index(s, sigBegin) + len(sigBegin) + 11
			return s[:i] + " \t" + s[i:]
		})},
		{name: "indented base64", accept: true, change: edit(inRelease, func(s string) string {
			head, body, _ := strings.Cut(block(s), "\n\n")
			body, tail, _ := strings.Cut(body, "-----END")
			return strings.Replace(s, block(s), head+"\n\n "+strings.ReplaceAll(strings.TrimSuffix(body, "\n"), "\n", "\n ")+"\n-----END"+tail, 1)
		})},
		{name: "no END", change: swap(inRelease, sigEnd, "")},
		{name: "wrong END", change: swap(inRelease, sigEnd, "-----END PGP MESSAGE-----\n")},
		{name: "armor of another type", change: edit(inRelease, func(s string) string { return strings.ReplaceAll(s, "PGP SIGNATURE", "PGP MESSAGE") })},
		{name: "empty InRelease", how: both, change: edit(inRelease, func(string) string { return "" })},
		{name: "unsigned text as InRelease", how: both, change: func(w *mirrortest.World) { w.Archive.Set(inRelease, w.Archive.Get(release)) }},
		{name: "InRelease by another key beside a good Release", how: both, change: func(w *mirrortest.World) {
			w.Archive.Set(inRelease, signtest.ClearSign(t, stranger, string(w.Archive.Get(release)), next))
		}},
		{name: "blank line behind InRelease beside a good Release", how: both, change: behind(inRelease, "\n")},
		{name: "InRelease absent beside a good Release", how: both, accept: true, change: func(w *mirrortest.World) { w.Archive.Delete(inRelease) }},
		{name: "InRelease denied beside a good Release", how: both, change: status(http.StatusForbidden)},
		{name: "InRelease unavailable beside a good Release", how: both, change: status(http.StatusServiceUnavailable)},

		{name: "Release.gpg", how: detached, accept: true},
		{name: "binary Release.gpg", how: detached, change: edit(releaseGPG, func(s string) string { return string(packets(s)) })},
		{name: "blank line behind Release.gpg", how: detached, change: behind(releaseGPG, "\n")},
		{name: "text behind Release.gpg", how: detached, change: behind(releaseGPG, "x\n")},
		{name: "NUL behind Release.gpg", how: detached, change: behind(releaseGPG, "\x00")},
		{name: "blank line before Release.gpg", how: detached, change: before(releaseGPG, "\n")},
		{name: "blank before Release.gpg", how: detached, change: before(releaseGPG, " ")},
		{name: "text before Release.gpg", how: detached, change: before(releaseGPG, "x\n")},
		{name: "byte order mark in Release.gpg", how: detached, change: before(releaseGPG, "\xef\xbb\xbf")},
		{name: "CRLF in Release.gpg", how: detached, accept: true, change: edit(releaseGPG, crlf)},
		{name: "no final newline in Release.gpg", how: detached, accept: true, change: edit(releaseGPG, func(s string) string { return strings.TrimSuffix(s, "\n") })},
		{name: "two blocks in Release.gpg", how: detached, accept: true, change: edit(releaseGPG, func(s string) string { return s + s })},
		{name: "two blocks by two keys in Release.gpg", how: detached, accept: true, set: signers(stranger, nil)},
		{name: "two blocks apart in Release.gpg", how: detached, change: edit(releaseGPG, func(s string) string { return s + "\n" + s })},
		{name: "two blocks apart by CRLF in Release.gpg", how: detached, change: edit(releaseGPG, func(s string) string { return s + "\r\n" + s })},
		{name: "block over other data in Release.gpg", how: detached, change: func(w *mirrortest.World) { behind(releaseGPG, other(w, nil))(w) }},
		{name: "block by another key over other data in Release.gpg", how: detached, accept: true, change: func(w *mirrortest.World) { behind(releaseGPG, other(w, stranger))(w) }},
		{name: "packet over other data first in Release.gpg", how: detached, change: func(w *mirrortest.World) {
			edit(releaseGPG, func(s string) string { return armored(packets(other(w, nil)), packets(s)) })(w)
		}},
		{name: "packet over other data last in Release.gpg", how: detached, change: func(w *mirrortest.World) {
			edit(releaseGPG, func(s string) string { return armored(packets(s), packets(other(w, nil))) })(w)
		}},
		{name: "unknown packet version in Release.gpg", how: detached, accept: true, change: edit(releaseGPG, func(s string) string {
			return armored([]byte{0xc2, 2, 9, 9}, packets(s))
		})},
		{name: "literal packet in Release.gpg", how: detached, change: edit(releaseGPG, func(s string) string {
			return armored(packets(s), []byte{0xcb, 7, 'b', 0, 0, 0, 0, 0, 'x'})
		})},
		{name: "Release.gpg of another type", how: detached, change: edit(releaseGPG, func(s string) string { return strings.ReplaceAll(s, "PGP SIGNATURE", "PGP MESSAGE") })},
		{name: "clear-signed Release.gpg", how: detached, change: func(w *mirrortest.World) {
			w.Archive.Set(releaseGPG, signtest.ClearSign(t, w.Archive.Key, string(w.Archive.Get(release)), next))
		}},
		{name: "nested BEGIN in Release.gpg", how: detached, change: before(releaseGPG, sigBegin)},
		{name: "no END in Release.gpg", how: detached, change: swap(releaseGPG, sigEnd, "")},
		{name: "empty Release.gpg", how: detached, change: edit(releaseGPG, func(string) string { return "" })},
		{name: "blank line at the end of Release", how: detached, accept: true, set: text(func(s string) string { return s + "\n" })},
		{name: "no final newline in Release", how: detached, accept: true, set: text(func(s string) string { return strings.TrimSuffix(s, "\n") })},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false; m.Download = config.OnDemand })
			s := w.Archive.Default()
			s.Languages, s.InRelease, s.Both = nil, c.how == inOnly, c.how == both
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			good := w.MustSync()
			was := indexOf(t, w, good.Snapshot)
			if c.set != nil {
				c.set(w)
			}
			w.Archive.Add(debtest.Package{Name: "new", Version: "1"})
			w.Archive.Publish(next)
			if c.change != nil {
				c.change(w)
			}
			apt := debtest.NewApt(t, fmt.Sprintf("deb [signed-by=%s] %s stable main\n", w.Archive.KeyringFile(), w.Server.URL))
			out, err := apt.Try("apt-get", "update")
			if accepts := err == nil; accepts != c.accept {
				t.Fatalf("apt accepts: %t, expected %t\n%s", accepts, c.accept, out)
			}
			if c.accept {
				if out := apt.Run("apt-cache", "policy", "new"); !strings.Contains(out, "Candidate: 1") {
					t.Fatalf("apt does not know the new package:\n%s", out)
				}
			}
			w.SetNow(next)
			res, err := w.TrySync()
			if c.accept {
				if err != nil || !res.New {
					t.Errorf("apt accepts it, the sync says %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("apt refuses it, the sync accepted it")
			}
			if !strings.Contains(err.Error(), "suite stable") && !strings.Contains(err.Error(), "dists/stable/") {
				t.Errorf("error does not name the suite: %v", err)
			}
			if last := latest(t, w); last.ID() != good.Snapshot.ID() || indexOf(t, w, last) != was {
				t.Errorf("the newest snapshot is %s, expected %s", last.ID(), good.Snapshot.ID())
			}
		})
	}
}

func latest(t *testing.T, w *mirrortest.World) *meta.Snapshot {
	t.Helper()
	last, err := w.Store().Latest(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func indexOf(t *testing.T, w *mirrortest.World, s *meta.Snapshot) string {
	t.Helper()
	return read(t, w, s, "dists/stable/main/binary-amd64/Packages", true)
}

// stamped serves InRelease with the given Last-Modified and ETag by the rules of
// several web servers.
type stamped struct {
	modified time.Time
	etag     string
	// since answers 304 to any If-Modified-Since that is not before modified, and
	// tells nothing with it.
	since bool
	asked []http.Header
}

func (s *stamped) hook(w *mirrortest.World) {
	w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/InRelease") || !w.Archive.Has(inRelease) {
			return false
		}
		s.asked = append(s.asked, r.Header.Clone())
		if s.etag != "" {
			rw.Header().Set("ETag", s.etag)
			if r.Header.Get("If-None-Match") == s.etag {
				rw.WriteHeader(http.StatusNotModified)
				return true
			}
		}
		if at, err := http.ParseTime(r.Header.Get("If-Modified-Since")); err == nil && s.since && !s.modified.After(at) {
			rw.WriteHeader(http.StatusNotModified)
			return true
		}
		rw.Header().Set("Last-Modified", s.modified.UTC().Format(http.TimeFormat))
		rw.Write(w.Archive.Get(inRelease))
		return true
	}
}

// After a sync that was refused the next one takes the repaired state, whatever
// times and tags upstream gives the file.
func TestRepairedUpstream(t *testing.T) {
	for _, c := range []struct {
		name     string
		repaired stamped
	}{
		{"newer", stamped{modified: mirrortest.Start.Add(3 * time.Hour), since: true}},
		{"of the refused file's time", stamped{modified: mirrortest.Start.Add(time.Hour), since: true}},
		{"of the held file's time", stamped{modified: mirrortest.Start, since: true}},
		{"older than the held file", stamped{modified: mirrortest.Start.Add(-time.Hour), since: true}},
		{"the held file's tag", stamped{modified: mirrortest.Start, etag: `"one"`}},
		{"a weak tag", stamped{modified: mirrortest.Start, etag: `W/"one"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false; m.Download = config.OnDemand })
			w.Archive.Default().Languages = nil
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			held := stamped{modified: mirrortest.Start, etag: c.repaired.etag, since: true}
			held.hook(w)
			one := w.MustSync()
			w.Archive.Add(debtest.Package{Name: "new", Version: "1"})
			w.Archive.Publish(mirrortest.Start.Add(time.Hour))
			good := w.Archive.Get(inRelease)
			w.Archive.Set(inRelease, append(bytes.Clone(good), '\n'))
			bad := stamped{modified: mirrortest.Start.Add(time.Hour), etag: `"bad"`}
			bad.hook(w)
			w.SetNow(mirrortest.Start.Add(4 * time.Hour))
			if _, err := w.TrySync(); !errors.Is(err, repo.ErrUntrusted) {
				t.Fatalf("refused file: %v", err)
			}
			if last := latest(t, w); last.ID() != one.Snapshot.ID() {
				t.Fatalf("newest snapshot %s", last.ID())
			}
			w.Archive.Set(inRelease, good)
			c.repaired.hook(w)
			res := w.MustSync()
			if !res.New || len(names(t, w, res.Snapshot)) != 2 {
				t.Errorf("the repaired state was not taken: %+v", res)
			}
			c.repaired.asked = nil
			if res := w.MustSync(); res.New || len(c.repaired.asked) != 1 || c.repaired.asked[0].Get("If-Modified-Since") == "" {
				t.Errorf("a sync of nothing new: %+v, asked %v", res, c.repaired.asked)
			}
		})
	}
}

// A Last-Modified in the future is no condition: nothing would ever be newer.
func TestModifiedInTheFuture(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false; m.Download = config.OnDemand })
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	s := stamped{modified: mirrortest.Start.AddDate(70, 0, 0), since: true}
	s.hook(w)
	w.MustSync()
	w.Archive.Publish(mirrortest.Start.Add(time.Hour))
	w.SetNow(w.Now().Add(2 * time.Hour))
	s.modified = mirrortest.Start.Add(time.Hour)
	if res := w.MustSync(); !res.New {
		t.Error("the next state was not taken")
	}
}

// InRelease that comes back is taken at the next sync, without a warning that
// the content changed; until then each sync asks for it and for Release.
func TestInReleaseReturns(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false; m.Download = config.OnDemand })
	w.Archive.Default().Both = true
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	state := w.Archive.State()
	w.Archive.Delete(inRelease)
	w.MustSync()
	w.Archive.Requests()
	if res := w.MustSync(); res.New {
		t.Error("nothing changed, but there is a new snapshot")
	}
	var got []string
	for _, r := range w.Archive.Requests() {
		got = append(got, fmt.Sprintf("%d %s %t", r.Status, r.Path, r.Conditional))
	}
	if want := "[404 dists/stable/InRelease false 304 dists/stable/Release true]"; fmt.Sprint(got) != want {
		t.Errorf("requests %v, expected %s", got, want)
	}
	w.Archive.Restore(state)
	s := stamped{modified: mirrortest.Start.AddDate(-1, 0, 0), since: true}
	s.hook(w)
	res := w.MustSync()
	if !res.New || len(res.Warnings) > 0 {
		t.Errorf("InRelease is back: %+v", res)
	}
	if got, want := read(t, w, res.Snapshot, inRelease, true), string(w.Archive.Get(inRelease)); got != want {
		t.Error("another InRelease is served")
	}
}

// trusting is the Debian format by the rules of earlier versions.
type trusting struct{ deb.Format }

func (f trusting) FetchRoot(ctx context.Context, g repo.Getter, m config.Mirror, suite repo.SuiteName, _ []repo.Doc, p repo.VerifyParams) (*repo.Root, error) {
	var docs []repo.Doc
	for _, name := range []string{"InRelease", "Release", "Release.gpg"} {
		if d, err := g.Get(ctx, f.SuiteDir(suite)+name, 1<<20, nil); err == nil {
			docs = append(docs, d)
		}
	}
	return f.ParseRoot(m, suite, docs, p)
}

// A state that an earlier version accepted and that is refused by now goes on
// being served, is asked for without a condition, and is replaced as soon as
// upstream has a good one.
func TestAcceptedByEarlierVersion(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(s *debtest.Suite)
		spoil  func(*mirrortest.World)
		served string
	}{
		{"InRelease", func(*debtest.Suite) {}, behind(inRelease, "\n"), inRelease},
		{"Release.gpg", func(s *debtest.Suite) { s.InRelease = false }, edit(releaseGPG, func(s string) string { return string(packets(s)) }), releaseGPG},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false; m.Download = config.OnDemand })
			c.set(w.Archive.Default())
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			state := w.Archive.State()
			c.spoil(w)
			cfg := w.Config
			cfg.Formats = []repo.Format{trusting{}}
			earlier, err := mirrortest.Compose(cfg)
			if err != nil {
				t.Fatal(err)
			}
			one, err := earlier.Sync(t.Context(), "debian", mirror.SyncOptions{})
			earlier.Close()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.TrySync(); !errors.Is(err, repo.ErrUntrusted) {
				t.Errorf("the state that apt refuses: %v", err)
			}
			if got := read(t, w, latest(t, w), c.served, true); got != string(w.Archive.Get(c.served)) {
				t.Errorf("%s is no longer served as it was", c.served)
			}
			if err := w.Store().SetCheck(t.Context(), "debian", meta.Check{}); err != nil {
				t.Fatal(err) // as if that sync had not been
			}
			w.Archive.Restore(state)
			res := w.MustSync()
			if !res.New || res.Snapshot.ID() == one.Snapshot.ID() {
				t.Errorf("the good state was not taken: %+v", res)
			}
			if got := read(t, w, latest(t, w), c.served, true); got != string(w.Archive.Get(c.served)) {
				t.Errorf("another %s is served than the good one", c.served)
			}
		})
	}
}

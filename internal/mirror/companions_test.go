package mirror_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// Release and Release.gpg beside InRelease are served, too, at the timestamp at which
// they said the same and were well signed; nothing else rests on them.
func TestCompanions(t *testing.T) {
	stranger := signtest.NewKey(t, "stranger")
	for _, c := range []struct {
		name   string
		change func(*mirrortest.World)
		served bool
	}{
		{"as Debian has them", func(*mirrortest.World) {}, true},
		{"with white space that clear-signing drops", func(w *mirrortest.World) {
			resign(t, w, w.Archive.Key, func(s string) string { return strings.Replace(s, "\n", " \n", 1) + "\n" })
		}, true},
		{"with another text", func(w *mirrortest.World) {
			resign(t, w, w.Archive.Key, func(s string) string { return s + "X: y\n" })
		}, false},
		{"with another line", func(w *mirrortest.World) {
			resign(t, w, w.Archive.Key, func(s string) string { return strings.Replace(s, "\nSuite:", "\nX:", 1) })
		}, false},
		{"by another key", func(w *mirrortest.World) { resign(t, w, stranger, func(s string) string { return s }) }, false},
		{"with a bad signature", func(w *mirrortest.World) {
			w.Archive.Set(releaseGPG, signtest.Detach(t, w.Archive.Key, []byte("other"), mirrortest.Start))
		}, false},
		{"without Release.gpg", func(w *mirrortest.World) { w.Archive.Delete(releaseGPG) }, false},
		{"without Release", func(w *mirrortest.World) { w.Archive.Delete(release) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newSmall(t)
			w.Archive.Default().Both = true
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			c.change(w)
			state := w.Archive.State()
			one := w.MustSync().Snapshot
			w.Archive.Requests()
			if w.MustSync(); len(w.Archive.Requests()) != 1 {
				t.Error("a sync of nothing new made more than one request")
			}
			w.Archive.Default().Both = false
			moveOn(w)
			two := w.MustSync().Snapshot
			for _, p := range []string{release, releaseGPG} {
				got, err := tryRead(t, w, one, p, false)
				switch {
				case !c.served && !errors.Is(err, meta.ErrNotFound):
					t.Errorf("%s: %v, expected %v", p, err, meta.ErrNotFound)
				case c.served:
					w.Archive.Restore(state)
					if want := string(w.Archive.Get(p)); err != nil || got != want {
						t.Errorf("%s: %v, %q, expected %q", p, err, got, want)
					}
				}
				if _, err := tryRead(t, w, two, p, true); !errors.Is(err, meta.ErrNotFound) {
					t.Errorf("%s, which upstream has no longer: %v", p, err)
				}
			}
		})
	}
}

// resign changes the text of Release and signs it.
func resign(t *testing.T, w *mirrortest.World, key *sign.PrivateKey, edit func(string) string) {
	text := []byte(edit(string(w.Archive.Get(release))))
	w.Archive.Set(release, text)
	w.Archive.Set(releaseGPG, signtest.Detach(t, key, text, mirrortest.Start.Add(-time.Second)))
}

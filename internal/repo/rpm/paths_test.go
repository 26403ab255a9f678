package rpm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

// A sync refuses a package at the path of another file, with an error that names both.
func TestEnginePathsThatClash(t *testing.T) {
	const treeinfo = "[general]\narch = x86_64\nversion = 42\n[checksums]\nimages/boot.iso = sha256:%s\n"
	for _, c := range []struct {
		name, href string
		says       []string
	}{
		{"repomd.xml", "repodata/repomd.xml", []string{"package new 1.0-1 x86_64", "repodata/repomd.xml", "signed document"}},
		{"its signature", "repodata/repomd.xml.asc", []string{"package new 1.0-1 x86_64", "signed document"}},
		{"escaped", "repodata/repomd%2Exml", []string{"package new 1.0-1 x86_64", "signed document"}},
		{"a list", "repodata/filelists.xml.gz", []string{"package new 1.0-1 x86_64", "that suite . lists"}},
		{"the directory of lists", "repodata", []string{"package new 1.0-1 x86_64", "the directory of repodata/"}},
		{"below repomd.xml", "repodata/repomd.xml/new.rpm", []string{"package new 1.0-1 x86_64", "below repodata/repomd.xml"}},
		{"treeinfo that is not there", ".treeinfo", []string{"package new 1.0-1 x86_64", "a file of suite ."}},
		{"another package", "Packages/app.rpm", []string{"package new 1.0-1 x86_64", "package app 1.0-1 x86_64", "Packages/app.rpm"}},
		{"below another package", "Packages/app.rpm/new.rpm", []string{"package new 1.0-1 x86_64", "package app 1.0-1 x86_64"}},
		{"the directory of another package", "Packages", []string{"package new 1.0-1 x86_64", "package app 1.0-1 x86_64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rpmtest.Options{SimpleNames: true}, nil)
			w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64", Location: "Packages/app.rpm"})
			w.up.Publish(start)
			one := w.sync(t)
			w.up.Add(rpmtest.Package{Name: "new", Version: "1.0", Arch: "x86_64", Location: "Packages/new.rpm"})
			w.up.Edit = func(typ string, doc []byte) []byte {
				if typ != "primary" {
					return doc
				}
				return bytes.Replace(doc, []byte(`href="Packages/new.rpm"`), []byte(`href="`+c.href+`"`), 1)
			}
			w.now = start.Add(time.Hour)
			w.up.Publish(w.now)
			_, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
			if !errors.Is(err, repo.ErrHostile) {
				t.Fatalf("error %v, expected %v", err, repo.ErrHostile)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
			if last, err := w.Store().Latest(t.Context(), "fedora"); err != nil || last.ID() != one.Snapshot.ID() {
				t.Errorf("newest snapshot %v, %v; expected %s", last, err, one.Snapshot.ID())
			}
			w.up.Edit = nil
			w.now = start.Add(2 * time.Hour)
			w.up.Publish(w.now)
			if res := w.sync(t); !res.New {
				t.Error("the repaired state was not taken")
			}
		})
	}
	t.Run("treeinfo and repomd.xml", func(t *testing.T) {
		w := newWorld(t, rpmtest.Options{SimpleNames: true}, func(m *config.Mirror) { m.Installer = true })
		w.up.Publish(start)
		w.up.SetFile(".treeinfo", []byte(strings.Replace(treeinfo, "images/boot.iso = sha256:%s", "repodata/primary.xml.gz = sha256:"+strings.Repeat("0f", 32), 1)))
		if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, repo.ErrHostile) || !strings.Contains(err.Error(), "repodata/primary.xml.gz") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an image of the tree", func(t *testing.T) {
		w := newWorld(t, rpmtest.Options{SimpleNames: true}, func(m *config.Mirror) { m.Installer = true })
		w.up.Add(rpmtest.Package{Name: "new", Version: "1.0", Arch: "x86_64", Location: "images/boot.iso"})
		w.up.Publish(start)
		w.up.SetFile(".treeinfo", []byte(strings.Replace(treeinfo, "%s", strings.Repeat("0f", 32), 1)))
		if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); err == nil {
			t.Error("the sync succeeded")
		}
	})
	// A package that is listed twice is refused, at the same path or at two.
	t.Run("the same package twice", func(t *testing.T) {
		w := newWorld(t, rpmtest.Options{}, nil)
		b := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64"})
		w.up.AddBuilt(b...)
		w.up.Publish(start)
		w.sync(t)
	})
}

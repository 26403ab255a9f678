package mirror_test

import (
	"fmt"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A flat repository in a local directory is mirrored however apt's sources write it.
func TestFlatLocal(t *testing.T) {
	for _, suite := range []string{"/", "./"} {
		for _, url := range []string{"file:", "file://", "file://localhost"} {
			t.Run(suite+url, func(t *testing.T) {
				w := mirrortest.New(t, nil)
				w.Archive.Suite("./").Add(debtest.Package{Name: "a", Version: "1"})
				w.Archive.Publish(mirrortest.Start)
				dir := t.TempDir()
				w.Archive.WriteTo(dir)
				c, err := config.Parse("c.toml", fmt.Appendf(nil, "[[mirror]]\nname = \"debian\"\ntype = \"deb\"\nurl = %q\nsuites = [%q]\nkeyring = %q\ndownload = \"all\"\n", url+dir, suite, w.Archive.KeyringFile()))
				if err != nil {
					t.Fatal(err)
				}
				w.CloseAll()
				w.Config.Mirrors = c.Mirrors
				w.Open()
				snap := w.MustSync().Snapshot
				if got := names(t, w, snap); got["a"] != "1" {
					t.Errorf("packages: %v", got)
				}
				if p := "a_1_amd64.deb"; read(t, w, snap, p, false) != string(w.Archive.Get(p)) {
					t.Errorf("%s is not upstream's", p)
				}
			})
		}
	}
}

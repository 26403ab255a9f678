package daemon

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/bolt/bolttest"
)

// filled is a data directory with a snapshot, an exact and a whole freeze and a
// recording; its snapd has been stopped cleanly.
func filled(t *testing.T) (cfg *config.Config, pages map[string]string) {
	t.Helper()
	a, url := upstream(t)
	cfg = testConfig(t, mirrorText(a, "debian", url, `download = "all"`))
	r := start(t, cfg)
	call[api.SyncResult](r, "sync", api.SyncRequest{})
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}})
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "whole"})
	call[api.Recording](r, "record/start", api.RecordStart{Name: "build"})
	get(t, r.public+"/record/build/debian/"+a.Default().PathOf("a"))
	pages = map[string]string{}
	for _, p := range []string{
		"/frozen/4.1/debian/dists/stable/InRelease", "/frozen/4.1/debian/" + a.Default().PathOf("a"), "/frozen/4.1/manifest.json",
		"/frozen/whole/debian/dists/stable/InRelease", "/archive/debian/latest/dists/stable/InRelease",
		"/archive/debian/latest/" + a.Default().PathOf("a"), "/record/build/debian/dists/stable/InRelease",
	} {
		code, body := get(t, r.public+p)
		if code != http.StatusOK {
			t.Fatalf("%s: status %d", p, code)
		}
		pages[p] = body
	}
	r.end()
	return cfg, pages
}

// copyData makes another data directory with equal contents.
func copyData(t *testing.T, cfg *config.Config) *config.Config {
	t.Helper()
	dir := filepath.Join(shortDir(t), "data")
	if out, err := exec.Command("cp", "-a", cfg.DataDir, dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	c := *cfg
	c.DataDir, c.Server.Socket = dir, filepath.Join(dir, "snapd.sock")
	c.Signing.KeyFile = filepath.Join(dir, filepath.Base(cfg.Signing.KeyFile))
	return &c
}

func blobFiles(t *testing.T, cfg *config.Config) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(cfg.DataDir, "blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// refused starts a snapd that must not come up, and returns what it says.
func refused(t *testing.T, cfg *config.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := Run(ctx, cfg, Options{Version: "test", Ready: func(_, _ net.Addr) { cancel() }})
	if err == nil {
		t.Fatal("snapd started")
	}
	return err
}

// A data directory that lost its metadata, its key or its blobs is refused, and
// keeps what it has.
func TestLostParts(t *testing.T) {
	whole, _ := filled(t)
	tests := []struct {
		name  string
		lose  func(cfg *config.Config) error
		wants []string // parts of the message
	}{
		{"metadata missing", func(c *config.Config) error { return os.Remove(c.DataDir + "/meta.db") }, []string{"meta.db", "no such file", "blobs", "snapd restore"}},
		{"metadata empty", func(c *config.Config) error { return os.Truncate(c.DataDir+"/meta.db", 0) }, []string{"meta.db", "empty", "snapd restore"}},
		{"metadata cut", func(c *config.Config) error { return os.Truncate(c.DataDir+"/meta.db", 60_000) }, []string{"meta.db", "60000 bytes", "snapd restore"}},
		{"metadata cut to one page", func(c *config.Config) error { return os.Truncate(c.DataDir+"/meta.db", 4096) }, []string{"meta.db", "snapd restore"}},
		{"metadata overwritten", func(c *config.Config) error {
			return os.WriteFile(c.DataDir+"/meta.db", make([]byte, 1<<20), 0o600)
		}, []string{"meta.db", "not a bbolt database", "snapd restore"}},
		{"metadata a directory", func(c *config.Config) error {
			return errors.Join(os.Remove(c.DataDir+"/meta.db"), os.Mkdir(c.DataDir+"/meta.db", 0o700))
		}, []string{"meta.db", "not a regular file"}},
		{"metadata and blobs missing, key and mark there", func(c *config.Config) error {
			return errors.Join(os.Remove(c.DataDir+"/meta.db"), os.RemoveAll(c.DataDir+"/blobs"), os.RemoveAll(c.DataDir+"/quarantine"))
		}, []string{"meta.db", "signing key", "snapd restore"}},
		{"metadata and mark missing", func(c *config.Config) error {
			return errors.Join(os.Remove(c.DataDir+"/meta.db"), os.Remove(c.DataDir+"/installation"))
		}, []string{"meta.db", "blobs"}},
		{"blobs missing", func(c *config.Config) error { return os.RemoveAll(c.DataDir + "/blobs") }, []string{"no directory blobs", "snapd restore"}},
		{"blobs not mounted", func(c *config.Config) error {
			return errors.Join(os.RemoveAll(c.DataDir+"/blobs"), os.Mkdir(c.DataDir+"/blobs", 0o700))
		}, []string{"no file in the directory blobs", "mount it"}},
		{"shards of blobs empty", func(c *config.Config) error {
			return errors.Join(os.RemoveAll(c.DataDir+"/blobs"), os.MkdirAll(c.DataDir+"/blobs/ab", 0o700))
		}, []string{"no file in the directory blobs", "mount it"}},
		{"key missing", func(c *config.Config) error { return os.Remove(c.Signing.KeyFile) }, []string{"signing key", "4.1", "restore"}},
		{"metadata of another installation", func(c *config.Config) error {
			return os.WriteFile(c.DataDir+"/installation", []byte(`{"id":"0123","epoch":1}`), 0o600)
		}, []string{"installation", "0123"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := copyData(t, whole)
			if err := tt.lose(cfg); err != nil {
				t.Fatal(err)
			}
			before := 0
			if _, err := os.Stat(cfg.DataDir + "/blobs"); err == nil {
				before = blobFiles(t, cfg)
			}
			for range 2 { // a second try does no harm either
				err := refused(t, cfg)
				for _, w := range tt.wants {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("says %q, expected %q in it", err, w)
					}
				}
			}
			if before > 0 && blobFiles(t, cfg) != before {
				t.Errorf("%d blobs are left of %d", blobFiles(t, cfg), before)
			}
		})
	}
}

// A key that was made before the first start is used, and an empty data
// directory begins anew.
func TestBeginWithKey(t *testing.T) {
	whole, _ := filled(t)
	a, url := upstream(t)
	cfg := testConfig(t, mirrorText(a, "debian", url, ""))
	key, err := os.ReadFile(whole.Signing.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(cfg.DataDir, 0o700), os.WriteFile(cfg.Signing.KeyFile, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	if st := r.status(); len(st.Warnings) > 0 {
		t.Errorf("warnings: %q", st.Warnings)
	}
}

// An older copy of the metadata is noticed, and blobs that it does not know are
// kept, also by a scrub and a collection without any grace.
func TestOlderMetadata(t *testing.T) {
	cfg, _ := filled(t)
	old, err := os.ReadFile(cfg.DataDir + "/meta.db")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.2", Packages: []string{"a"}})
	r.end()
	if err := os.WriteFile(cfg.DataDir+"/meta.db", old, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Store.QuarantineTime = 0
	before := blobFiles(t, cfg)
	r = start(t, cfg)
	if st := r.status(); len(st.Warnings) == 0 || !strings.Contains(st.Warnings[0], "older") {
		t.Errorf("warnings: %q", st.Warnings)
	}
	res := call[api.FsckResult](r, "fsck", api.FsckRequest{})
	if res.Unknown == 0 {
		t.Errorf("fsck: %+v", res)
	}
	if gc := call[api.GCResult](r, "gc", api.GCRequest{}); gc.Blobs > 0 || gc.Purged > 0 {
		t.Errorf("gc: %+v", gc)
	}
	if n := blobFiles(t, cfg); n != before {
		t.Errorf("%d blobs are left of %d", n, before)
	}
}

// rebuilt are the buckets that fsck --repair makes anew when they lose an entry
// or have a damaged one, or from which it drops the entry: those of webhooks.
var rebuilt = map[string]bool{
	"alias": true, "began": true, "check": true, "dirty": true, "ended": true, "frozen": true, "ftree": true, "genref": true, "ids": true,
	"lended": true, "live": true, "lpath": true, "name": true, "names": true, "path": true, "ref": true, "rotten": true, "snapshot": true, "suspect": true,
	"other": true, "source": true, "event": true, "delivery": true,
}

// Damage to any bucket is noticed by the start, status, verify and fsck; nothing
// is collected, and no page has wrong bytes. What other data proves is repaired.
func TestDamagedMetadata(t *testing.T) {
	whole, pages := filled(t)
	whole.Store.QuarantineTime = 0
	for _, bucket := range bolttest.BucketsInUse(t, filepath.Join(whole.DataDir, metaFile)) {
		for kind, damage := range map[string]func(t testing.TB, file, bucket string){"lost": bolttest.LoseEntry, "damaged": bolttest.FlipBit} {
			t.Run(bucket+" "+kind, func(t *testing.T) {
				cfg := copyData(t, whole)
				damage(t, filepath.Join(cfg.DataDir, metaFile), bucket)
				testDamaged(t, cfg, pages, bucket)
			})
		}
	}
}

func testDamaged(t *testing.T, cfg *config.Config, pages map[string]string, bucket string) {
	t.Helper()
	before := blobFiles(t, cfg)
	r := start(t, cfg)
	if st := r.status(); len(st.Warnings) == 0 || !strings.Contains(strings.Join(st.Warnings, " "), "metadata is damaged") {
		t.Errorf("warnings: %q", st.Warnings)
	}
	compare := func(whole bool) {
		t.Helper()
		for p, want := range pages {
			code, body := try(r.public + p)
			if code == http.StatusOK && body != want || whole && code != http.StatusOK || code == http.StatusNotFound || code == http.StatusGone {
				t.Errorf("%s: status %d, %d bytes", p, code, len(body))
			}
		}
	}
	compare(false)
	for _, dry := range []bool{false, true} {
		var gc api.GCResult
		err := r.ctl.Call(t.Context(), "gc", api.GCRequest{DryRun: dry}, &gc, nil)
		if err == nil || !strings.Contains(err.Error(), "nothing is collected") {
			t.Errorf("gc: %v, %+v", err, gc)
		}
	}
	var v api.VerifyResult
	if err := r.ctl.Call(t.Context(), "verify", api.VerifyRequest{Ref: "4.1"}, &v, nil); err == nil && v.Exit != api.ExitVerify {
		t.Errorf("verify: %+v", v)
	}
	var sync api.SyncResult
	if err := r.ctl.Call(t.Context(), "sync", api.SyncRequest{}, &sync, nil); err == nil && sync.Exit == 0 {
		t.Errorf("sync into damaged metadata: %+v", sync)
	}
	if res := call[api.FsckResult](r, "fsck", api.FsckRequest{}); len(res.Faults) == 0 || res.Exit != api.ExitVerify {
		t.Errorf("fsck: %+v", res)
	}
	res := call[api.FsckResult](r, "fsck", api.FsckRequest{Repair: true})
	compare(rebuilt[bucket])
	if !rebuilt[bucket] {
		if len(res.Faults) == 0 {
			t.Errorf("what is lost for good was forgotten: %+v", res)
		}
	} else {
		if len(res.Faults) > 0 || len(res.Repaired) == 0 {
			t.Errorf("fsck --repair: %+v", res)
		}
		if v := call[api.VerifyResult](r, "verify", api.VerifyRequest{Ref: "4.1", Deep: true}); v.Exit != 0 {
			t.Errorf("verify after the repair: %+v", v.Faults)
		}
		if gc := call[api.GCResult](r, "gc", api.GCRequest{}); gc.Blobs > 0 {
			t.Errorf("gc after the repair: %+v", gc)
		}
	}
	if n := blobFiles(t, cfg); n != before {
		t.Errorf("%d blobs are left of %d", n, before)
	}
	r.end()
	if rebuilt[bucket] {
		if err := damageOf(t, cfg); err != nil {
			t.Errorf("after the repair and a stop: %v", err)
		}
	}
}

func damageOf(t *testing.T, cfg *config.Config) error {
	t.Helper()
	st, err := bolt.Open(filepath.Join(cfg.DataDir, metaFile), bolt.Options{})
	if err != nil {
		return err
	}
	return errors.Join(st.Damage(), st.Close())
}

// A directory that another program keeps its state in is left alone.
func TestForeignDirectory(t *testing.T) {
	for _, f := range foreign {
		cfg := testConfig(t, "")
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cfg.DataDir, f.name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := refused(t, cfg); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), f.name+" of "+f.program) {
			t.Errorf("%s: %v", f.name, err)
		}
		if names, err := os.ReadDir(cfg.DataDir); err != nil || len(names) != 1 {
			t.Errorf("%s: the directory was changed: %v %v", f.name, names, err)
		}
	}
}

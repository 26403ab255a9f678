package daemon

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Below the reserve syncs, freezes, recordings and fetches on demand stop and say
// why; what is here is served, collections run, and with space again all goes on
// without a restart. Long because it is one story from beginning to end.
func TestReserve(t *testing.T) {
	disk := shortDir(t)
	needs.Tmpfs(t, disk, "96m")
	a := debtest.New(t)
	a.Add(debtest.Package{Name: "a"}, debtest.Package{Name: "b"}, debtest.Package{Name: "c"})
	a.Publish(time.Now().Add(-time.Hour))
	up := httptest.NewServer(a.Handler())
	t.Cleanup(up.Close)
	cfg := testConfig(t, "[store]\nreserve = \"32MiB\"\n"+mirrorText(a, "debian", up.URL, "keep = \"1s\""))
	cfg.DataDir = filepath.Join(disk, "data")
	cfg.Server.Socket, cfg.Signing.KeyFile = filepath.Join(cfg.DataDir, "s"), filepath.Join(cfg.DataDir, "key.asc")
	cfg.Log.KeyFile = filepath.Join(cfg.DataDir, "log-key")
	r := start(t, cfg)
	defer r.end() // before the disk goes

	first := call[api.SyncResult](r, "sync", api.SyncRequest{}).Mirrors[0]
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}})
	call[api.Recording](r, "record/start", api.RecordStart{Name: "build"})
	deb := func(name string) string { return a.Default().PathOf(name) }
	if code, _ := get(t, r.public+"/record/build/debian/"+deb("a")); code != 200 {
		t.Fatalf("recording with space: status %d", code)
	}
	a.Add(debtest.Package{Name: "d"})
	a.Publish(time.Now().Add(-time.Minute))

	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const low = "free space below the reserve"
	refused := func(what string, err error) {
		t.Helper()
		e := new(api.Error)
		if !errors.As(err, &e) || e.Code != api.CodeNoSpace || e.Exit != api.ExitFailed || !strings.Contains(e.Message, low+": ") || !strings.HasSuffix(e.Message, " bytes free, 33554432 reserved") {
			t.Errorf("%s below the reserve: %v", what, err)
		}
	}
	res := call[api.SyncResult](r, "sync", api.SyncRequest{})
	if res.Exit != api.ExitFailed || res.Mirrors[0].Error == nil {
		t.Errorf("sync below the reserve: %+v", res)
	} else {
		refused("sync", res.Mirrors[0].Error)
	}
	refused("record start", r.ctl.Call(t.Context(), "record/start", api.RecordStart{Name: "more"}, nil, nil))
	refused("freeze", r.ctl.Call(t.Context(), "freeze", api.FreezeRequest{Name: "4.2", Packages: []string{"b"}}, nil, nil))
	serves := func(what string, rows map[string]int) {
		t.Helper()
		for p, want := range rows {
			if code, body := get(t, r.public+p); code != want || want == 503 && !strings.Contains(body, low) {
				t.Errorf("%s: %s: status %d, expected %d\n%s", what, p, code, want, body)
			}
		}
	}
	served := map[string]int{
		"/archive/debian/latest/dists/stable/InRelease": 200,
		"/archive/debian/latest/" + deb("a"):            200,
		"/frozen/4.1/debian/dists/stable/InRelease":     200,
		"/frozen/4.1/debian/" + deb("a"):                200,
		"/frozen/4.1/manifest.json":                     200,
		"/":                                             200,
		"/healthz":                                      200,
	}
	serves("below the reserve", served)
	serves("below the reserve", map[string]int{"/archive/debian/latest/" + deb("b"): 503, "/record/build/debian/" + deb("a"): 503, "/record/build/debian/" + deb("c"): 503})
	if w := strings.Join(r.status().Warnings, "\n"); !strings.Contains(w, "free space is below the reserve: ") {
		t.Errorf("status warns %q", w)
	}
	call[api.GCResult](r, "gc", api.GCRequest{})
	if f := call[api.FsckResult](r, "fsck", api.FsckRequest{}); f.Exit != 0 {
		t.Errorf("fsck: %+v", f)
	}
	if v := call[api.VerifyResult](r, "verify", api.VerifyRequest{Ref: "4.1", Deep: true}); v.Exit != 0 {
		t.Errorf("verify: %+v", v)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if res := call[api.SyncResult](r, "sync", api.SyncRequest{}); res.Exit != 0 || !res.Mirrors[0].New || res.Mirrors[0].Snapshot == first.Snapshot {
		t.Errorf("sync with space again: %+v", res)
	}
	for p := range served {
		served[p] = 200
	}
	serves("with space again", served)
	serves("with space again", map[string]int{"/archive/debian/latest/" + deb("b"): 200, "/record/build/debian/" + deb("c"): 200, "/archive/debian/latest/" + deb("d"): 200})
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.2", Packages: []string{"b"}})
	if w := r.status().Warnings; len(w) > 0 {
		t.Errorf("status still warns %q", w)
	}
}

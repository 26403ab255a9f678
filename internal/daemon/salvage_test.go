package daemon

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta/bolt/bolttest"
)

// An installation that lost every blob starts when that was accepted, and a backup
// brings everything back. Then a directory that is not mounted is refused again.
func TestLostBlobs(t *testing.T) {
	whole, pages := filled(t)
	cfg := copyData(t, whole)
	if res, err := AcceptLostBlobs(t.Context(), cfg); err != nil || res.Accepted || res.Blob == "" {
		t.Errorf("with blobs: %+v, %v", res, err)
	}
	loseBlobs(t, cfg)
	if res, err := Salvage(cfg, Options{}); err != nil || !res.Sound || res.Kept != "" {
		t.Errorf("salvage of metadata without faults: %+v, %v", res, err)
	}
	if res, err := AcceptLostBlobs(t.Context(), cfg); err != nil || !res.Accepted {
		t.Fatalf("without blobs: %+v, %v", res, err)
	}
	start(t, cfg).end() // it holds until there is a blob
	r := start(t, cfg)
	if w := strings.Join(r.status().Warnings, "\n"); !strings.Contains(w, "every blob is lost: run 'snapctl fsck --repair'") {
		t.Errorf("status warns %q", w)
	}
	overview := func(state string, lost bool) {
		t.Helper()
		if code, body := get(t, r.public+"/"); code != http.StatusOK || !strings.Contains(body, state) || strings.Contains(body, "every blob is lost") != lost {
			t.Errorf("expected the overview to say %q: status %d\n%s", state, code, body)
		}
	}
	overview("Needs attention", true)
	if _, err := AcceptLostBlobs(t.Context(), cfg); !errors.Is(err, ErrRunning) {
		t.Errorf("while snapd runs: %v", err)
	}
	res := call[api.FsckResult](r, "fsck", api.FsckRequest{Repair: true})
	if len(res.Repaired) == 0 || len(res.Lost) == 0 || res.Exit != api.ExitVerify {
		t.Errorf("from upstream: %+v", res)
	}
	for _, f := range res.Faults {
		if !strings.Contains(f.Message, "freeze ") { // only those were made here
			t.Errorf("lost although upstream has it: %+v", f)
		}
	}
	// A crash would not change what is marked now.
	if m, err := readInstallation(cfg.DataDir); err != nil || m.BlobsLost {
		t.Errorf("with blobs again: %+v, %v", m, err)
	}
	// From what upstream has, the same freeze is made again.
	call[api.RemoveResult](r, "rm", api.RefRequest{Ref: "4.1"})
	call[api.FreezeResult](r, "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}})
	if code, body := get(t, r.public+"/frozen/4.1/manifest.json"); code != http.StatusOK || body != pages["/frozen/4.1/manifest.json"] {
		t.Errorf("made again: status %d: %s", code, body)
	}
	res = call[api.FsckResult](r, "fsck", api.FsckRequest{Repair: true, From: whole.DataDir})
	if len(res.Faults) > 0 || len(res.Lost) > 0 || res.Exit != 0 {
		t.Errorf("from a copy: %+v", res)
	}
	if w := r.status().Warnings; len(w) > 0 {
		t.Errorf("status warns %q after the repair", w)
	}
	overview("Healthy", false)
	for p, want := range pages {
		if code, body := get(t, r.public+p); code != http.StatusOK || body != want {
			t.Errorf("%s: status %d, %d bytes", p, code, len(body))
		}
	}
	r.end()
	r = start(t, cfg)
	if w := r.status().Warnings; len(w) > 0 {
		t.Errorf("status warns %q", w)
	}
	r.end()
	loseBlobs(t, cfg)
}

// Blobs that somebody brings back while snapd runs are noticed when it stops.
func TestLostBlobsReturn(t *testing.T) {
	whole, _ := filled(t)
	cfg := copyData(t, whole)
	loseBlobs(t, cfg)
	if res, err := AcceptLostBlobs(t.Context(), cfg); err != nil || !res.Accepted {
		t.Fatalf("%+v, %v", res, err)
	}
	r := start(t, cfg)
	if out, err := exec.Command("cp", "-a", filepath.Join(whole.DataDir, "blobs"), cfg.DataDir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	r.end()
	loseBlobs(t, cfg)
}

// loseBlobs removes every blob; snapd does not start then.
func loseBlobs(t *testing.T, cfg *config.Config) {
	t.Helper()
	for _, dir := range []string{"blobs", "quarantine"} {
		if err := os.RemoveAll(filepath.Join(cfg.DataDir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := refused(t, cfg); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "snapd accept-lost-blobs") || !strings.Contains(err.Error(), pageBlobs) {
		t.Errorf("without blobs: %v", err)
	}
}

// That every blob is lost can be accepted without a mark, too, or with one that cannot
// be read.
func TestLostBlobsWithoutMark(t *testing.T) {
	whole, _ := filled(t)
	for name, change := range map[string]func(file string) error{
		"deleted":    os.Remove,
		"empty":      func(file string) error { return os.Truncate(file, 0) },
		"unreadable": func(file string) error { return os.WriteFile(file, []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := copyData(t, whole)
			file := filepath.Join(cfg.DataDir, installationFile)
			before, err := readInstallation(cfg.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(file); err != nil {
				t.Fatal(err)
			}
			loseBlobs(t, cfg)
			if res, err := AcceptLostBlobs(t.Context(), cfg); err != nil || !res.Accepted {
				t.Fatalf("%+v, %v", res, err)
			}
			for range 2 {
				start(t, cfg).end()
			}
			if m, err := readInstallation(cfg.DataDir); err != nil || m == nil || m.ID != before.ID || m.Epoch <= before.Epoch || !m.BlobsLost {
				t.Errorf("%+v, %v; before %+v", m, err, before)
			}
		})
	}
}

// A salvage counts what it kept and writes a report; list and status name it until
// nothing is missing. A clean stop with damaged metadata is a clean stop.
func TestSalvageReport(t *testing.T) {
	whole, _ := filled(t)
	cfg := copyData(t, whole)
	file := filepath.Join(cfg.DataDir, metaFile)
	bolttest.LoseEntry(t, file, "gen") // cannot be rebuilt
	bolttest.FlipBit(t, file, "alias")
	res, err := Salvage(cfg, Options{Now: func() time.Time { return time.Unix(0, 0) }})
	if err != nil || res.Entries != res.Expected-2 || len(res.Buckets) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	var report api.SalvageResult
	if data, err := os.ReadFile(res.Report); err != nil || json.Unmarshal(data, &report) != nil || report.Entries != res.Entries || report.Kept != res.Kept {
		t.Errorf("report: %v\n%s", err, data)
	}
	for range 2 {
		r := start(t, cfg)
		warnings := strings.Join(r.status().Warnings, "\n")
		for _, want := range []string{"salvaged on 1970-01-01 and is incomplete", res.Report, "'snapctl fsck --repair'; if faults remain, restore a backup with 'snapd restore'", pageMetadata} {
			if !strings.Contains(warnings, want) {
				t.Errorf("status warns %q, expected %q in it", warnings, want)
			}
		}
		if strings.Contains(warnings, uncleanText) {
			t.Errorf("after a clean stop: %q", warnings)
		}
		if l := call[api.SnapshotList](r, "list", api.ListRequest{}); !strings.Contains(strings.Join(l.Warnings, "\n"), res.Report) {
			t.Errorf("list warns %q", l.Warnings)
		}
		r.end()
	}
}

// Without metadata, salvage and backup say what is missing and what to do.
func TestNoMetadata(t *testing.T) {
	whole, _ := filled(t)
	used, fresh := copyData(t, whole), testConfig(t, "")
	if err := os.Remove(filepath.Join(used.DataDir, metaFile)); err != nil {
		t.Fatal(err)
	}
	_, salvage := Salvage(used, Options{})
	_, backup := Backup(t.Context(), used, Options{}, t.TempDir(), nil)
	_, accept := AcceptLostBlobs(t.Context(), used)
	for _, err := range []error{salvage, backup, accept} {
		if err == nil || !strings.Contains(err.Error(), "meta.db does not exist, but there are blobs (") || !strings.Contains(err.Error(), "restore a backup with 'snapd restore'; without one, see "+pageMetadata) {
			t.Errorf("a used directory: %v", err)
		}
	}
	if _, err := Salvage(fresh, Options{}); err == nil || !strings.Contains(err.Error(), "check data_dir in the configuration") {
		t.Errorf("a new directory: %v", err)
	}
}

package httpd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Every series is there before anything has happened, so that rules can rely on it,
// and the count of blobs is new without anybody asking for the status.
func TestMetricsFromTheStart(t *testing.T) {
	s := newSite(t, nil)
	has := func(body string, patterns ...string) {
		t.Helper()
		for _, want := range patterns {
			if !regexp.MustCompile("(?m)^" + want + "$").MatchString(body) {
				t.Errorf("no %s in:\n%s", want, body)
			}
		}
	}
	has(string(s.get("/metrics").body),
		`snapd_sync_total\{mirror="debian",result="failed"\} 0`, `snapd_sync_total\{mirror="debian",result="new"\} 0`,
		`snapd_sync_total\{mirror="debian",result="unchanged"\} 0`, `snapd_sync_total\{mirror="debian",result="refused"\} 0`,
		`snapd_sync_fetched_bytes_total\{mirror="debian"\} 0`, `snapd_sync_duration_seconds_count\{mirror="debian"\} 0`,
		`snapd_http_requests_total\{area="archive",code="503",method="GET"\} 0`,
		`snapd_latest_snapshot_timestamp_seconds\{mirror="debian"\} 0`, `snapd_sync_last_success_timestamp_seconds\{mirror="debian"\} 0`,
		`snapd_upstream_date_seconds\{mirror="debian",suite="stable"\} 0`,
		`snapd_build_info\{goversion="go[^"]*",version="[^"]*"\} 1`, `snapd_signing_key_expiry_seconds \+Inf`,
		`snapd_blobs \d+`, `snapd_blob_bytes \d+`, `snapd_index_blobs \d+`, `snapd_index_bytes \d+`, `snapd_image_blobs 0`, `snapd_image_bytes 0`, `snapd_kit_blobs 0`, `snapd_kit_bytes 0`, `snapd_metadata_bytes \d+`, `snapd_quarantined_blobs 0`,
		`snapd_max_age_seconds\{mirror="debian"\} 0`, `snapd_sync_running\{mirror="debian"\} 0`, `snapd_sync_running_bytes\{mirror="debian"\} 0`,
		`snapd_keyring_expiry_seconds\{mirror="debian"\} \+Inf`, `snapd_on_demand_total\{result="fetched"\} 0`, `snapd_on_demand_total\{result="failed"\} 0`,
		`snapd_on_demand_total\{result="joined"\} 0`, `snapd_gc_last_success_timestamp_seconds 0`, `snapd_scrub_last_success_timestamp_seconds 0`,
		`snapd_scrub_progress_ratio 0`, `snapd_gc_running 0`, `snapd_gc_removed_blobs_total 0`, `snapd_gc_removed_bytes_total 0`,
		`snapd_on_demand_total\{result="stored"\} 0`, `snapd_metadata_duration_seconds_count\{operation="write"\} \d+`,
		`snapd_metadata_duration_seconds_bucket\{operation="read",le="0\.02"\} [1-9]\d*`, `snapd_blob_store_duration_seconds_count\{operation="stat"\} 0`,
		`snapd_blob_store_duration_seconds_count\{operation="read"\} 0`, `snapd_blob_store_duration_seconds_count\{operation="remove"\} 0`)
	before := regexp.MustCompile(`(?m)^snapd_blobs \d+$`).FindString(string(s.get("/metrics").body))
	s.Archive.Add(debtest.Package{Name: "a"})
	s.publish()
	s.sync()
	after := string(s.get("/metrics").body)
	for range 1000 { // the count is as old as twenty times the time that it took
		if after = string(s.get("/metrics").body); !strings.Contains(after, before+"\n") {
			break
		}
	}
	if strings.Contains(after, before+"\n") {
		t.Errorf("after a sync still %s", before)
	}
	has(after, `snapd_blob_store_duration_seconds_count\{operation="flush"\} [1-9]\d*`, `snapd_lease_held\{lease="sync/debian"\} 0`, `snapd_upstream_date_seconds\{mirror="debian",suite="stable"\} 1\.[0-9]+e\+09`)
}

// Images and kits are counted apart, in the metrics, the status and the overview.
func TestImagesAndKitsCounted(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(debtest.Package{Name: "a"})
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	dir := t.TempDir()
	write := func(name string, size int) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, bytes.Repeat([]byte(name[:1]), size), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for variant, file := range map[string]string{"one": write("image", 3000), "same": write("image", 3000), "other": write("other", 500)} {
		if err := s.send("image/add", api.ImageAdd{Name: "4.1", Variant: variant}, nil, file); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.send("kit/publish", api.KitPublish{Files: []api.KitFile{{Path: "v1/kit.iuk"}, {Path: "v1/upgrades.yml"}}}, nil, write("kit", 2000), write("udf", 7)); err != nil {
		t.Fatal(err)
	}
	var status api.Status
	s.call("status", api.Empty{}, &status)
	if status.ImageBytes != 3500 || status.KitBytes != 2007 || status.BlobBytes < 5507 {
		t.Errorf("status: %d bytes of images and %d of kits, of %d", status.ImageBytes, status.KitBytes, status.BlobBytes)
	}
	metrics := s.get("/metrics").body
	for _, want := range []string{"snapd_image_blobs 2\n", "snapd_image_bytes 3500\n", "snapd_kit_blobs 2\n", "snapd_kit_bytes 2007\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if body := s.get("/").body; !strings.Contains(body, "images and kits 5.4 KiB") {
		t.Errorf("the overview has no share of images and kits:\n%s", body)
	}
	s.wants("/", `<a href="/iuk/v1/kit.iuk">v1/kit.iuk</a>`, "2.0 KiB", `<a href="/iuk/v1/upgrades.yml">`)
	var o api.Overview
	if err := json.Unmarshal(s.json("/"), &o); err != nil || o.KitLen != 2 || len(o.Kits) != 2 || o.Kits[1].Path != "v1/upgrades.yml" || o.Kits[1].Size != 7 {
		t.Errorf("the overview as JSON has kits %+v, %v", o.Kits, err)
	}
	// What apt needs can be copied from the page.
	sources := s.get("/frozen/4.1/sources").body
	if body := s.page("/freeze/4.1"); !strings.Contains(html.UnescapeString(body), `<summary>apt sources to copy</summary><pre class="copy" tabindex="0">`+sources+"</pre>") {
		t.Errorf("the page of the freeze does not have\n%s\nin\n%s", sources, body)
	}
}

// The page of a freeze links each file of a source package.
func TestFreezePageSources(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(debtest.Package{Name: "a"})
	s.Archive.AddSource(debtest.Source{Name: "a", Version: "1", Files: map[string]string{"x": "y"}})
	s.publish()
	s.sync()
	if _, err := s.freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "4.1", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"/freeze/4.1", "/snapshot/debian@latest"} {
		body := string(s.get(page).body)
		links := regexp.MustCompile(`<a href="([^"]*/pool/[^"]*)">([^<]*)</a>`).FindAllStringSubmatch(body, -1)
		var names []string
		for _, l := range links {
			names = append(names, l[2])
			if a := s.get(l[1]); a.StatusCode != 200 {
				t.Errorf("%s: %s: status %d", page, l[1], a.StatusCode)
			}
		}
		if all := strings.Join(names, " "); !strings.Contains(all, "a_1.dsc") || !strings.Contains(all, "a_1.tar") || strings.Contains(body, ">.<") {
			t.Errorf("%s links %q:\n%s", page, names, body)
		}
	}
}

// A running sync, and a package that is fetched for a client, are counted.
func TestMetricsOfWork(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s.Archive.Add(debtest.Package{Name: "a"})
	s.publish()
	s.sync()
	page := func() string { return string(s.get("/metrics").body) }
	for range 2 { // the second is stored
		if a := s.get("/archive/debian/latest/pool/main/a/a/a_1.0-1_amd64.deb"); a.StatusCode != 200 {
			t.Fatalf("package: status %d: %s", a.StatusCode, a.body)
		}
	}
	if body := page(); !strings.Contains(body, `snapd_on_demand_total{result="fetched"} 1`+"\n") || !strings.Contains(body, `snapd_on_demand_total{result="stored"} 1`+"\n") || !strings.Contains(body, `snapd_lease_held{lease="sync/debian"} 0`+"\n") {
		t.Errorf("after a fetch and a sync:\n%s", body)
	}
	s.Archive.Add(debtest.Package{Name: "b"})
	s.publish()
	entered, leave := make(chan bool, 100), make(chan bool)
	s.Archive.Hook = func(http.ResponseWriter, *http.Request) bool {
		entered <- true
		<-leave
		return false
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		if err := s.control.Call(t.Context(), "sync", api.SyncRequest{}, nil, nil); err != nil {
			t.Error(err)
		}
	}()
	<-entered
	if body := page(); !strings.Contains(body, `snapd_sync_running{mirror="debian"} 1`+"\n") || !strings.Contains(body, `snapd_lease_held{lease="sync/debian"} 1`+"\n") {
		t.Errorf("during a sync:\n%s", body)
	}
	close(leave)
	<-done
	if body := page(); !strings.Contains(body, `snapd_sync_running{mirror="debian"} 0`+"\n") {
		t.Errorf("after the sync:\n%s", body)
	}
}

// A mirror says what is stored of its packages, in all its snapshots.
func TestStoredOfMirror(t *testing.T) {
	s := newSite(t, nil)
	shows := func() {
		t.Helper()
		var want api.StoredFiles
		for _, p := range s.Archive.Paths() {
			if strings.HasSuffix(p, ".deb") {
				want.Files++
				want.Bytes += int64(len(s.Archive.Get(p)))
			}
		}
		var shown api.MirrorDetail
		for range 1000 { // a count is as old as twenty times the time that it took
			s.call("mirror/show", api.MirrorRef{Mirror: "debian"}, &shown)
			if shown.Stored != nil && *shown.Stored == want {
				s.wants("/mirror/debian", fmt.Sprint(want.Files, " package files of all snapshots"))
				return
			}
		}
		t.Errorf("stored: %+v, expected %+v", shown.Stored, want)
	}
	shows()
	s.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	s.publish()
	s.sync()
	shows()
	s.Archive.Add(debtest.Package{Name: "a", Version: "2"})
	s.publish()
	s.sync()
	shows()
}

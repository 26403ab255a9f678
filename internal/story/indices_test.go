package story

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// compressedAs returns an upstream that compresses its indices with the given programs,
// and a configuration with keep_indices = keep.
func compressedAs(t *testing.T, keep int, programs map[string][]string) (*debtest.Archive, string) {
	t.Helper()
	a, config := upstream(t)
	a.Programs = programs
	for suffix := range programs {
		a.Default().Compressions = append(a.Default().Compressions, suffix)
	}
	slices.Sort(a.Default().Compressions)
	a.Default().ListPlain = true
	return a, strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\nkeep_indices = %d\n", keep), 1)
}

// installsFrom checks that apt can install a version of a package from a snapshot, and
// does not warn about an index that it could not download.
func (s *server) installsFrom(id, pkg, version string) {
	s.t.Helper()
	apt := debtest.NewApt(s.t, s.Ctl("sources", id))
	out, err := apt.Try("apt-get", "update")
	if err != nil || strings.Contains(out, "\nE:") || strings.Contains(out, "\nW:") {
		s.t.Fatalf("%s: apt-get update: %v\n%s", id, err, out)
	}
	apt.Run("apt-get", "install", pkg)
	if !slices.ContainsFunc(apt.Installed(), func(l string) bool { return strings.Contains(l, pkg) && strings.Contains(l, version) }) {
		s.t.Errorf("%s: installed %v, expected %s %s", id, apt.Installed(), pkg, version)
	}
}

// xzInstead makes a directory for PATH with an xz that ignores its options, but reports
// the version of the real one.
func xzInstead(t *testing.T) string {
	t.Helper()
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncase \"$1\" in --version) exec %[1]s --version;; esac\nexec %[1]s -1 -T1 -c\n", xz)
	if err := os.WriteFile(filepath.Join(dir, "xz"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Sixty states of an archive take only as much space as their changes. apt can install
// from each of them, whether snapd has the xz that upstream used, an xz that compresses
// differently, or no xz.
func TestHistoryOfIndices(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg", "xz")
	const states = 60
	a, config := compressedAs(t, 3, map[string][]string{".xz": {"xz", "-6e", "-T2"}})
	begin := time.Now().UTC().Truncate(time.Second).Add(-states * time.Hour)
	for i := range 80 {
		a.Add(debtest.Package{Name: fmt.Sprintf("other%d", i), Version: "1"})
	}
	s := start(t, config)
	for i := range states {
		if i > 0 {
			a.Default().Remove("app", fmt.Sprint(i))
			a.Default().Remove(fmt.Sprintf("other%d", i), "1")
		}
		a.Add(debtest.Package{Name: "app", Version: fmt.Sprint(i + 1)})
		if i%3 == 0 {
			a.Add(debtest.Package{Name: fmt.Sprintf("later%d", i), Version: "1"})
		}
		if i%10 == 0 {
			a.AddSource(debtest.Source{Name: fmt.Sprintf("src%d", i), Version: "1"})
		}
		a.Publish(begin.Add(time.Duration(i) * time.Hour))
		s.Ctl("sync")
	}
	var list api.SnapshotList
	s.JSON(&list, "list", "--mirror", "debian")
	var ids []string
	for _, snap := range list.Snapshots {
		ids = append(ids, snap.ID)
	}
	slices.Sort(ids)
	if len(ids) != states {
		t.Fatalf("%d snapshots, expected %d", len(ids), states)
	}
	var gc api.GCResult
	s.JSON(&gc, "gc", "--compact")
	if gc.Indices != 3*(states-3) || gc.OrderBytes*5 > gc.IndexBytes {
		t.Errorf("compacted %+v", gc)
	}
	var again api.GCResult
	if s.JSON(&again, "gc", "--compact"); again.Indices != 0 {
		t.Errorf("compacted again: %+v", again)
	}
	from := func(every int) {
		t.Helper()
		for i := 0; i < states; i += every {
			s.installsFrom(ids[i], "app", fmt.Sprint(i+1))
		}
	}
	from(10)
	s.Ctl("fsck")
	var status api.Status
	if s.JSON(&status, "status"); status.Mirrors[0].HistoryPerYear != 0 {
		t.Errorf("the history takes %d bytes a year, by what a minute took", status.Mirrors[0].HistoryPerYear)
	}

	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for path, every := range map[string]int{xzInstead(t): 10, t.TempDir(): 30} {
		s.Stop()
		if err := os.RemoveAll(filepath.Join(s.Dir, "data/indices")); err != nil {
			t.Fatal(err)
		}
		s.env = []string{"PATH=" + path}
		s.run(bin)
		xz := "http://" + s.Addr + "/archive/" + strings.Replace(ids[20], "@", "/", 1) + "/dists/stable/main/binary-amd64/Packages.xz"
		for range 2 {
			// On a very slow machine the index may still be being made.
			if status, body := get(t, xz); status != 404 || !strings.Contains(body, "cannot be made again") && !strings.Contains(body, "is being made") {
				t.Errorf("xz in %s: %d %s", path, status, body)
			}
		}
		from(every)
	}
}

// The texts beside packages (lists of files, translations, AppStream data) are compacted
// like indices, and are served with upstream's bytes afterwards.
func TestHistoryOfTexts(t *testing.T) {
	needs.Programs(t, "gzip", "xz", "perl", "python3")
	const states = 6
	a, config := compressedAs(t, 2, map[string][]string{".gz": {"gzip", "-9n", "--rsyncable"}, ".xz": {"xz", "-6e", "-T2"}})
	a.Default().Contents, a.Default().Languages = true, []string{"en"}
	s := start(t, strings.Replace(config, "sources = true\n", "sources = true\ncontents = true\nindices = [\"main/dep11/*\"]\n", 1))
	begin := time.Now().UTC().Truncate(time.Second).Add(-states * time.Hour)
	const dep11 = "main/dep11/Components-amd64.yml"
	served := map[string]string{} // by URL
	for i := range states {
		a.Default().Remove("app", fmt.Sprint(i))
		a.Add(debtest.Package{Name: "app", Version: fmt.Sprint(i + 1), Description: fmt.Sprintf("state %d\nA longer text of state %d.", i, i), Files: map[string]string{fmt.Sprintf("/usr/share/app/%d", i): "x"}})
		for j := range 40 {
			if i == 0 {
				name := fmt.Sprintf("other%d", j)
				a.Add(debtest.Package{Name: name, Version: "1", Description: name + "\nIt does not change.", Files: map[string]string{"/usr/share/" + name: "x"}})
			}
		}
		var yaml strings.Builder
		for j := range 60 {
			fmt.Fprintf(&yaml, "---\nType: desktop-application\nID: org.example.app%d\nName:\n  C: Name %d\n", j, j+i/(j+1))
		}
		a.Default().Extra = map[string][]byte{dep11: []byte(yaml.String()), dep11 + ".gz": zlibGzip(t, yaml.String())}
		a.Publish(begin.Add(time.Duration(i) * time.Hour))
		s.Ctl("sync")
		var list api.SnapshotList
		s.JSON(&list, "list", "--mirror", "debian")
		for _, name := range []string{dep11 + ".gz", "main/Contents-amd64.gz", "main/i18n/Translation-en.xz", "main/binary-amd64/Packages.xz"} {
			url := "http://" + s.Addr + "/archive/" + strings.Replace(list.Snapshots[0].ID, "@", "/", 1) + "/dists/stable/" + name
			status, body := get(t, url)
			if status != 200 {
				t.Fatalf("%s: status %d", url, status)
			}
			served[url] = body
		}
	}
	var gc api.GCResult
	if s.JSON(&gc, "gc", "--compact"); gc.Indices < 4*(states-2) {
		t.Errorf("compacted %d indices, expected at least %d", gc.Indices, 4*(states-2))
	}
	s.Stop()
	if err := os.RemoveAll(filepath.Join(s.Dir, "data/indices")); err != nil {
		t.Fatal(err)
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	s.run(bin)
	for url, want := range served {
		status, body := get(t, url)
		for i := 0; status == 404 && i < 100; i++ { // it is being made
			time.Sleep(100 * time.Millisecond)
			status, body = get(t, url)
		}
		if status != 200 || body != want {
			t.Errorf("%s: status %d, %d bytes, expected the same %d bytes", url, status, len(body), len(want))
		}
	}
	s.Ctl("fsck")
}

// zlibGzip compresses as zlib's own functions do.
func zlibGzip(t *testing.T, text string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "-c", "import sys, zlib\nc = zlib.compressobj(6, zlib.DEFLATED, 31)\nsys.stdout.buffer.write(c.compress(sys.stdin.buffer.read()) + c.flush())")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
)

func TestInterrupt(t *testing.T) {
	for _, args := range [][]string{{"sync"}, {"sync", "--json"}, {"record", "show", "x", "--follow"}} {
		x := newTester(t)
		x.fake.set(func() { x.fake.answers["record/show"] = api.Recording{Name: "x"} })
		if args[0] == "sync" {
			x.fake.set(func() { x.fake.hang = make(chan struct{}) })
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		o := x.runCtx(ctx, "", args...)
		if o.Exit != api.ExitInterrupted || o.Err != "snapctl: error: interrupted\n" {
			t.Errorf("%v: exit %d, %q", args, o.Exit, o.Err)
		}
		if len(args) == 2 && o.Out != `{"error":{"code":"interrupted","message":"interrupted","exit":130}}`+"\n" {
			t.Errorf("%v: %s", args, o.Out)
		}
	}
}

// TestSignal interrupts the program itself.
func TestSignal(t *testing.T) {
	x := newTester(t)
	x.fake.set(func() { x.fake.hang = make(chan struct{}) })
	x.fake.set(func() { x.fake.progress["sync"] = []api.Progress{{Phase: "indices"}} })
	cmd := snapctl(t, x, "sync", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Progress is printed as it happens, not at the end.
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, `"phase":"indices"`) {
		t.Errorf("%q, %v", line, err)
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if c := cmd.ProcessState.ExitCode(); c != api.ExitInterrupted {
		t.Errorf("exit %d", c)
	}
}

// snapctl returns a command that runs the program as a process with x's snapd.
func snapctl(t *testing.T, x *tester, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programPath(t), args...)
	cmd.Env = append(os.Environ(), "SNAPCTL_SOCKET="+x.fake.socket, "NO_COLOR=", "TERM=xterm")
	return cmd
}

// programPath returns the path of a snapctl, which is this test binary under that name.
func programPath(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "snapctl")
	if err := os.Symlink(self, name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFollow(t *testing.T) {
	x := newTester(t)
	entry := func(path string, n int) api.RecordEntry {
		return api.RecordEntry{Mirror: "debian", Path: path, Size: 1 << 20, First: day, Last: day, Count: n}
	}
	first := api.Recording{Name: "x", Started: day, Entries: []api.RecordEntry{entry("a.deb", 1), entry("b.deb", 1)}}
	second := first
	second.Entries = []api.RecordEntry{entry("a.deb", 1), entry("b.deb", 2), entry("c.deb", 1)}
	second.Stopped = &day
	x.fake.set(func() { x.fake.answers["record/show"] = first })
	time.AfterFunc(500*time.Millisecond, func() {
		x.fake.set(func() { x.fake.answers["record/show"] = second })
	})
	o := x.run("", "record", "show", "x", "--follow", "--json")
	var got []string
	lines := strings.Split(strings.TrimSpace(o.Out), "\n")
	for _, l := range lines[:len(lines)-1] {
		var e struct{ Entry api.RecordEntry }
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Entry.Path, " ", e.Entry.Count))
	}
	if d := cmp.Diff([]string{"a.deb 1", "b.deb 1", "b.deb 2", "c.deb 1"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	var r api.Recording
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || r.Name != "x" || len(r.Entries) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestKeys(t *testing.T) {
	x := newTester(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "keys", "k.asc")
	var made, shown, renewed api.KeyInfo
	run := func(into *api.KeyInfo, args ...string) {
		t.Helper()
		o := x.run("", append(args, "--json", "--key-file", file)...)
		if o.Exit != 0 || len(o.Requests) > 0 {
			t.Fatalf("exit %d: %s, asked %v", o.Exit, o.Err, o.Requests)
		}
		if err := json.Unmarshal([]byte(o.Out), into); err != nil {
			t.Fatal(err)
		}
	}
	run(&made, "key", "generate", "--name", "Releases", "--email", "r@example.org")
	if made.UserID != "Releases <r@example.org>" || !made.Created.Equal(x.now) || made.Expires != nil {
		t.Errorf("%+v", made)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	run(&shown, "key", "show")
	if d := cmp.Diff(made, shown); d != "" {
		t.Error(d)
	}
	if o := x.run("", "key", "export", "--key-file", file); o.Out != made.Armored || strings.Contains(o.Out, "PRIVATE") {
		t.Errorf("%s", o.Out)
	}
	if o := x.run("", "key", "generate", "--key-file", file); o.Exit != 1 || o.Err != "snapctl: error: make key "+file+": the key already exists\nsnapctl: hint: move the file away first, or change its expiry with: snapctl key renew\n" {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	x.now = x.now.Add(time.Hour)
	run(&renewed, "key", "renew", "--expires", "2040-01-01")
	if renewed.Fingerprint != made.Fingerprint || renewed.Expires == nil || timeText(*renewed.Expires) != "2040-01-01 00:00:00Z" {
		t.Errorf("%+v", renewed)
	}
	x.now = x.now.Add(time.Hour)
	renewed = api.KeyInfo{}
	run(&renewed, "key", "renew")
	if renewed.Expires != nil {
		t.Errorf("%+v", renewed)
	}
	if o := x.run("", "key", "renew", "--key-file", file, "--expires", "2020-01-01"); o.Exit != 2 {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	os.Chmod(file, 0o644)
	if o := x.run("", "key", "show", "--key-file", file); o.Exit != 1 || !strings.Contains(o.Err, "hint: only its owner may read a signing key") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
}

func TestKeyFilesStayInDirectory(t *testing.T) {
	x := newTester(t)
	for _, name := range []string{"../evil", "a/b", "/etc/evil", ".bashrc", "", ".."} {
		dir := t.TempDir()
		x.fake.set(func() { x.fake.answers["sources"] = api.SourcesResult{Keys: []api.KeyFile{{Name: name, Armored: "x"}}} })
		o := x.run(dir, "sources", "4.1", "--keys-dir", filepath.Join(dir, "keys"))
		if o.Exit != 1 || len(o.Files) > 0 || !strings.Contains(o.Err, "is not a valid file name for a key") {
			t.Errorf("%q: exit %d, %v, %s", name, o.Exit, o.Files, o.Err)
		}
	}
}

// Packages that no snapshot has are listed beside the sources of the others.
func TestSourcesFor(t *testing.T) {
	x := newTester(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte("a=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	answer := api.SourcesResult{Text: "Types: deb\n", Cover: &api.Cover{Snapshots: []api.CoverSnapshot{{Ref: "debian@20261122T160000Z", Suites: []string{"bookworm"}, Packages: 1}}, Missing: []string{}, Minimal: true}}
	x.fake.set(func() { x.fake.answers["sources"] = answer })
	if o := x.run(dir, "sources", "--for", filepath.Join(dir, "list")); o.Exit != 0 || o.Out != "Types: deb\n" || o.Err != "" {
		t.Errorf("exit %d: %q %q", o.Exit, o.Out, o.Err)
	}
	for i := range 25 {
		answer.Cover.Missing = append(answer.Cover.Missing, fmt.Sprintf("m%02d=1", i))
	}
	o := x.run(dir, "sources", "--for", filepath.Join(dir, "list"))
	if o.Exit != 3 || o.Out != "Types: deb\n" || !strings.Contains(o.Err, "no snapshot has m19=1") || strings.Contains(o.Err, "m20") || !strings.Contains(o.Err, "and 5 others") {
		t.Errorf("missing packages: exit %d: %q %q", o.Exit, o.Out, o.Err)
	}
	for _, args := range [][]string{{"sources"}, {"sources", "4.1", "--for", filepath.Join(dir, "list")}} {
		if o := x.run(dir, args...); o.Exit != 2 {
			t.Errorf("%q: exit %d: %s", args, o.Exit, o.Err)
		}
	}
}

func TestRebuild(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	if o := x.run(dir, "rebuild", "4.1"); o.Exit != 0 || !strings.HasPrefix(o.Out, "4.1: equal, sha256:") {
		t.Errorf("exit %d: %s%s", o.Exit, o.Out, o.Err)
	}
	// An image with other files, made with another apt.
	list := x.fake.answers["image/list"].(api.ImageList)
	img := &list.Images[2]
	img.SHA256, _ = fileDigest(filepath.Join(dir, "new.squashfs"))
	img.How["version.apt"] = "2.5.0"
	o := x.run(dir, "rebuild", "4.1")
	if o.Exit != 4 {
		t.Errorf("exit %d", o.Exit)
	}
	for _, want := range []string{`missing +/a +file of 3 bytes`, `missing +/same +file of 1 byte`, `added +/etc/apt +- +directory`, `added +/spec +- +file of \d+ bytes`} {
		if !regexp.MustCompile(`(?m)^  ` + want).MatchString(o.Out) {
			t.Errorf("expected %s in:\n%s", want, o.Out)
		}
	}
	wantErr := "snapctl: warning: the image was built with apt 2.5.0; this machine has 2.6.1\n" +
		"snapctl: error: rebuild 4.1: the image differs from the recorded one\n" +
		"snapctl: hint: use the tools that the image was built with: apt 2.5.0\n"
	if o.Err != wantErr {
		t.Error(cmp.Diff(wantErr, o.Err))
	}
	// The differences are sent with the attestation.
	o = x.run(dir, "rebuild", "4.1", "--attest", "--key", filepath.Join(dir, "key.asc"))
	if o.Exit != 4 || !regexp.MustCompile(`(?m)^differences on the page /freeze/4\.1/comparison/[0-9a-f]{64} of the server$`).MatchString(o.Out) {
		t.Errorf("exit %d: %s%s", o.Exit, o.Out, o.Err)
	}
	// An image that was not built here.
	img.How = nil
	if o := x.run(dir, "rebuild", "4.1"); o.Exit != 1 || !strings.Contains(o.Err, "hint: snapd can only rebuild images that it built") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	if o := x.run(dir, "rebuild", "two"); o.Exit != 1 || !strings.Contains(o.Err, "hint: choose one with --variant") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
}

// TestWords compares the output for people with the results that it describes. Long
// because of its table.
func TestWords(t *testing.T) {
	x := newTester(t)
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, verb string
		answer     any
		args       []string
		exit       int
		out, err   string
	}{
		// An error from upstream does not break the table.
		{"mirrors", "mirror/list", api.MirrorList{Mirrors: []api.MirrorStatus{
			{Name: "debian", Type: "deb", Snapshots: 1, Latest: "debian@20261122T160000Z", Checked: &at},
			{Name: "gone", Type: "deb", Checked: &at, Error: "fetch dists/stable/InRelease: upstream unavailable"},
		}}, []string{"mirror", "list"}, 0, strings.Join([]string{
			"MIRROR  TYPE  SNAPSHOTS  LATEST                   CHECKED               NEXT SYNC  STATE",
			"debian  deb   1          debian@20261122T160000Z  2026-11-22 16:00:00Z  -          ok",
			"gone    deb   0          -                        2026-11-22 16:00:00Z  -          failed",
			"gone: fetch dists/stable/InRelease: upstream unavailable",
			"",
		}, "\n"), ""},
		{"what a mirror warns of", "mirror/list", api.MirrorList{Mirrors: []api.MirrorStatus{
			{Name: "debian", Type: "deb", Snapshots: 1, Latest: "debian@20261122T160000Z", Checked: &at, Warnings: []string{"suite stable: Release has no Date"}},
		}}, []string{"mirror", "list"}, 0, strings.Join([]string{
			"MIRROR  TYPE  SNAPSHOTS  LATEST                   CHECKED               NEXT SYNC  STATE",
			"debian  deb   1          debian@20261122T160000Z  2026-11-22 16:00:00Z  -          ok",
			"debian: warning: suite stable: Release has no Date",
			"",
		}, "\n"), ""},
		// All fields are in one table.
		{"a status", "status", api.Status{Version: "1", ImageBytes: 3000, KitBytes: 2000, Quarantined: 2, Log: &api.LogStatus{Origin: "h/log", Size: 3, Witnessed: "1/2"}}, []string{"status"}, 0, strings.Join([]string{
			"Version:      1",
			"Free:         0 B (syncs stop below 0 B)",
			"Blobs:        0, 0 B",
			"Indices:      0 B of the blobs are upstream indices",
			"Metadata:     0 B in pages, 0 B in keys and values",
			"Snapshots:    0",
			"Frozen:       0",
			"Recordings:   0",
			"Images:       2.9 KiB of the blobs are images of freezes",
			"Kits:         2.0 KiB of the blobs are upgrade kits",
			"Log:          h/log, 3 entries",
			"Witnessed:    1/2",
			"Quarantined:  2 blobs",
			"",
		}, "\n"), ""},
		{"no mirrors", "mirror/list", api.MirrorList{}, []string{"mirror", "list"}, 0, "no mirrors are configured\n", ""},
		{"no packages", "packages", api.PackageList{Ref: "4.1"}, []string{"packages", "4.1"}, 0, "no packages\n", ""},
		{"a package", "show", api.ShowResult{Package: &api.ShownPackage{Ref: "4.1", Stanzas: []api.PackageDetail{{
			Package: api.Package{Mirror: "debian", Name: "hello", Version: "1", Arch: "amd64", Files: []api.File{{Path: "pool/h.deb", Size: 5, SHA256: "ab"}}},
			Places:  []api.PackagePlace{{Suite: "stable", Component: "main"}, {Suite: "./"}}, Fields: []api.PackageField{{Name: "Section", Value: "devel"}, {Name: "Description", Value: "greets\n with a smile\x1b"}},
			Here: true, Seen: []api.Seen{{First: day, Last: day.Add(time.Hour)}, {First: day.Add(-time.Hour), Last: day.Add(-time.Hour)}}, Frozen: []string{"4.0", "4.1"}, Channels: []string{"stable"},
		}}}}, []string{"show", "4.1", "hello"}, 0, strings.Join([]string{
			"Package:       hello", "Version:       1", "Architecture:  amd64", "In:            4.1", "Mirror:        debian", "Listed in:     stable/main ./", "Stored:        yes",
			"Snapshots:     2026-11-22 16:00:00Z to 2026-11-22 17:00:00Z, 2026-11-22 15:00:00Z", "Frozen in:     4.0 4.1", "Channels:      stable", "",
			"Files:", "  PATH        SIZE  SHA-256", "  pool/h.deb  5 B   ab", "",
			"Control data:", "  Section: devel", "  Description: greets", "   with a smile\\x1b", "",
		}, "\n"), ""},
		{"a suite never synced", "mirror/show", api.MirrorDetail{MirrorStatus: api.MirrorStatus{Name: "m", Type: "deb"}, Suites: []api.SuiteDetail{{Suite: "stable"}}}, []string{"mirror", "show", "m"}, 0,
			"Mirror:     m\nType:       deb\nSources:    no\nInterval:   on request only\nKeep:       for ever\nSnapshots:  0\n\nSUITE   DATE  VALID UNTIL  PACKAGES  SOURCES  TRUST  SIGNED BY\nstable  -     -            -         -        -      -\n", ""},
		{"a suite with a warning", "mirror/show", api.MirrorDetail{MirrorStatus: api.MirrorStatus{Name: "m", Type: "deb", Warnings: []string{"suite stable: Release has no Date"}}, Suites: []api.SuiteDetail{{Suite: "stable"}}}, []string{"mirror", "show", "m"}, 0,
			"Mirror:     m\nType:       deb\nSources:    no\nInterval:   on request only\nKeep:       for ever\nSnapshots:  0\n\nSUITE   DATE  VALID UNTIL  PACKAGES  SOURCES  TRUST  SIGNED BY\nstable  -     -            -         -        -      -\nWarning: suite stable: Release has no Date\n", ""},
		{"sources that come and go", "diff", api.Diff{A: "a", B: "b", Added: []api.DiffEntry{{Name: "new", Arch: "amd64", New: "2", Mirror: "m"}}, Sources: []api.SourceDiff{
			{Source: "new", Kind: "added", New: []string{"2"}, Count: 1}, {Source: "old", Kind: "removed", Old: []string{"1"}, Count: 2}, {Source: "up", Kind: "upgraded", Old: []string{"1"}, New: []string{"2"}, Count: 1},
		}}, []string{"diff", "a", "b"}, 0,
			"Added: 1\n  new:amd64  2  m\nBy source package: 3\n  new  added     2       1 package\n  old  removed   1       2 packages\n  up   upgraded  1 -> 2  1 package\n", ""},
		// Resolved entries are not listed, but different digests are.
		{"a refused freeze", "freeze", &api.Error{Code: api.CodeMissing, Message: "missing: 1 entry", Exit: api.ExitFailed, Detail: api.FreezeResult{Report: &api.Report{Resolved: 1, Missing: 1, Entries: []api.ReportEntry{
			{Manifest: "m", Line: 1, Entry: "a=1", State: "resolved", By: "version"}, {Manifest: "m", Line: 2, Entry: "b=1", State: "missing", Reason: "b_1.deb has 5 bytes, expected 6"},
		}}}}, []string{"freeze", "x"}, 1,
			"Entries: 1 resolved (0 in several places), 0 ambiguous, 1 missing\nSTATE    ENTRY  BY  MANIFEST  PLACES\nmissing  b=1    -   m:2       b_1.deb has 5 bytes, expected 6\n",
			"snapctl: error: missing: 1 entry\nsnapctl: hint: list all entries with --dry-run; import an older state that has them with snapctl sync M --from-url URL --as T, record them as missing with --allow-missing, or leave out source packages with --no-sources\n"},
		// A dry run has listed every entry.
		{"a refused dry run", "freeze", &api.Error{Code: api.CodeMissing, Message: "missing: 1 entry", Exit: api.ExitFailed, Detail: api.FreezeResult{DryRun: true, Report: &api.Report{Missing: 1, Entries: []api.ReportEntry{
			{Manifest: "m", Line: 2, Entry: "b=1", State: "missing"},
		}}}}, []string{"freeze", "x", "--dry-run"}, 1,
			"Entries: 0 resolved (0 in several places), 0 ambiguous, 1 missing\nSTATE    ENTRY  BY  MANIFEST  PLACES\nmissing  b=1    -   m:2       -\n",
			"snapctl: error: missing: 1 entry\nsnapctl: hint: import an older state that has them with snapctl sync M --from-url URL --as T, record them as missing with --allow-missing, or leave out source packages with --no-sources\n"},
		// A hint in the error itself takes precedence, and the snapshot that has an
		// entry is named.
		{"an entry of an older snapshot", "freeze", &api.Error{Code: api.CodeMissing, Message: "missing: 1 entry", Hint: "freeze from it, too: --mirror debian --mirror debian@20261122T160000Z", Exit: api.ExitFailed,
			Detail: api.FreezeResult{Report: &api.Report{Missing: 1, Entries: []api.ReportEntry{{Manifest: "m", Line: 1, Entry: "b=1", State: "missing", Snapshot: "debian@20261122T160000Z"}}}}},
			[]string{"freeze", "x"}, 1,
			"Entries: 0 resolved (0 in several places), 0 ambiguous, 1 missing\nSTATE    ENTRY  BY  MANIFEST  PLACES\nmissing  b=1    -   m:1       debian@20261122T160000Z has it\n",
			"snapctl: error: missing: 1 entry\nsnapctl: hint: freeze from it, too: --mirror debian --mirror debian@20261122T160000Z\n"},
		// The candidates of a source package have digests, too.
		{"an ambiguous source", "freeze", &api.Error{Code: api.CodeAmbiguous, Message: "ambiguous", Hint: "choose", Exit: api.ExitFailed, Detail: api.FreezeResult{Report: &api.Report{Ambiguous: 1, Entries: []api.ReportEntry{
			{Manifest: "m", Line: 1, Entry: "a:source", State: "ambiguous", Candidates: []api.Package{{Mirror: "d", Name: "a", Version: "1", Arch: "source", Files: []api.File{{Path: "a.dsc", SHA256: strings.Repeat("a", 64)}, {Path: "a.tar", SHA256: strings.Repeat("b", 64)}}}}},
		}}}}, []string{"freeze", "x"}, 1,
			"Entries: 0 resolved (0 in several places), 1 ambiguous, 0 missing\nSTATE      ENTRY     BY  MANIFEST  PLACES\nambiguous  a:source  -   m:1       d a 1 source " + short(strings.Repeat("a", 64)) + "," + short(strings.Repeat("b", 64)) + "\n",
			"snapctl: error: ambiguous\nsnapctl: hint: choose\n"},
		{"versions that were chosen", "freeze", api.FreezeResult{New: true, Frozen: &api.Frozen{Name: "x", Packages: 1, Manifest: "ab", URL: "http://h/frozen/x/"}, Report: &api.Report{Resolved: 1, Newest: 1, Notes: []string{"m:2: snap:core20 is a snap: skipped"}, NoteCount: 1,
			Entries: []api.ReportEntry{{Entry: "hello", State: "resolved", By: "name", Reason: "2 is the newest of 2, 1"}}}}, []string{"freeze", "x"}, 0,
			"x: frozen: 1 package, 0 source packages, 0 B\nmanifest sha256:ab\nhttp://h/frozen/x/\n",
			"snapctl: m:2: snap:core20 is a snap: skipped\nsnapctl: 1 entry without a version: the newest was chosen\nsnapctl: hello: 2 is the newest of 2, 1\n"},
		{"a package that is nowhere", "find", api.FindResult{Matches: []api.Match{}}, []string{"find", "nosuch"}, 1, "", "snapctl: error: no snapshot has a package nosuch\n"},
		{"as JSON", "find", api.FindResult{Matches: []api.Match{}}, []string{"find", "nosuch", "--json"}, 1, "{\"matches\":[]}\n", ""},
		{"an empty freeze", "freeze", api.FreezeResult{New: true, Frozen: &api.Frozen{Name: "x", Manifest: "ab", URL: "http://h/frozen/x/"}}, []string{"freeze", "x"}, 0,
			"x: frozen: 0 packages, 0 source packages, 0 B\nmanifest sha256:ab\nhttp://h/frozen/x/\n", "snapctl: warning: x contains no packages\n"},
		{"keys that did not sign", "verify", api.VerifyResult{Ref: "x", Exit: api.ExitVerify, Faults: []api.VerifyFault{{Object: "o", Message: "m"}}}, []string{"verify", "x", "--key", "DIR/public.asc"}, 4,
			"Verified:  x\nProven:    0 packages\nFiles:     0, 0 B read\n\nfault: o: m\n",
			"snapctl: error: verify x: 1 check failed\nsnapctl: hint: if only signatures fail, they were made by other keys than the given ones; see which with: snapctl verify x\n"},
	} {
		dir := world(t, x)
		x.fake.set(func() { x.fake.answers[c.verb], x.fake.progress[c.verb] = c.answer, nil })
		for i := range c.args {
			c.args[i] = strings.ReplaceAll(c.args[i], "DIR", dir)
		}
		o := x.run("", c.args...)
		if o.Exit != c.exit || o.Out != c.out || o.Err != c.err {
			t.Errorf("%s: exit %d\n%s%s", c.name, o.Exit, cmp.Diff(c.out, o.Out), cmp.Diff(c.err, o.Err))
		}
	}
}

// The output of a dry run of a garbage collection cannot be mistaken for that of a real
// one.
func TestGCWords(t *testing.T) {
	x := newTester(t)
	r := api.GCResult{Snapshots: []string{"debian@20261122T160000Z"}, Blobs: 1, Bytes: 10, Purged: 2, PurgedBytes: 2048}
	for dry, want := range map[bool]string{
		true:  "would remove snapshot debian@20261122T160000Z\nwould remove 1 snapshot; would put 1 blob (10 B) in quarantine; would delete 2 blobs (2.0 KiB) from it\nnothing was changed (--dry-run)\n",
		false: "removed snapshot debian@20261122T160000Z\nremoved 1 snapshot; put 1 blob (10 B) in quarantine; deleted 2 blobs (2.0 KiB) from it\n",
	} {
		r.DryRun = dry
		x.fake.set(func() { x.fake.answers["gc"] = r })
		if o := x.run("", "gc"); o.Exit != 0 || o.Out != want {
			t.Errorf("exit %d\n%s", o.Exit, o.Out)
		}
	}
}

// Images can also be built from an imported freeze, whose mirror is not configured.
func TestImageOfImportedFreeze(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	x.fake.set(func() {
		x.fake.answers["mirror/show"] = &api.Error{Code: api.CodeNotFound, Message: "no such mirror: debian", Exit: api.ExitFailed}
	})
	o := x.run(dir, "image", "build", "4.1", "--output", filepath.Join(dir, "out.squashfs"))
	if want := "snapctl: warning: mirror debian is not configured here: the image's sources.list omits it\n"; o.Exit != 0 || o.Err != want || o.Files["out.squashfs"] == "" {
		t.Errorf("exit %d, %q", o.Exit, o.Err)
	}
}

// The file of an image that is being built has a unique name.
func TestImageBesideOthers(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	const mine = "out.squashfs.partial"
	write(t, filepath.Join(dir, mine), "mine")
	o := x.run(dir, "image", "build", "4.1", "--output", filepath.Join(dir, "out.squashfs"))
	if o.Exit != 0 || o.Files["out.squashfs"] == "" || o.Files[mine] != "mine" {
		t.Errorf("exit %d, %s: %q", o.Exit, mine, o.Files[mine])
	}
}

// TestBuildPhases checks that mmdebstrap's messages are converted to progress.
func TestBuildPhases(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	var phases []string
	for l := range strings.Lines(x.run(dir, "image", "build", "4.1", "--json").Out) {
		var p struct{ Progress *api.Progress }
		if json.Unmarshal([]byte(l), &p) == nil && p.Progress != nil && p.Progress.Task == "4.1" {
			phases = append(phases, p.Progress.Phase)
		}
	}
	if d := cmp.Diff([]string{"download", "install", "pack"}, phases); d != "" {
		t.Error(d)
	}
}

// TestAdvice checks that each row of the table is used for its error, from snapd or
// from snapctl.
func TestAdvice(t *testing.T) {
	for _, a := range advices {
		l := &line{path: []*verb{{}}, args: []string{"the name"}}
		for _, n := range strings.Fields(a.verb) {
			l.path = append(l.path, &verb{name: n})
		}
		err := fmt.Errorf("do something: %w", a.is)
		if a.and != nil {
			err = fmt.Errorf("%w: %w", err, a.and)
		}
		if a.code != "" {
			err = fmt.Errorf("do something: %w", &api.Error{Code: a.code, Reason: a.reason, Message: "no"})
		}
		hint := strings.NewReplacer("VERB", a.verb, "NAME", "'the name'").Replace(a.hint)
		if exit, got := explain(err, l); exit != a.exit || got != strings.TrimSpace(hint) {
			t.Errorf("%v of %q: exit %d, %q, expected %d, %q", err, a.verb, exit, got, a.exit, hint)
		}
	}
	// snapd's own exit code takes precedence.
	if exit, _ := explain(&api.Error{Code: api.CodeInternal, Exit: api.ExitPartial}, &line{path: []*verb{{}}}); exit != api.ExitPartial {
		t.Errorf("exit %d", exit)
	}
	if exit, hint := explain(fmt.Errorf("%w at s: %w", client.ErrNoDaemon, os.NewSyscallError("connect", unix.EACCES)), &line{path: []*verb{{}}}); exit != 1 || !strings.HasPrefix(hint, "only root, the user") {
		t.Errorf("exit %d, %q", exit, hint)
	}
}

// TestIUKVerifyFails verifies a kit with images that it is not for.
func TestIUKVerifyFails(t *testing.T) {
	x := newTester(t)
	dir := world(t, x)
	kit, old, neu := filepath.Join(dir, "Tails_amd64_4.0_to_4.1.iuk"), filepath.Join(dir, "old.squashfs"), filepath.Join(dir, "new.squashfs")
	if o := x.run(dir, "iuk", "verify", kit, "--old", neu, "--new", neu); o.Exit != 4 || !strings.Contains(o.Err, "snapctl iuk inspect") {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	if o := x.run(dir, "iuk", "verify", old, "--old", old, "--new", neu); o.Exit != 4 {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
	if o := x.run(dir, "iuk", "verify", kit, "--old", old, "--new", filepath.Join(dir, "absent")); o.Exit != 1 {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
}

// TestSourceDateEpoch checks that equal images and times make equal kits, and another
// time makes another kit.
func TestSourceDateEpoch(t *testing.T) {
	x := newTester(t)
	kit := func() string {
		t.Helper()
		dir := world(t, x)
		o := x.run(dir, "iuk", "create", "--from", "4.0", "--to", "4.1", "--output", filepath.Join(dir, "k"))
		if o.Exit != 0 {
			t.Fatal(o.Err)
		}
		return o.Files["k"]
	}
	a, b := kit(), kit()
	x.env["SOURCE_DATE_EPOCH"] = "1700000000"
	if c := kit(); a != b || a == c {
		t.Errorf("equal runs equal: %t, other time equal: %t", a == b, a == c)
	}
	x.env["SOURCE_DATE_EPOCH"] = "0"
	if c := kit(); binary.LittleEndian.Uint32([]byte(c)[8:]) != 0 {
		t.Errorf("the kit is not of 1970-01-01")
	}
	x.env["SOURCE_DATE_EPOCH"] = "yesterday"
	if o := x.run("", "iuk", "create", "--from", "4.0", "--to", "4.1"); o.Exit != 2 {
		t.Errorf("exit %d: %s", o.Exit, o.Err)
	}
}

// TestTerminal runs the program with a terminal for standard error.
func TestTerminal(t *testing.T) {
	x := newTester(t)
	x.fake.set(func() {
		x.fake.answers["sync"] = api.SyncResult{Mirrors: []api.MirrorSync{{Mirror: "debian", Error: &api.Error{Message: "debian: no"}}}, Exit: 1}
	})
	var p []api.Progress
	for i := range 4 {
		p = append(p, api.Progress{Task: "debian", Phase: "packages", Files: int64(i), FilesTotal: 10, Bytes: int64(i) << 20, BytesTotal: 10 << 20})
	}
	x.fake.set(func() { x.fake.progress["sync"] = p })
	colour := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, c := range []struct {
		env  []string
		args []string
		bar  bool
		sgr  bool
	}{
		{nil, []string{"sync"}, true, true},
		{[]string{"NO_COLOR=1"}, []string{"sync"}, true, false},
		{[]string{"TERM=dumb"}, []string{"sync"}, false, false},
		{nil, []string{"sync", "--json"}, false, true},
	} {
		hang := make(chan struct{})
		x.fake.set(func() { x.fake.hang = nil })
		if c.bar {
			// Long enough for a bar to be drawn.
			x.fake.set(func() { x.fake.hang = hang })
			time.AfterFunc(600*time.Millisecond, func() { close(hang) })
		}
		cmd := snapctl(t, x, c.args...)
		cmd.Env = append(cmd.Env, c.env...)
		got := runOnTerminal(t, cmd)
		if bar := strings.Contains(got, "debian packages") && strings.Contains(got, "3.0 MiB / 10.0 MiB") && strings.Contains(got, "3/10 files"); bar != c.bar {
			t.Errorf("%v %v: a bar: %t, expected %t\n%q", c.env, c.args, bar, c.bar, got)
		}
		if sgr := colour.MatchString(got); sgr != c.sgr {
			t.Errorf("%v %v: colours: %t, expected %t\n%q", c.env, c.args, sgr, c.sgr, got)
		}
	}
}

// runOnTerminal runs cmd with a pseudo-terminal as standard error, and returns the text
// that was written to it.
func runOnTerminal(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 160})
	cmd.Stderr = slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var out bytes.Buffer
	done := make(chan struct{})
	go func() {
		out.ReadFrom(master) // ends with EIO when the last writer is gone
		close(done)
	}()
	cmd.Wait()
	<-done
	return out.String()
}

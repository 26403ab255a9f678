package story

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Refuse runs snapctl, which must fail with the exit code and print each of the words
// on standard error.
func (s *server) Refuse(exit int, args []string, words ...string) string {
	s.t.Helper()
	out, err := s.Try(args...)
	if code(err) != exit {
		s.t.Fatalf("snapctl %s: exit %d, expected %d: %v\n%s", strings.Join(args, " "), code(err), exit, err, out)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			s.t.Errorf("snapctl %s: %v\nexpected in it: %s", strings.Join(args, " "), err, w)
		}
	}
	return out
}

func args(s string) []string { return strings.Fields(s) }

// A freeze or a recording of all mirrors needs a snapshot of each.
func TestMirrorWithoutSnapshot(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	s := start(t, head+a.stanza("debian", "")+strings.Replace(a.stanza("late", ""), a.URL, a.URL+"/not-there", 1))
	s.Refuse(1, args("freeze early --package a"), "mirrors without a snapshot: debian (never synced); late (never synced)", "hint: choose the mirrors with --mirror")
	s.Refuse(3, args("sync"))
	for _, c := range []string{"freeze 4.1 --all", "freeze 4.1 --package a", "freeze 4.1 --package a --dry-run", "record start build"} {
		s.Refuse(1, args(c), "mirrors without a snapshot: late (the last sync failed: ", "hint: choose the mirrors with --mirror")
	}
	var l api.SnapshotList
	if s.JSON(&l, "list", "--frozen"); len(l.Frozen) != 0 {
		t.Errorf("frozen: %+v", l.Frozen)
	}
	s.Ctl("freeze", "4.1", "--mirror", "debian", "--package", "a")
	s.Ctl("record", "start", "build", "--mirror", "debian")
}

// snapctl refuses to freeze an incomplete recording or to make an empty freeze, unless
// the user allows it.
func TestEmptyFreeze(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	s := start(t, head+a.stanza("debian", "")+a.stanza("none", `packages = ["zzz*"]`))
	s.Ctl("sync")
	if err := os.WriteFile(filepath.Join(s.Dir, "a.list"), []byte("a=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "lost.list"), []byte("b=2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "empty.list"), []byte("# nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Ctl("record", "start", "build", "--mirror", "debian")
	for _, c := range []string{"freeze build", "freeze x --recording build", "freeze build --allow-empty", "freeze build --dry-run"} {
		s.Refuse(1, args(c), "recording build is still running", "hint: stop the recording when the build is done")
	}
	s.Ctl("record", "stop", "build")
	s.Refuse(1, args("record start build --mirror debian"), "another recording has it", "see that recording with: snapctl record show build, and remove it with: snapctl record rm build")
	for _, dry := range []string{"", " --dry-run"} {
		s.Refuse(1, args("freeze build"+dry), "nothing to freeze: recording build has no packages", "hint: remove it with snapctl record rm build, start it again", "or freeze it anyway with --allow-empty")
	}
	for _, c := range []struct{ command, words string }{
		{"freeze x --mirror none", "the package globs of mirror none match no packages"},
		{"freeze both --all", "the package globs of mirror none match no packages"},
		{"freeze x --manifest empty.list --format list", "build manifest empty.list lists no packages"},
		{"freeze x --manifest empty.list", "build manifest empty.list lists no packages"},
		{"freeze x --manifest a.list --manifest empty.list --format list", "build manifest empty.list lists no packages"},
		{"freeze x --mirror none --manifest empty.list --format list", "build manifest empty.list lists no packages"},
	} {
		for _, dry := range []string{"", " --dry-run"} {
			s.Refuse(1, args(c.command+dry), "nothing to freeze: "+c.words, "hint: freeze it anyway with --allow-empty")
		}
	}
	s.Ctl("freeze", "build", "--allow-empty")
	s.Ctl("verify", "build", "--deep")
	s.Ctl("freeze", "both", "--all", "--no-sources", "--allow-empty")
	var r api.ShowResult
	if s.JSON(&r, "show", "both"); r.Frozen.Packages != 1 {
		t.Errorf("frozen: %+v", r.Frozen)
	}
	s.Ctl("freeze", "4.1", "--mirror", "debian", "--package", "a", "--no-sources")
	if _, err := s.Try("freeze", "x", "--mirror", "debian", "--manifest", "lost.list", "--format", "list", "--dry-run"); code(err) != 1 || !strings.Contains(err.Error(), "hint: import an older state") {
		t.Errorf("a dry run: %v", err)
	}
	for _, c := range []string{
		"sync debiam", "mirror show debiam", "packages debiam@latest", "show debiam@latest", "diff debian@latest debiam@latest", "list --mirror debiam", "record start r --mirror debiam",
		"freeze x --mirror debiam --package a", "sources debiam@latest", "token create t --role builder --mirror debiam", "pin debiam@latest",
		"rm debiam@latest", "add debiam a.list", "remove debiam a",
	} {
		if _, err := s.Try(args(c)...); code(err) != 1 || !strings.Contains(err.Error(), "debiam") || !strings.Contains(err.Error(), "hint: snapctl mirror list") {
			t.Errorf("%s: exit %d, %v", c, code(err), err)
		}
	}
	for _, ref := range []string{"build", "4.1"} { // the error lists what is there
		s.Refuse(2, args("sources "+ref+" --mirror debiam"), ref+" has no mirror debiam, only debian")
	}
	s.Refuse(1, args("freeze 4.2 --base 4.1 --remove a"), "nothing to freeze: 4.2 would have no packages from debian")
	s.Ctl(args("freeze lost --mirror debian --manifest lost.list --format list --allow-missing")...) // records what is missing
	s.Ctl(args("freeze void --mirror debian --manifest empty.list --allow-empty")...)
}

// freeze --dry-run has the same exit code and error as the freeze, and changes nothing.
func TestDryRunExits(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1", Source: "src-a"}, debtest.Package{Name: "b", Version: "1", Fields: map[string]string{"Depends": "a"}})
	a.AddSource(debtest.Source{Name: "b", Version: "1"})
	a.Add(debtest.Package{Name: "unfetched", Version: "1"})
	a.publish()
	b := newArchive(t)
	b.Add(debtest.Package{Name: "b", Version: "1", Fields: map[string]string{"Description": "other bytes"}})
	b.publish()
	s := start(t, head+a.stanza("debian", "sources = true")+b.stanza("other", ""))
	s.Ctl("sync")
	for name, text := range map[string]string{"missing.list": "a=2\nb=7\n", "twice.list": "b=1\n", "good.list": "a=1\n"} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.Ctl(args("freeze base --mirror debian --package a --package b --no-sources")...)
	s.Ctl(args("record start build --mirror debian")...)
	s.Ctl(args("record stop build")...)
	for _, c := range []struct {
		command string
		exit    int
		code    string
		entries int
	}{
		{"freeze 4.1 --mirror debian --manifest missing.list --format list", 1, api.CodeMissing, 2},
		{"freeze 4.1 --manifest twice.list --manifest missing.list --format list", 1, api.CodeAmbiguous, 3},
		{"freeze 4.1 --mirror debian --manifest good.list --format list", 1, api.CodeMissing, 1}, // its source
		{"freeze 4.1 --base base --remove a", 1, api.CodeBroken, 0},
		{"freeze base --mirror debian --package a --no-sources", 1, api.CodeExists, 1},
		{"freeze 4.1 --mirror debian --no-sources", 1, api.CodeNeedsAll, 0},
		{"freeze 4.1 --mirror debian", 1, api.CodeNeedsAll, 0},
		{"freeze 4.1 --mirror debian@1999-01-01", 1, api.CodeNotFound, 0},
		{"freeze 4.1 --mirror nosuch", 1, api.CodeNotFound, 0},
		{"freeze debian --package a", 2, api.CodeUsage, 0},
		{"freeze build --mirror debian", 2, api.CodeUsage, 0}, // a recording determines its mirrors
	} {
		var answers [2]struct{ Error api.Error }
		for i, dry := range []string{"", " --dry-run"} {
			out := strings.Split(strings.TrimSpace(s.Refuse(c.exit, args(c.command+" --json"+dry))), "\n")
			if err := json.Unmarshal([]byte(out[len(out)-1]), &answers[i]); err != nil {
				t.Fatalf("%s: %v: %s", c.command, err, out)
			}
		}
		if answers[0].Error.Code != c.code || answers[1].Error.Code != c.code || answers[0].Error.Message != answers[1].Error.Message {
			t.Errorf("%s: error %+v, the dry run's %+v; expected code %s", c.command, answers[0].Error, answers[1].Error, c.code)
		}
		var detail api.FreezeResult
		if data, err := json.Marshal(answers[1].Error.Detail); err != nil || json.Unmarshal(data, &detail) != nil {
			t.Errorf("%s: detail %v", c.command, answers[1].Error.Detail)
		}
		if n := 0; detail.Report != nil {
			if n = len(detail.Report.Entries); n != c.entries {
				t.Errorf("%s: the dry run reports %d entries, expected %d", c.command, n, c.entries)
			}
		} else if c.entries > 0 {
			t.Errorf("%s: the dry run reports no entries", c.command)
		}
	}
	// Everything that can be frozen can also be frozen in a dry run.
	good := args("freeze 4.1 --mirror debian --manifest good.list --format list --allow-missing")
	s.Ctl(append(good, "--dry-run")...)
	s.Refuse(1, args("show 4.1"))
	s.Ctl(good...)
}

// A freeze based on one without source packages has none either, and --no-sources
// omits them from any freeze.
func TestSourcesAreLeftOut(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1", Source: "src"}, debtest.Package{Name: "b", Version: "1", Source: "src"})
	a.Add(debtest.Package{Name: "unfetched", Version: "1", Source: "src"})
	a.AddSource(debtest.Source{Name: "src", Version: "1"})
	a.publish()
	s := start(t, head+a.stanza("debian", "sources = true"))
	s.Ctl("sync")
	count := func(name string, packages, sources int) {
		t.Helper()
		var r api.ShowResult
		if s.JSON(&r, "show", name); r.Frozen.Packages != packages || r.Frozen.Sources != sources {
			t.Errorf("%s has %d packages and %d source packages, expected %d and %d", name, r.Frozen.Packages, r.Frozen.Sources, packages, sources)
		}
		s.Ctl("verify", name, "--deep")
	}
	s.Ctl(args("freeze bare --package a --package b --no-sources")...)
	count("bare", 2, 0)
	s.Ctl(args("freeze bare.1 --base bare --remove b")...)
	count("bare.1", 1, 0)
	s.Ctl(args("freeze bare.2 --base bare.1 --replace b@debian@latest")...)
	count("bare.2", 2, 0)
	s.Ctl(args("freeze full --package a --package b")...)
	count("full", 2, 1)
	s.Ctl(args("freeze full.1 --base full --remove b")...)
	count("full.1", 1, 1)
	s.Ctl(args("freeze full.2 --base full --no-sources")...)
	count("full.2", 2, 0)
	s.Refuse(1, args("freeze whole --no-sources"), "freezing the whole of debian would fetch")
	s.Ctl(args("freeze whole --all --no-sources")...)
	count("whole", 3, 0)
	s.Ctl(args("freeze whole.1 --all")...)
	count("whole.1", 3, 1)
}

// A time after the newest snapshot selects that snapshot, which is reported; a time in
// the future is refused.
func TestTimesAfterTheNewestSnapshot(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	s := start(t, head+a.stanza("debian", ""))
	s.Ctl("sync")
	var l api.SnapshotList
	s.JSON(&l, "list")
	id := l.Snapshots[0].ID
	time.Sleep(2100 * time.Millisecond)
	now := time.Now().UTC().Add(-time.Second).Format("20060102T150405Z")
	notice := "debian@" + now + " is after the newest snapshot; using " + id + " (upstream was last checked at "
	var f api.FreezeResult
	s.JSON(&f, "freeze", "4.1", "--mirror", "debian@"+now, "--package", "a")
	if len(f.Warnings) != 1 || !strings.HasPrefix(f.Warnings[0], notice) || f.Frozen.Mirrors[0].Snapshot != id {
		t.Errorf("freeze: %+v", f)
	}
	f = api.FreezeResult{}
	s.JSON(&f, "freeze", "4.2", "--base", "4.1", "--replace", "a@debian@"+now)
	if len(f.Warnings) != 1 || !strings.HasPrefix(f.Warnings[0], notice) {
		t.Errorf("freeze --replace: %+v", f)
	}
	var r api.Recording
	s.JSON(&r, "record", "start", "build", "--mirror", "debian@"+now)
	if len(r.Warnings) != 1 || !strings.HasPrefix(r.Warnings[0], notice) {
		t.Errorf("record start: %+v", r)
	}
	for _, ref := range []string{"debian@latest", id} {
		var f api.FreezeResult
		if s.JSON(&f, "freeze", "4.1", "--mirror", ref, "--package", "a"); len(f.Warnings) != 0 {
			t.Errorf("freeze --mirror %s: %+v", ref, f)
		}
	}
	for _, c := range []string{
		"freeze 5.0 --package a --mirror debian@2099-01-01", "freeze 5.0 --base 4.1 --replace a@debian@2099-01-01", "record start late --mirror debian@2099-01-01",
		"show debian@2099-01-01", "packages debian@2099-01-01", "diff 4.1 debian@2099-01-01", "sources debian@2099-01-01", "pin debian@2099-01-01",
	} {
		s.Refuse(2, args(c), "20990101T000000Z is in the future, the system clock is at", "or debian@latest")
	}
	s.Refuse(2, args("freeze 5.0 --package a --date 2099-01-01"), "date 2099-01-01T00:00:00Z is in the future, the system clock is at")
}

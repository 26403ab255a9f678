package httpd_test

import (
	"errors"
	"net/http"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo/deb/debtest"
)

// channelSite has the freezes 4.0 and 4.1 of one mirror, and a clock that stands.
func channelSite(t *testing.T) *site {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	s.clock = s.Now
	s.restart()
	for version, name := range map[string]string{"1": "4.0"} {
		s.Archive.Add(pkg("app", version), pkg("old", "1"))
		s.publish()
		s.sync()
		s.call("freeze", api.FreezeRequest{Name: name, NoSources: true}, nil)
	}
	s.Archive.Default().Remove("app", "")
	s.Archive.Default().Remove("old", "")
	s.Archive.Add(pkg("app", "2"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1", NoSources: true}, nil)
	return s
}

func (s *site) move(to string) api.ChannelResult {
	s.t.Helper()
	var res api.ChannelResult
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: to}, &res)
	return res
}

var releaseDateRE = regexp.MustCompile(`(?m)^Date: (.*)$`)

const inRelease = "/channel/stable/debian/dists/stable/InRelease"

// A channel has documents of its own, whose Date and Last-Modified are the time of
// the move and grow with each, and the files of its freeze.
func TestChannelTree(t *testing.T) {
	s := channelSite(t)
	var last time.Time
	for _, to := range []string{"4.0", "4.1", "4.0"} { // the clock stands
		moved := s.move(to).Channel.Moved
		if !moved.After(last) {
			t.Fatalf("moved to %s at %s, after a move at %s", to, moved, last)
		}
		last = moved
		for _, name := range []string{"InRelease", "Release"} {
			a := s.get(path.Dir(inRelease) + "/" + name)
			date := releaseDateRE.FindStringSubmatch(a.body)
			if a.StatusCode != http.StatusOK || date == nil || date[1] != moved.Format("Mon, 02 Jan 2006 15:04:05")+" UTC" {
				t.Errorf("%s of %s: %s, date %q, expected %s", name, to, a.Status, date, moved)
			}
			if got := a.Header.Get("Last-Modified"); got != moved.Format(http.TimeFormat) {
				t.Errorf("%s of %s: Last-Modified %s, expected %s", name, to, got, moved)
			}
			if got := a.Header.Get("Cache-Control"); !strings.Contains(got, "no-cache") || strings.Contains(got, "immutable") {
				t.Errorf("%s of %s: Cache-Control %s", name, to, got)
			}
			frozen := s.get("/frozen/" + to + "/debian/dists/stable/" + name)
			if digests(a.body) != digests(frozen.body) {
				t.Errorf("%s of %s lists other files than the freeze", name, to)
			}
		}
		packages := s.get("/channel/stable/debian/dists/stable/main/binary-amd64/Packages")
		if want := s.get("/frozen/" + to + "/debian/dists/stable/main/binary-amd64/Packages"); packages.body != want.body || want.StatusCode != http.StatusOK {
			t.Errorf("Packages of %s: %s", to, packages.Status)
		}
		if got := packages.Header.Get("Last-Modified"); got != moved.Format(http.TimeFormat) {
			t.Errorf("Packages of %s: Last-Modified %s, expected %s", to, got, moved)
		}
	}
	for p, want := range map[string]int{
		"/channel/": 200, "/channel/stable": 200, "/channel/stable/": 200, "/channel/stable/debian": 301, "/channel/stable/debian/": 200,
		"/channel/stable/debian/dists/stable/": 200, "/channel/stable/sources": 200, "/channel/stable/key.asc": 200, "/channel/stable/_proof/debian/keys.asc": 200,
		"/channel/stable/repo": 404, "/channel/stable/manifest.json": 404, "/channel/stable/debian/dists/stable/none": 404, "/channel/stable/other/": 404,
		"/channel/testing": 404, "/channel/testing/": 404, "/channel/testing/debian/": 404, "/channel/4.0/": 404, "/freeze/stable": 200, "/freeze/4.0": 200,
	} {
		if a := s.get(p); a.StatusCode != want {
			t.Errorf("%s: %s, expected %d", p, a.Status, want)
		}
	}
	if a := s.get("/channel/stable"); !strings.Contains(a.body, "/freeze/4.0") || !strings.Contains(a.body, "/diff?a=4.1&amp;b=4.0") || strings.Contains(a.body, "user ") {
		t.Errorf("page of the channel:\n%s", a.body)
	}
	if a := s.get("/"); !strings.Contains(a.body, `<a href="/channel/stable">`) {
		t.Error("the index does not list the channel")
	}
}

// digests is the list of files of a Release file.
func digests(release string) string {
	_, list, _ := strings.Cut(release, "SHA256:\n")
	list, _, _ = strings.Cut(list, "-----BEGIN")
	return list
}

// The files of the freeze that was shown before are answered for a week, unless the
// present one has them, and not its signed documents.
func TestChannelGrace(t *testing.T) {
	s := channelSite(t)
	s.move("4.0")
	byHash := func(name string) string {
		m := regexp.MustCompile(`(?m)^ ([0-9a-f]{64}) +\d+ main/binary-amd64/Packages\.xz$`).FindStringSubmatch(s.get("/frozen/" + name + "/debian/dists/stable/Release").body)
		if m == nil {
			t.Fatalf("no Packages.xz in the Release of %s", name)
		}
		return "/channel/stable/debian/dists/stable/main/binary-amd64/by-hash/SHA256/" + m[1]
	}
	index, deb := byHash("4.0"), "/channel/stable/debian/pool/main/o/old/old_1_amd64.deb"
	if index == byHash("4.1") {
		t.Fatal("both freezes have the same index")
	}
	moved := s.move("4.1").Channel.Moved
	check := func(when string, want int) {
		t.Helper()
		for _, p := range []string{index, deb} {
			for range 2 { // the second time from the cache, if it were kept there
				if a := s.get(p); a.StatusCode != want {
					t.Errorf("%s: %s: %s, expected %d", when, p, a.Status, want)
				}
			}
		}
		if a := s.get(byHash("4.1")); a.StatusCode != http.StatusOK {
			t.Errorf("%s: the index of the present freeze: %s", when, a.Status)
		}
	}
	check("after the move", http.StatusOK)
	s.SetNow(moved.Add(meta.ChannelGrace - time.Second))
	check("at the end of the week", http.StatusOK)
	if e := s.fails("rm", api.RefRequest{Ref: "4.0"}); e.Code != api.CodeInUse || !strings.Contains(e.Message, "channel stable showed it until") {
		t.Errorf("rm at the end of the week: %+v", e)
	}
	var ch api.Channel
	s.call("channel/show", api.ChannelRef{Name: "stable"}, &ch)
	if len(ch.Earlier) != 1 || ch.Earlier[0].Freeze != "4.0" || !ch.Earlier[0].Until.Equal(moved.Add(meta.ChannelGrace)) {
		t.Errorf("earlier: %+v", ch.Earlier)
	}
	s.SetNow(s.Now().Add(time.Second))
	check("after the week", http.StatusNotFound)
	s.call("channel/show", api.ChannelRef{Name: "stable"}, &ch)
	if len(ch.Earlier) != 0 {
		t.Errorf("earlier after the week: %+v", ch.Earlier)
	}
	s.call("rm", api.RefRequest{Ref: "4.0"}, nil)
	if a := s.get(deb); a.StatusCode != http.StatusNotFound {
		t.Errorf("a file of a removed freeze: %s", a.Status)
	}
}

// Moves after which clients would fail are refused, and leave the channel as it is.
func TestChannelRefused(t *testing.T) {
	s := channelSite(t)
	other := s.Archive.Default()
	other.Label = "Other"
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "5.0", NoSources: true}, nil)
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	before := s.move("4.1").Channel
	same := func(what string) {
		t.Helper()
		var now api.Channel
		s.call("channel/show", api.ChannelRef{Name: "stable"}, &now)
		if now.Freeze != before.Freeze || !now.Moved.Equal(before.Moved) {
			t.Errorf("%s: the channel is %+v, expected %+v", what, now, before)
		}
	}
	for _, c := range []struct {
		name, freeze string
		code, reason string
		words        string
	}{
		{"stable", "5.0", api.CodeInUse, "info_change", `Label of suite stable of mirror debian changes from`},
		{"stable", "nothing", api.CodeNotFound, "", "nothing"},
		{"stable", "debian@latest", api.CodeUsage, "", "is a snapshot"},
		{"debian", "4.1", api.CodeUsage, "name", "is a mirror"},
		{"latest", "4.1", api.CodeUsage, "name", "newest"},
		{"4.0", "4.1", api.CodeExists, "", "a freeze has it"},
		{"rec", "4.1", api.CodeExists, "", "a recording has it"},
		{"a/b", "4.1", api.CodeUsage, "reference", "name"},
	} {
		e := s.fails("channel/set", api.ChannelSet{Name: c.name, Freeze: c.freeze})
		if e.Code != c.code || e.Reason != c.reason || !strings.Contains(e.Message, c.words) {
			t.Errorf("channel set %s %s: %+v, expected %s %s with %q", c.name, c.freeze, e, c.code, c.reason, c.words)
		}
		same("set " + c.name + " " + c.freeze)
	}
	for verb, req := range map[string]any{"freeze": api.FreezeRequest{Name: "stable", NoSources: true}, "record/start": api.RecordStart{Name: "stable"}} {
		if e := s.fails(verb, req); e.Code != api.CodeExists && e.Code != api.CodeUsage || !strings.Contains(e.Message, "channel") {
			t.Errorf("%s with the name of a channel: %+v", verb, e)
		}
	}
	var res api.ChannelResult
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "5.0", AllowInfoChange: true}, &res)
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "apt-get update --allow-releaseinfo-change") {
		t.Errorf("warnings: %q", res.Warnings)
	}
	before = res.Channel

	// Moves that are faster than the clock are refused before apt would refuse them.
	var e *api.Error
	for i := 0; e == nil; i++ {
		if i > 10 {
			t.Fatal("ten moves in one second are not refused")
		}
		err := s.control.Call(t.Context(), "channel/set", api.ChannelSet{Name: "stable", Freeze: []string{"4.1", "5.0"}[i%2], AllowInfoChange: true}, &res, nil)
		if err != nil {
			e = err.(*api.Error)
		} else {
			before = res.Channel
		}
	}
	if e.Code != api.CodeClock || !strings.HasPrefix(e.Message, "channel stable was last moved at "+before.Moved.Format(time.RFC3339)+", and the system clock is at ") {
		t.Errorf("a date in the future: %+v", e)
	}
	if ahead := before.Moved.Sub(s.Now()); ahead > 5*time.Second {
		t.Errorf("the channel is %s ahead of the clock", ahead)
	}
	same("a date in the future")
}

// Real apt stops where a field changes that we refuse to change, and goes on with the
// option that we name.
func TestAptInfoChange(t *testing.T) {
	s := channelSite(t)
	s.move("4.1")
	suite := s.Archive.Default()
	for field, change := range map[string]func(){
		"'Origin' value":       func() { suite.Origin = "Elsewhere" },
		"'Label' value":        func() { suite.Label = "Else" },
		"'Codename' value":     func() { suite.Codename = "else" },
		"default priority for": func() { suite.Fields = map[string]string{"NotAutomatic": "yes"} },
	} {
		apt := debtest.NewApt(t, s.get("/channel/stable/sources").body)
		apt.Run("apt-get", "update")
		change()
		s.Archive.Add(pkg("app-"+strings.ToLower(field[1:4]), "1"))
		s.publish()
		s.sync()
		next := "with-" + strings.ToLower(field[1:4])
		s.call("freeze", api.FreezeRequest{Name: next, NoSources: true}, nil)
		if e := s.fails("channel/set", api.ChannelSet{Name: "stable", Freeze: next}); e.Reason != "info_change" {
			t.Errorf("%s: %+v, expected info_change", field, e)
		}
		s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: next, AllowInfoChange: true}, nil)
		out, err := apt.Try("apt-get", "update")
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 100 || !strings.Contains(out, "changed its "+field) {
			t.Errorf("apt after a change of its %s: %v\n%s", field, err, out)
		}
		apt.Run("apt-get", "update", "--allow-releaseinfo-change")
		apt.Run("apt-get", "update")
	}
}

// A freeze that lacks what the present one has is refused without --allow-missing.
func TestChannelLacks(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) {
		m.Suites, m.Components, m.Architectures, m.Sources = []string{"stable", "updates"}, []string{"main", "extra"}, []string{"amd64", "arm64"}, true
	})
	for _, name := range []string{"stable", "updates"} {
		suite := s.Archive.Suite(name)
		suite.Components, suite.Architectures = []string{"main", "extra"}, []string{"amd64", "arm64"}
		suite.Add(pkg("app-"+name, "1"), debtest.Package{Name: "more-" + name, Version: "1", Component: "extra"}, debtest.Package{Name: "arm-" + name, Version: "1", Arch: "arm64"})
		suite.AddSource(debtest.Source{Name: "app-" + name, Version: "1"})
	}
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "full", All: true}, nil)
	s.Config.Mirrors[0].Suites, s.Config.Mirrors[0].Components, s.Config.Mirrors[0].Architectures, s.Config.Mirrors[0].Sources =
		[]string{"stable"}, []string{"main"}, []string{"amd64"}, false
	s.restart()
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "less", All: true}, nil)
	s.move("full")
	e := s.fails("channel/set", api.ChannelSet{Name: "stable", Freeze: "less"})
	for _, what := range []string{"suite updates of mirror debian", "component extra of suite stable", "architecture arm64 of suite stable", "architecture source of suite stable"} {
		if e.Reason != "lacks" || !strings.Contains(e.Message, what) {
			t.Errorf("refused: %+v, expected %q in it", e, what)
		}
	}
	if strings.Contains(e.Message, "of suite updates") {
		t.Errorf("parts of a suite that is not there: %s", e.Message)
	}
	var res api.ChannelResult
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "less", AllowMissing: true}, &res)
	if !res.Moved || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "suite updates") {
		t.Errorf("allowed: %+v", res)
	}
	// The documents of a suite that is gone are not answered, its indices are.
	if a := s.get("/channel/stable/debian/dists/updates/InRelease"); a.StatusCode != http.StatusNotFound {
		t.Errorf("InRelease of the suite that is gone: %s", a.Status)
	}
	if a := s.get("/channel/stable/debian/dists/updates/main/binary-amd64/Packages.xz"); a.StatusCode != http.StatusOK {
		t.Errorf("index of the suite that is gone: %s", a.Status)
	}
	s.move("full") // more than before is fine
	var h api.ChannelHistory
	s.call("channel/history", api.ChannelRef{Name: "stable"}, &h)
	var to []string
	for _, m := range h.Moves {
		to = append(to, m.Freeze)
	}
	if !slices.Equal(to, []string{"full", "less", "full"}) {
		t.Errorf("history: %q", to)
	}
}

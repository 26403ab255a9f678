package story

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Real apt and dnf follow a channel from 4.0 to 4.1 and back. A client that read the
// index before a move still gets its packages. Long because each step depends on the one
// before.
func TestChannel(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs dnf")
	}
	f := newFedora(t)
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	s := start(t, config+fmt.Sprintf("[[mirror]]\nname = \"fedora\"\ntype = \"rpm\"\nurl = %q\narchitectures = [\"x86_64\"]\nkeyring = %q\n", f.URL, f.Key))
	for i, name := range []string{"4.0", "4.1"} {
		version := fmt.Sprint(i + 1)
		a.Default().Remove("app", "")
		f.Remove("greet")
		a.Add(debtest.Package{Name: "app", Version: version})
		f.Build("greet", version)
		a.Publish(now.Add(time.Duration(i-2) * time.Hour))
		at := now.Add(time.Duration(i-2) * time.Hour)
		f.Publish(at)
		for _, p := range []string{"repomd.xml", "repomd.xml.asc"} {
			if err := os.Chtimes(filepath.Join(f.Dir, "repodata", p), at, at); err != nil {
				t.Fatal(err)
			}
		}
		s.Ctl("sync")
		s.Ctl("freeze", name, "--all")
	}

	var moved api.ChannelResult
	move := func(to string) {
		t.Helper()
		before := moved.Channel.Moved
		s.JSON(&moved, "channel", "set", "stable", to)
		if !moved.Moved || moved.Channel.Freeze != to || !moved.Channel.Moved.After(before) || !strings.HasPrefix(moved.Channel.By, "user ") {
			t.Fatalf("moved to %s: %+v", to, moved)
		}
	}
	move("4.0")
	repo := s.Ctl("sources", "stable", "--mirror", "fedora")
	if !strings.Contains(repo, "\nmetadata_expire=300\n") || !strings.Contains(repo, "/channel/stable/fedora\n") || repo != s.fetch("/channel/stable/repo") {
		t.Errorf("repo of the channel:\n%s", repo)
	}
	apt := debtest.NewApt(t, s.Ctl("sources", "stable", "--mirror", "debian"))
	across := debtest.NewApt(t, s.fetch("/channel/stable/sources"))
	dnf, dnfAcross := newDNF(t, repo), newDNF(t, repo)
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "app")
	across.Run("apt-get", "update")
	if out, err := dnfAcross.Try("makecache"); err != nil {
		t.Fatalf("dnf makecache: %v\n%s", err, out)
	}
	has := func(version string) {
		t.Helper()
		if got := apt.Installed(); len(got) != 1 || got[0] != "app "+version {
			t.Errorf("apt installed %q, expected app %s", got, version)
		}
		if got := dnf.List(); got != "greet-"+version+"-1.noarch\n" {
			t.Errorf("dnf installed %q, expected greet %s", got, version)
		}
	}
	dnf.Install("greet")
	has("1")

	move("4.1")
	// These two clients have read the index of 4.0.
	across.Run("apt-get", "install", "app")
	if got := across.Installed(); len(got) != 1 || got[0] != "app 1" {
		t.Errorf("apt with the index from before the move installed %q", got)
	}
	if got := dnfAcross.Install("greet"); got != "greet-1-1.noarch\n" {
		t.Errorf("dnf with the index from before the move installed %q", got)
	}
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "dist-upgrade")
	if out, err := dnf.Try("--refresh", "upgrade"); err != nil {
		t.Fatalf("dnf upgrade: %v\n%s", err, out)
	}
	has("2")

	move("4.0")
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "--allow-downgrades", "app=1")
	if out := apt.Run("apt-cache", "policy", "app"); strings.Contains(out, "/channel/stable/debian stable/main amd64 Packages\n     2") || !strings.Contains(out, "*** 1 500") {
		t.Errorf("policy after the move back:\n%s", out)
	}
	if out, err := dnf.Try("--refresh", "distro-sync"); err != nil {
		t.Fatalf("dnf distro-sync: %v\n%s", err, out)
	}
	has("1")

	// Freezes that the channel shows or has shown cannot be removed.
	s.Refuse(1, args("rm 4.0 --yes"), "freeze 4.0", "channel stable shows it")
	s.Refuse(1, args("rm 4.1 --yes"), "freeze 4.1", "channel stable showed it until")
	s.Refuse(2, args("rm stable --yes"), "stable is a channel", "snapctl channel rm")
	// A reference to a channel means the freeze that it shows.
	if got := s.Ctl("packages", "stable"); got != s.Ctl("packages", "4.0") {
		t.Errorf("packages of the channel:\n%s", got)
	}
	if out := s.Ctl("show", "4.1"); !strings.Contains(out, "stable") {
		t.Errorf("show 4.1 does not name its channel:\n%s", out)
	}
	var again api.ChannelResult
	s.JSON(&again, "channel", "set", "stable", "4.0")
	if again.Moved || !again.Channel.Moved.Equal(moved.Channel.Moved) {
		t.Errorf("set to the freeze that it already shows: %+v", again)
	}
	var list api.ChannelList
	s.JSON(&list, "channel", "list")
	if len(list.Channels) != 1 || list.Channels[0].Freeze != "4.0" || len(list.Channels[0].Earlier) != 1 || list.Channels[0].Earlier[0].Freeze != "4.1" {
		t.Errorf("channels: %+v", list)
	}
	var log []string
	for line := range strings.Lines(s.Ctl("log", "export")) {
		if strings.Contains(line, "snapd/channel/v1") {
			log = append(log, line)
		}
	}
	if len(log) != 3 || !strings.Contains(log[1], `"freeze":"4.1"`) || !strings.Contains(log[2], `"freeze":"4.0"`) {
		t.Errorf("entries of the log: %q", log)
	}

	s.Ctl("channel", "rm", "stable")
	resp, err := http.Get("http://" + s.Addr + "/channel/stable/debian/dists/stable/InRelease")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusGone {
		t.Errorf("a removed channel: %s, expected 410", resp.Status)
	}
	var history api.ChannelHistory
	s.JSON(&history, "channel", "history", "stable")
	var seen []string
	for _, m := range history.Moves {
		seen = append(seen, m.From+">"+m.Freeze)
	}
	if got := strings.Join(seen, " "); got != "4.0> 4.1>4.0 4.0>4.1 >4.0" {
		t.Errorf("history: %s", got)
	}
	s.Ctl("rm", "4.1", "--yes")
	s.Refuse(1, args("channel show stable"), "channel stable", "removed")
}

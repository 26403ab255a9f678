package story

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

// teammate is a user whose only access to a server is a token.
type teammate struct {
	*server
	options []string
}

// join makes a token for a teammate, as the administrator does on the server.
func (s *server) join(url, name string, options ...string) *teammate {
	s.t.Helper()
	var made api.NewToken
	s.JSON(&made, append([]string{"token", "create", name}, options...)...)
	file := filepath.Join(s.t.TempDir(), name)
	if err := os.WriteFile(file, []byte(made.Secret+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return &teammate{s, []string{"--server", url, "--token-file", file}}
}

func (m *teammate) Try(args ...string) (string, error) {
	return m.server.Try(append(slices.Clone(args), m.options...)...)
}

func (m *teammate) Ctl(args ...string) string {
	m.t.Helper()
	return m.server.Ctl(append(slices.Clone(args), m.options...)...)
}

// A team makes two releases and withdraws one, using only tokens: it adds packages,
// records builds, makes freezes and an image, moves a channel, exports to another server
// and reads the audit list. Long because each step depends on the one before.
func TestTeam(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs apt")
	}
	port := freePort(t)
	url := "http://127.0.0.1:" + port
	s := ownServer(t, "[api]\nlisten = \"127.0.0.1:"+port+"\"\n")
	builder := s.join(url, "builds", "--role", "builder", "--name", "build-*")
	releaser := s.join(url, "release", "--role", "releaser")
	admin := s.join(url, "admin", "--role", "admin")

	for i, release := range []string{"4.0", "4.1"} {
		version, build := fmt.Sprint(i+1), fmt.Sprint("build-", i+1)
		releaser.Ctl("add", "own", dpkgDeb(t, "hello_"+version+"_amd64.deb", "Package: hello", "Version: "+version, "Architecture: amd64"), "--suite", "stable")
		builder.Ctl("record", "start", build)
		apt := debtest.NewApt(t, builder.Ctl("sources", build))
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "hello")
		builder.Ctl("record", "stop", build)
		if out, err := builder.Try("freeze", release, "--recording", build); err == nil || !strings.Contains(err.Error(), "needs the role releaser") {
			t.Fatalf("a builder freezes: %v%s", err, out)
		}
		releaser.Ctl("freeze", release, "--recording", build)
		if out := releaser.Ctl("sbom", release); !strings.Contains(out, "pkg:deb/") {
			t.Errorf("sbom of %s:\n%s", release, out)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, []byte("image of 4.1"), 0o600); err != nil {
		t.Fatal(err)
	}
	releaser.Ctl("image", "add", "4.1", image)

	releaser.Ctl("channel", "set", "stable", "4.0")
	apt := debtest.NewApt(t, releaser.Ctl("sources", "stable"))
	for _, move := range []struct{ to, candidate string }{{"", "1"}, {"4.1", "2"}, {"4.0", "1"}} {
		if move.to != "" {
			releaser.Ctl("channel", "set", "stable", move.to)
		}
		apt.Run("apt-get", "update")
		if out := apt.Run("apt-cache", "policy", "hello"); !strings.Contains(out, "Candidate: "+move.candidate+"\n") {
			t.Errorf("after the move to %q:\n%s", move.to, out)
		}
	}

	// Another server imports the release over the network.
	dir := filepath.Join(t.TempDir(), "4.1")
	releaser.Ctl("export", "4.1", dir)
	s.Ctl("verify", dir, "--deep")
	port = freePort(t)
	url = "http://127.0.0.1:" + port
	other := ownServer(t, "[api]\nlisten = \"127.0.0.1:"+port+"\"\n")
	importer := other.join(url, "release", "--role", "releaser")
	importer.Ctl("import", dir)
	importer.Ctl("verify", "4.1", "--deep")

	var audit api.AuditList
	if err := json.Unmarshal([]byte(admin.Ctl("audit", "--json")), &audit); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range audit.Entries {
		if who, ok := strings.CutPrefix(e.Who, "token "); ok && e.From == "127.0.0.1" {
			list = append(list, strings.Join([]string{who, e.Verb, e.What, e.Result}, " "))
		}
	}
	got := strings.Join(list, "\n") + "\n"
	for _, want := range []string{
		"release add own hello_1_amd64.deb ok\nbuilds record/start build-1 ok\nbuilds record/stop build-1 ok\nbuilds freeze  refused\nrelease freeze 4.0 ok\n",
		"release freeze 4.1 ok\nrelease image/add 4.1 ok\nrelease channel/set stable to 4.0 ok\nrelease channel/set stable to 4.1 ok\nrelease channel/set stable to 4.0 ok\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("audit list:\n%sexpected\n%s", got, want)
		}
	}
	if _, err := releaser.Try("audit"); err == nil {
		t.Error("a releaser reads the audit list")
	}
}

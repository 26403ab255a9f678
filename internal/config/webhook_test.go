package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/config"
)

// Webhooks have names and defaults, and bad values are errors with their lines that quote
// no secret.
func TestWebhooks(t *testing.T) {
	const post = "[[webhook]]\nurl = \"https://ci.example.org:8443/s3cret\"\nsecret_file = \"hook.secret\"\n"
	const command = "[[webhook]]\ncommand = [\"/usr/local/bin/announce\", \"--room\"]\n"
	c, err := config.Parse("/etc/c.toml", []byte(post+command+"name = \"chat\"\nevents = [\"freeze\"]\ntimeout = \"5m\"\n"+command))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Webhooks {
		got = append(got, fmt.Sprint(w.Name, " ", w.Target(), " ", w.Events, " ", w.Timeout, " ", w.SecretFile))
	}
	all := fmt.Sprint(config.WebhookEvents())
	want := []string{
		"ci.example.org https://ci.example.org:8443 " + all + " 30s /etc/hook.secret",
		"chat /usr/local/bin/announce [freeze] 5m0s ",
		"announce /usr/local/bin/announce " + all + " 30s ",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for _, c := range []struct{ name, text, want string }{
		{"both", post + "command = [\"/bin/true\"]\n", `webhook "true": expected either url or command`},
		{"neither", "[[webhook]]\nname = \"x\"\n", `c.toml:1: url: webhook "x": expected either url or command`},
		{"no secret", "[[webhook]]\nurl = \"https://ci.example.org/s3cret\"\n", `secret_file: webhook "ci.example.org": is missing`},
		{"a login", strings.Replace(post, "ci.", "alice:s3cret@ci.", 1), `c.toml:2: url: webhook "ci.example.org": "https://ci.example.org:8443": a URL must not have a user name`},
		{"a file", strings.Replace(post, "https://ci.example.org:8443", "file://", 1), `expected an http or https URL`},
		{"event", post + "events = [\"freeze\", \"sync\"]\n", `c.toml:4: events: webhook "ci.example.org": "sync": expected one of snapshot, freeze, channel, failure, stale`},
		{"event twice", post + "events = [\"freeze\", \"freeze\"]\n", `"freeze" is given twice`},
		{"no event", post + "events = []\n", `events: webhook "ci.example.org": is empty`},
		{"timeout", post + "timeout = \"1h\"\n", `c.toml:4: timeout: webhook "ci.example.org": 1h: expected 1s to 10m`},
		{"relative command", strings.Replace(command, "/usr/local/bin/", "", 1), `c.toml:2: command: webhook "announce": "announce": expected the absolute path`},
		{"secret of a command", command + "secret_file = \"x\"\n", `c.toml:3: secret_file: webhook "announce": is only for url`},
		{"address of a command", command + "allow_private = true\n", `c.toml:3: allow_private: webhook "announce": is only for url`},
		{"same name", command + command, `c.toml:3: name: webhook "announce": there are two of this name`},
		{"bad name", command + "name = \"a/b\"\n", `c.toml:3: name: webhook "a/b": expected a name`},
		{"address without a name", strings.Replace(post, "ci.example.org", "[2001:db8::1]", 1), `name: webhook "[2001": expected a name`},
		{"node that serves", "[store]\nrole = \"serve\"\nmetadata = \"postgres://db.example.org/snapd\"\nblobs = \"s3://bucket/p?endpoint=https://s3.example.org\"\n" + command, `store.role is "serve"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Parse("c.toml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "alice") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %v, expected …%s…", err, c.want)
			}
		})
	}
	// Only the daemon reads the secrets.
	file := filepath.Join(t.TempDir(), "c.toml")
	for name, text := range map[string]string{file: "\n" + post, filepath.Join(filepath.Dir(file), "hook.secret"): "hunter2\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := config.Load(file); err != nil {
		t.Error(err)
	}
	if _, err := config.LoadAll(file); err == nil || !strings.Contains(err.Error(), `c.toml:4: secret_file: webhook "ci.example.org": `) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a bad secret: %v", err)
	}
}

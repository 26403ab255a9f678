package config_test

import (
	"encoding"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"example.org/snapd/internal/config"
)

const example = "../../config.example.toml"

// The example names every key, loads, and says the defaults.
func TestExample(t *testing.T) {
	got, err := config.Load(example)
	if err != nil {
		t.Fatal(err)
	}
	// An empty file gives the defaults; paths are relative to the same directory.
	want, err := config.Parse(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	mirrors := got.Mirrors
	got.Mirrors = nil
	webhooks := got.Webhooks
	got.Webhooks = nil
	if got.Signing.Command != nil && len(got.Signing.Command) == 0 {
		got.Signing.Command = nil
	}
	if len(got.Log.Command) == 0 {
		got.Log.Command = nil
	}
	if len(got.Server.ActAs) == 0 {
		got.Server.ActAs = nil
	}
	if len(got.API.TrustedProxies) == 0 {
		got.API.TrustedProxies = nil
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the example differs from the defaults: -defaults +example\n%s", d)
	}
	if len(mirrors) != 3 || mirrors[0].Type != "deb" || mirrors[1].Type != "rpm" || !mirrors[2].Local {
		t.Fatalf("mirrors: %+v", mirrors)
	}
	if len(webhooks) != 2 || webhooks[0].Timeout != webhooks[1].Timeout || !cmp.Equal(webhooks[0].Events, config.WebhookEvents()) || webhooks[0].AllowPrivate {
		t.Errorf("webhooks: %+v", webhooks)
	}
	// A mirror with nothing but what is required has the values that are shown.
	least, err := config.Parse(example, []byte("[[mirror]]\nname = 'm'\ntype = 'deb'\nurl = 'http://mirror.example.org/'\nsuites = ['s']\ncomponents = ['main']\nkeyring = 'k'\n"))
	if err != nil {
		t.Fatal(err)
	}
	shown, def := mirrors[0], least.Mirrors[0]
	if shown.Download != def.Download || shown.Keep != def.Keep || !cmp.Equal(shown.Languages, def.Languages) || shown.Contents != def.Contents || shown.Udebs != def.Udebs ||
		shown.Installer != def.Installer || shown.Files() != def.Files() || len(shown.Indices) != len(def.Indices) || len(shown.Packages) != len(def.Packages) {
		t.Errorf("the example's mirror shows other values than the defaults: %+v, defaults %+v", shown, def)
	}
	if rpm := mirrors[1]; !rpm.CheckPackages() || !rpm.CheckRepo() || !def.CheckPackages() || !def.CheckRepo() {
		t.Error("the example's rpm mirror shows other checks than the defaults")
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := toml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	keys := func(v any) map[string]bool {
		out := map[string]bool{}
		tables, ok := v.([]any)
		if !ok {
			tables = []any{v}
		}
		for _, tb := range tables {
			for k := range tb.(map[string]any) {
				out[k] = true
			}
		}
		return out
	}
	var check func(typ reflect.Type, v any, name string)
	check = func(typ reflect.Type, v any, name string) {
		have := keys(v)
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("toml")
			if key == "" {
				t.Errorf("field %s has no key", f.Name)
			}
			if !have[key] {
				t.Errorf("config.example.toml has no %s%s", name, key)
				continue
			}
			sub := f.Type
			if sub.Kind() == reflect.Slice {
				sub = sub.Elem()
			}
			if sub.Kind() == reflect.Struct && !reflect.PointerTo(sub).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
				check(sub, v.(map[string]any)[key], name+key+".")
			}
		}
	}
	check(reflect.TypeFor[config.Config](), doc, "")
}

// A bad value or an unknown key is an error with the file's line.
func TestErrors(t *testing.T) {
	const mirror = "[[mirror]]\nname = \"m\"\ntype = \"deb\"\nurl = \"http://mirror.example.org/\"\nsuites = [\"s\"]\ncomponents = [\"main\"]\nkeyring = \"k\"\n"
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "data_dir = \"/x\"\ndata_dri = \"/y\"\n", `c.toml:2: unknown key "data_dri"`},
		{"unknown table", "[sevrer]\nlisten = \":1\"\n", `c.toml:1: unknown key "sevrer"`},
		{"unknown key of a mirror", mirror + "suite = \"x\"\n", `c.toml:8: unknown key "mirror.suite"`},
		{"wrong type", "data_dir = 5\n", "c.toml:1: "},
		{"syntax", "data_dir = \n", "c.toml:1: "},
		{"listen", "[server]\nlisten = \"8080\"\n", `c.toml:2: listen: "8080": expected host:port`},
		{"public_url", "[server]\n\npublic_url = \"mirror.example.org\"\n", `c.toml:3: public_url: "mirror.example.org": expected an http or https URL`},
		{"accel", "[server]\naccel = \"yes\"\n", `c.toml:2: accel: "yes": expected "X-Accel-Redirect" or "X-Sendfile"`},
		{"act_as", "[server]\nact_as = ['http://snapshot.debian.org/']\n", `c.toml:2: act_as: "http://snapshot.debian.org/": expected the name of a host`},
		{"archive of another", mirror + "archive = 'debian'\n" + strings.Replace(mirror, `"m"`, `"debian"`, 1), `archive: mirror "m": "debian" is already the name of mirror "debian"`},
		{"archive twice", mirror + "archive = 'x'\n" + strings.Replace(mirror, `"m"`, `"n"`, 1) + "archive = 'x'\n", `archive: mirror "n": "x" is already the name of mirror "m"`},
		{"archive with a slash", mirror + "archive = 'a/b'\n", `archive: mirror "m": "a/b": expected letters`},
		{"max_connections", "[server]\nmax_connections = 0\n", "c.toml:2: max_connections: 0: expected at least 1"},
		{"parallel", "[fetch]\nparallel = 1000\n", "c.toml:2: parallel: 1000: expected 1 to 256"},
		{"rate", "[fetch]\nrate_limit = \"20MiB\"\n", `rate "20MiB": expected a form like 20MiB/s`},
		{"duration", mirror + "interval = \"6 hours\"\n", `duration "6 hours": expected a form like 6h, 90m or 10d`},
		{"negative duration", mirror + "interval = \"-6h\"\n", `duration "-6h"`},
		{"size", "[store]\nreserve = \"much\"\n", `size "much": expected a form like 64MiB, 2GB or 4096`},
		{"metadata", "[store]\nmetadata = \"sqlite\"\n", `c.toml:2: metadata: expected "bolt", or a URL like "postgres://snapd@db.example.org/snapd"`},
		{"no database", "[store]\nmetadata = \"postgres://db.example.org\"\n", "c.toml:2: metadata: expected"},
		{"password in the URL", "[store]\nmetadata = \"postgres://snapd:s3cret@db.example.org/snapd\"\n", "c.toml:2: metadata: a URL must not have a password: put it into a file and set password_file"},
		{"password as a parameter", "[store]\nmetadata = \"postgres://db.example.org/snapd?password=s3cret\"\n", "c.toml:2: metadata: a URL must not have a password"},
		{"password for a file", "[store]\npassword_file = \"p\"\n", "c.toml:2: password_file: is for metadata in PostgreSQL"},
		{"name", strings.Replace(mirror, `"m"`, `"a/b"`, 1), `c.toml:2: name: mirror "a/b": "a/b": expected letters`},
		{"latest", strings.Replace(mirror, `"m"`, `"latest"`, 1), `c.toml:2: name: mirror "latest": "latest" is reserved`},
		{"twice", mirror + mirror, `c.toml:9: name: mirror "m": "m" is configured twice`},
		{"type", strings.Replace(mirror, `"deb"`, `"pacman"`, 1), `c.toml:3: type: mirror "m": "pacman": expected "deb" or "rpm"`},
		{"url", strings.Replace(mirror, `"http:`, `"gopher:`, 1), `c.toml:4: url: mirror "m": "gopher://mirror.example.org": expected an http, https or file URL`},
		{"no keyring", strings.Replace(mirror, "keyring = \"k\"\n", "", 1), `c.toml:1: keyring: mirror "m": is missing`},
		{"suite that climbs", strings.Replace(mirror, `["s"]`, `["../s"]`, 1), `c.toml:5: suites: mirror "m": "../s" is not the name of a suite`},
		{"glob", mirror + "packages = [\"[\"]\n", `c.toml:8: packages: mirror "m": "["`},
		{"download", mirror + "download = \"some\"\n", `c.toml:8: download: mirror "m": "some": expected "on_demand" or "all"`},
		{"flat suite from the root", strings.Replace(mirror, `["s"]`, `["/stable/"]`, 1), `c.toml:5: suites: mirror "m": "/stable/" is not the name of a suite: give the directory of a flat repository relative to the URL, as "stable/"`},
		{"file of another host", strings.Replace(mirror, `"http:`, `"file:`, 1), `c.toml:4: url: mirror "m": "file://mirror.example.org": expected a directory on this machine in the form file:///srv/repository`},
		{"root directory", strings.Replace(mirror, `"http://mirror.example.org/"`, `"file:///"`, 1), `c.toml:4: url: mirror "m": "file:///": expected a directory on this machine in the form file:///srv/repository`},
		{"relative file", strings.Replace(mirror, `"http://mirror.example.org/"`, `"file:srv"`, 1), `c.toml:4: url: mirror "m": `},
		{"missing", mirror + "missing = \"yes\"\n", `c.toml:8: missing: mirror "m": "yes": expected "" or "record"`},
		{"missing on demand", mirror + "missing = \"record\"\n", `c.toml:8: missing: mirror "m": "record" needs download = "all"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Parse("c.toml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") || !strings.HasPrefix(err.Error(), config.ErrInvalid.Error()) {
				t.Errorf("error %v, expected …%s…", err, c.want)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, []byte("data_dir = \"data\"\n[signing]\nkey_file = \"key.asc\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{dir + "/data", dir + "/data/snapd.sock", dir + "/key.asc", "http://127.0.0.1:8080"}
	if d := cmp.Diff(want, []string{c.DataDir, c.Server.Socket, c.Signing.KeyFile, c.Server.PublicURL}); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if _, err := config.Load(dir + "/none.toml"); err == nil || !strings.Contains(err.Error(), dir+"/none.toml") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	if data, err := os.ReadFile(example); err == nil {
		f.Add(data)
	}
	f.Add([]byte("[[mirror]]\nname='x'\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("c.toml", data)
		if err == nil && c.DataDir == "" {
			t.Error("no data directory and no error")
		}
	})
}

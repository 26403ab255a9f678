package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/squashfs"
)

// smallTar is a tar stream of regular files.
func smallTar(files map[string]string, at time.Time) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[name])), ModTime: at})
		io.WriteString(w, files[name])
	}
	w.Close()
	return b.Bytes()
}

func writeImage(t *testing.T, name string, files map[string]string, at time.Time) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := squashfs.FromTar(t.Context(), f, bytes.NewReader(smallTar(files, at)), squashfs.Options{Epoch: at}); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var (
	day     = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	digest  = strings.Repeat("ab", 32)
	digest2 = strings.Repeat("cd", 32)
)

// sampleRun describes how the walk runs one verb.
type sampleRun struct {
	args []string // DIR stands for the run's directory
	// options are values for each option of the verb; "" for a switch.
	options map[string]string
	// base replaces args for options that need others.
	base map[string][]string
	// exit is the exit code of the plain run.
	exit int
}

var samples = map[string]sampleRun{
	"init": {
		args:    []string{"--data-dir", "DIR/data", "--output", "DIR/new.toml"},
		options: map[string]string{"from-apt": "DIR/test.sources", "from-dnf": "DIR/test.repo", "data-dir": "DIR/elsewhere", "output": "-", "force": "", "releasever": "42"},
		base: map[string][]string{
			"data-dir": {"--output", "DIR/new.toml"}, "output": {"--data-dir", "DIR/data"},
			"force": {"--output", "DIR/there.toml"}, "releasever": {"--from-dnf=DIR/test.repo", "--output", "-"},
		},
	},
	"status":        {},
	"mirror list":   {},
	"mirror show":   {args: []string{"debian"}},
	"mirror add":    {args: []string{"more", "type=rpm", "url=https://mirror.example.org/more", "gpgcheck=false"}},
	"mirror set":    {args: []string{"debian", "interval=1h", "sources=true"}},
	"mirror rename": {args: []string{"debian", "bookworm"}},
	"mirror rm": {
		args:    []string{"debian"},
		options: map[string]string{"snapshots": "", "yes": ""},
		base:    map[string][]string{"snapshots": {"debian", "--yes"}, "yes": {"debian", "--snapshots"}},
	},
	"sync": {
		args:    []string{"debian"},
		options: map[string]string{"no-wait": "", "dry-run": "", "accept-clock": "", "accept-rollback": "", "from-url": "http://mirror.example.org/old", "as": "2025-01-02"},
		base:    map[string][]string{"from-url": {"debian", "--as", "2025-01-02"}, "as": {"debian", "--from-url", "http://mirror.example.org/old"}},
	},
	"list":     {options: map[string]string{"mirror": "debian", "frozen": "", "label": "a=b"}},
	"show":     {args: []string{"4.1"}},
	"packages": {args: []string{"4.1", "source:bash & $Section (shells)"}},
	"find":     {args: []string{"bash"}},
	"diff":     {args: []string{"4.0", "4.1"}},
	"freeze": {
		args: []string{"4.2"},
		options: map[string]string{
			"mirror": "debian@2026-11-22", "manifest": "DIR/build.manifest", "format": "list", "recording": "r", "no-recording": "",
			"package": "bash=5.2", "with-deps": "", "base": "4.1", "replace": "bash@debian@latest", "remove": "dash", "all": "", "date": "2026-11-22",
			"label": "a=b", "description": "D", "query": "source:bash", "no-sources": "", "allow-missing": "", "allow-broken": "", "allow-empty": "", "dry-run": "",
		},
		base: map[string][]string{
			"format": {"4.2", "--manifest", "DIR/build.manifest"}, "with-deps": {"4.2", "--package", "bash"},
			"replace": {"4.2", "--base", "4.1"}, "remove": {"4.2", "--base", "4.1"},
		},
	},
	"label":   {args: []string{"4.1", "a=b"}, options: map[string]string{"remove": "c", "description": "D", "no-description": ""}},
	"sources": {args: []string{"4.1"}, options: map[string]string{"format": "repo", "mirror": "debian", "keys-dir": "DIR/keys", "for": "DIR/build.manifest", "container": "debian@sha256:" + digest}, base: map[string][]string{"for": {}, "container": {"4.1", "--format", "repro-env"}}},
	"verify": {args: []string{"4.1"}, options: map[string]string{"deep": "", "upstream-key": "DIR/public.asc", "key": "DIR/public.asc", "policy": "DIR/policy", "log-key": "DIR/log.vkey", "builders": "DIR/builders", "rebuilders": "DIR/rebuilders", "threshold": "1"},
		base: map[string][]string{"builders": {"4.1", "--threshold=1"}, "rebuilders": {"4.1", "--threshold=1"}, "threshold": {"4.1", "--builders=DIR/builders"}}},
	"export":       {args: []string{"4.1", "DIR/out"}},
	"import":       {args: []string{"DIR/out"}, options: map[string]string{"key": "DIR/public.asc"}},
	"sbom":         {args: []string{"4.1"}, options: map[string]string{"format": "cyclonedx"}},
	"record start": {args: []string{"4.2"}, options: map[string]string{"mirror": "debian", "resigned": ""}},
	"record stop":  {args: []string{"4.2"}},
	"record show":  {args: []string{"4.2"}, options: map[string]string{"status": "DIR/build.manifest", "follow": ""}},
	"record list":  {},
	"record rm":    {args: []string{"4.2"}},
	"pin":          {args: []string{"debian@latest"}, options: map[string]string{"until": "2030-01-01"}},
	"unpin":        {args: []string{"debian@latest"}},
	"add":          {args: []string{"own", "DIR/hello_1_amd64.deb"}, options: map[string]string{"suite": "stable", "component": "main"}},
	"remove":       {args: []string{"own", "hello"}},
	"token create": {args: []string{"ci", "--role", "builder"}, options: map[string]string{"role": "admin", "mirror": "debian", "name": "build-*", "expires": "2030-01-01"}, base: map[string][]string{"role": {"ci"}}},
	"token list":   {},
	"token revoke": {args: []string{"ci"}},
	"audit":        {options: map[string]string{"since": "2026-11-22"}},
	"jobs":         {},
	"jobs cancel":  {args: []string{"J1"}},
	"rm":           {args: []string{"4.1", "--yes"}, options: map[string]string{"yes": ""}, base: map[string][]string{"yes": {"4.1"}}},
	"gc":           {options: map[string]string{"dry-run": "", "explain": digest, "compact": ""}},
	"fsck":         {options: map[string]string{"repair": "", "from": "http://other.example.org"}, base: map[string][]string{"from": {"--repair"}, "repair": {}}},

	"webhook list":      {},
	"webhook log":       {args: []string{"ci.example.org"}, options: map[string]string{"state": "failed", "since": "2026-11-22"}},
	"webhook test":      {args: []string{"ci.example.org"}},
	"webhook redeliver": {args: []string{"ci.example.org", "EQ5H6BZ3MUHKHDH4N3S5FRTUYV"}},

	"channel list":    {},
	"channel show":    {args: []string{"stable"}},
	"channel set":     {args: []string{"stable", "4.1"}, options: map[string]string{"allow-missing": "", "allow-info-change": ""}},
	"channel history": {args: []string{"stable"}},
	"channel rm":      {args: []string{"stable"}},

	"key generate": {
		args:    []string{"--key-file", "DIR/made.asc"},
		options: map[string]string{"key-file": "DIR/other.asc", "name": "N", "email": "a@example.org", "expires": "2040-01-01"},
		base:    map[string][]string{"key-file": {"--config", "DIR/nokey.toml"}},
	},
	"key export": {options: map[string]string{"key-file": "DIR/key.asc"}},
	"log show":   {args: []string{"4.1"}},
	"log verify": {},
	"log export": {options: map[string]string{"from": "1"}},
	"key show":   {options: map[string]string{"key-file": "DIR/key.asc"}},
	"key renew": {
		args:    []string{"--key-file", "DIR/key.asc"},
		options: map[string]string{"key-file": "DIR/key.asc", "expires": "2040-01-01"},
		base:    map[string][]string{"key-file": {"--config", "DIR/nokey.toml"}},
	},
	"image add":   {args: []string{"4.1", "DIR/new.squashfs"}, options: map[string]string{"variant": "live"}},
	"image build": {args: []string{"4.1"}, options: map[string]string{"variant": "minbase", "format": "tar", "include": "less,vim", "output": "DIR/built.squashfs"}},
	"image list":  {},
	"run": {
		args: []string{"4.1", "make", "--output", "DIR/kept"},
		options: map[string]string{
			"package": "bash", "bind": "DIR/target", "output": "DIR/kept", "check": "", "fake-clock": "", "jobs": "2", "key": "DIR/key.asc",
		},
		base: map[string][]string{"output": {"4.1", "make"}},
	},
	"rebuild": {
		args:    []string{"4.1"},
		options: map[string]string{"variant": "apt", "output": "DIR/again.squashfs", "explain": "/spec", "expected": "DIR/expected", "attest": "", "key": "DIR/key.asc"},
		base:    map[string][]string{"variant": {"two"}, "expected": {"other"}, "attest": {"4.1", "--key=DIR/key.asc"}, "key": {"4.1", "--attest"}},
	},
	"compare": {
		args: []string{"DIR/old.squashfs", "DIR/new.squashfs"}, exit: 4,
		options: map[string]string{"explain": "/a", "expected": "DIR/expected", "export": "DIR/exported", "html": "DIR/report.html"},
		base: map[string][]string{
			"explain": {"DIR/old.squashfs", "DIR/old.squashfs"}, "export": {"DIR/old.squashfs", "DIR/old.squashfs", "--explain", "/a"},
			"html": {"DIR/old.squashfs", "DIR/old.squashfs"},
		},
	},
	"attest":        attestSample,
	"attest import": {args: []string{"DIR/ci.json"}},
	"attest list":   {args: []string{"4.1"}, options: map[string]string{"builders": "DIR/builders"}},
	"attest rm":     {args: []string{"4.1", digest}},
	"attest fetch":  {args: []string{"4.1", "--rebuilders", "DIR/rebuilders"}, options: map[string]string{"rebuilders": "DIR/rebuilders"}, base: map[string][]string{"rebuilders": {"4.1"}}},
	"iuk create": {
		args: []string{"--from", "4.0", "--to", "4.1", "--output", "DIR"},
		options: map[string]string{
			"from": "3.9", "to": "4.1", "variant": "apt", "old": "DIR/old.squashfs", "new": "DIR/new.squashfs", "from-version": "4.0", "to-version": "4.1",
			"output": "DIR/kits.iuk", "product": "Live", "arch": "arm64", "ignore-if-same-content": "/same", "publish": "",
		},
		base: map[string][]string{
			"to": {"--from", "4.0", "--output", "DIR"}, "output": {"--from", "4.0", "--to", "4.1"}, "variant": {"--from", "two", "--to", "4.1", "--output", "DIR"},
			"old":          {"--new", "DIR/new.squashfs", "--from-version", "4.0", "--to-version", "4.1", "--output", "DIR"},
			"new":          {"--old", "DIR/old.squashfs", "--from-version", "4.0", "--to-version", "4.1", "--output", "DIR"},
			"from-version": {"--old", "DIR/old.squashfs", "--new", "DIR/new.squashfs", "--to-version", "4.1", "--output", "DIR"},
			"to-version":   {"--old", "DIR/old.squashfs", "--new", "DIR/new.squashfs", "--from-version", "4.0", "--output", "DIR"},
		},
	},
	"iuk inspect": {args: []string{"DIR/Tails_amd64_4.0_to_4.1.iuk"}, options: map[string]string{"largest": "1"}},
	"iuk verify": {
		args:    []string{"DIR/Tails_amd64_4.0_to_4.1.iuk", "--old", "DIR/old.squashfs", "--new", "DIR/new.squashfs"},
		options: map[string]string{"old": "DIR/old.squashfs", "new": "DIR/new.squashfs"},
		base: map[string][]string{
			"old": {"DIR/Tails_amd64_4.0_to_4.1.iuk", "--new", "DIR/new.squashfs"},
			"new": {"DIR/Tails_amd64_4.0_to_4.1.iuk", "--old", "DIR/old.squashfs"},
		},
	},
	"iuk apply": {
		args:    []string{"DIR/Tails_amd64_4.0_to_4.1.iuk", "--target", "DIR/target"},
		options: map[string]string{"target": "DIR/target", "rollback": ""},
		base:    map[string][]string{"target": {"DIR/Tails_amd64_4.0_to_4.1.iuk"}},
	},
	"iuk udf": {
		args: udfArgs,
		options: map[string]string{
			"to": "4.1", "from": "3.8", "next": "4.2", "product": "Tails", "build-target": "amd64", "channel": "stable", "iuk-url": "https://kits.example.org/x",
			"image-url": "https://images.example.org/i", "iuks": "DIR", "image": "DIR/new.squashfs", "output": "DIR/udf", "details-url": "https://www.example.org/4.1",
			"date": "2026-11-22", "key-file": "DIR/key.asc", "publish": "", "builders": "DIR/builders", "threshold": "1",
		},
		base: func() map[string][]string {
			m := map[string][]string{"builders": append(slices.Clone(udfArgs), "--threshold=1"), "threshold": append(slices.Clone(udfArgs), "--builders=DIR/builders")}
			for i := 0; i < len(udfArgs); i += 2 {
				if name := udfArgs[i][2:]; name != "from" {
					m[name] = slices.Concat(udfArgs[:i], udfArgs[i+2:])
				}
			}
			return m
		}(),
	},
	"help":       {args: []string{"freeze"}},
	"completion": {args: []string{"bash"}},
	"man":        {options: map[string]string{"output": "DIR/man"}},
	"__complete": {args: []string{"--", "sour"}},
}

var udfArgs = []string{
	"--to", "4.1", "--from", "4.0", "--product", "Tails", "--build-target", "amd64", "--channel", "stable", "--iuk-url", "https://kits.example.org/x",
	"--image-url", "https://images.example.org/i", "--iuks", "DIR", "--image", "DIR/new.squashfs", "--output", "DIR/udf", "--key-file", "DIR/key.asc",
}

const kitName = "Tails_amd64_4.0_to_4.1.iuk"

// fixtureSpec is the spec that recorded.squashfs was built from.
var fixtureSpec = image.Spec{Variant: "apt", Architecture: "amd64", Epoch: day, Upstream: "deb http://deb.example.org/debian bookworm main\n"}

// fixtureFiles makes, only once, two images, one of which is like those of image build,
// and a kit.
func fixtureFiles(t *testing.T) map[string]string {
	t.Helper()
	fixtures.Lock()
	defer fixtures.Unlock()
	if fixtures.files != nil {
		return fixtures.files
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	old := map[string]string{"a": "old", "same": "s", "gone": "x", "big": strings.Repeat("y", 5000)}
	neu := map[string]string{"a": "new", "same": "s", "b": "added", "c": strings.Repeat("z", 9000)}
	writeImage(t, file("old.squashfs"), old, day.Add(-48*time.Hour))
	writeImage(t, file("new.squashfs"), neu, day)
	f, err := os.Create(file("recorded.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fakeBuilder.build(t.Context(), f, fixtureSpec, image.Options{Progress: func(int64) {}, Log: io.Discard}); err != nil {
		t.Fatal(err)
	}
	o := newTester(t).run(dir, "iuk", "create", "--old", file("old.squashfs"), "--new", file("new.squashfs"), "--from-version", "4.0", "--to-version", "4.1", "--output", dir)
	if o.Exit != 0 {
		t.Fatal(o.Err)
	}
	fixtures.files = o.Files
	return o.Files
}

var fixtures struct {
	sync.Mutex
	files map[string]string
}

// world makes a directory with the files that samples name, and the answers of snapd.
// Long because it lists an answer for each request.
func world(t *testing.T, x *tester) string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	public := testKey.Keyring().ExportArmored()
	for name, text := range map[string]string{
		"build.manifest": "bash=5.2.15-2+b2\n",
		"expected":       "** *\n. *\n",
		"public.asc":     string(public),
		"there.toml":     "# precious\n",
		"nokey.toml":     "data_dir = \"absent\"\n[signing]\nkey_file = \"absent.asc\"\n",
		"config.toml": "# Ours.\n[[mirror]]\nname = \"debian\"\ntype = \"deb\"\nurl = \"https://mirror.example.org/debian\"\n" +
			"suites = [\"bookworm\"]\ncomponents = [\"main\"]\nkeyring = \"public.asc\"\n",
		"test.sources":         "Types: deb deb-src\nURIs: http://mirror.example.org/debian\nSuites: bookworm\nComponents: main\nSigned-By: " + file("public.asc") + "\n",
		"test.repo":            "[fedora]\nname=Fedora\nmetalink=https://mirror.example.org/metalink?repo=${releasever:-rawhide}\nenabled=1\ngpgcheck=1\ngpgkey=file://" + file("public.asc") + "\n",
		"target/live/a":        "",
		"target/live/vmlinuz":  "kernel",
		"target/EFI/boot.cfg":  "",
		"target/live/other.sq": "",
	} {
		write(t, file(name), text)
	}
	if err := os.WriteFile(file("key.asc"), testKey.Armored(), 0o600); err != nil {
		t.Fatal(err)
	}
	fixtures := fixtureFiles(t)
	for _, name := range []string{"old.squashfs", "new.squashfs", "recorded.squashfs", kitName} {
		write(t, file(name), fixtures[name])
	}
	write(t, file("target/live/filesystem.squashfs"), fixtures["old.squashfs"])
	write(t, file("target/live/Tails.module"), "filesystem.squashfs\n")

	tools, _ := fakeBuilder.tools(t.Context())
	x.fake.images = map[string]string{}
	img := func(name, variant, path string) api.Image {
		d, err := fileDigest(path)
		if err != nil {
			t.Fatal(err)
		}
		st, _ := os.Stat(path)
		x.fake.images[d] = path
		return api.Image{Name: name, Variant: variant, SHA256: d, Size: st.Size(), How: fixtureSpec.How(tools)}
	}
	image40, image39 := img("4.0", "apt", file("old.squashfs")), img("3.9", "apt", file("old.squashfs"))
	image41 := img("4.1", "apt", file("recorded.squashfs"))
	two := []api.Image{img("two", "apt", file("old.squashfs")), img("two", "desktop", file("new.squashfs"))}
	two[0].SHA256, two[0].Size = image41.SHA256, image41.Size
	other := img("other", "apt", file("new.squashfs")) // differs from the image that its description builds

	write(t, file("hello_1_amd64.deb"), "package")
	own := api.OwnResult{Mirror: "own", Snapshot: "own@20261122T160000Z", New: true, Packages: []api.OwnPackage{{Name: "hello", Version: "1", Arch: "amd64", Suite: "stable", Component: "main"}}, Files: 1, Bytes: 7}
	token := api.Token{Name: "ci", Role: api.RoleBuilder, Names: []string{"build-*"}, Created: day, State: "valid"}
	delivery := api.WebhookDelivery{
		Webhook: "ci.example.org", Event: "EQ5H6BZ3MUHKHDH4N3S5FRTUYV", Type: "freeze", Subject: "4.1", Time: day, State: "pending", Attempts: 2, Last: &day, Status: 503, Error: "status 503", Next: &day,
	}
	job := api.Job{ID: "J1", Verb: "sync", What: "debian", Who: "token ci", From: "192.0.2.1", State: api.JobRunning, Started: day, Progress: &api.Progress{Phase: "indices"}}
	pkg := api.Package{Mirror: "debian", Suites: []string{"bookworm"}, Name: "bash", Version: "5.2.15-2+b2", Arch: "amd64", Path: "pool/b.deb", Size: 1491664, SHA256: digest}
	clock := pkg
	clock.Name, clock.Path = "libfaketime", "pool/l.deb"
	suite := api.SuiteDetail{Suite: "bookworm", Date: &day, Trust: "signature", Packages: 63000, Sources: 35000, Signers: []api.Signer{{Fingerprint: "A1"}}}
	snapshot := api.Snapshot{ID: "debian@20261122T160000Z", Mirror: "debian", Type: "deb", Timestamp: day, Suites: []api.SuiteDetail{suite}, URL: "http://127.0.0.1:8080/archive/debian/20261122T160000Z/"}
	frozen := api.Frozen{
		Name: "4.1", Date: day, Created: day, Manifest: digest, Key: "F1", Packages: 200, Sources: 100, Bytes: 1 << 30, URL: "http://127.0.0.1:8080/frozen/4.1/",
		Mirrors: []api.FrozenMirror{{Mirror: "debian", Type: "deb", Kind: "exact", Trust: "signature", Suites: []string{"bookworm"}, Packages: 200, Sources: 100}},
	}
	mirror := api.MirrorStatus{Name: "debian", Type: "deb", Snapshots: 3, Latest: snapshot.ID, Checked: &day, Ages: []api.SuiteAge{{Suite: "bookworm", Date: &day, Age: 90000}}}
	recording := api.Recording{
		Name: "4.2", Started: day, Stopped: &day, Files: 1, Bytes: 1491664, Digest: digest, Proxy: "http://4.2@127.0.0.1:8080",
		Mirrors: []api.RecordMirror{{Mirror: "debian", Snapshot: snapshot.ID, URL: "http://127.0.0.1:8080/record/4.2/debian/"}},
		Entries: []api.RecordEntry{{Mirror: "debian", Path: "pool/b.deb", Size: 1491664, SHA256: digest, First: day, Last: day, Count: 1}},
	}
	channel := api.Channel{
		Name: "stable", Freeze: "4.1", Moved: day, By: "user root (0)", Key: "F1", URL: "http://127.0.0.1:8080/channel/stable/", Mirrors: []string{"debian"},
		Earlier: []api.ChannelEarlier{{Freeze: "4.0", Until: day}},
	}
	x.fake.answers = map[string]any{
		"status":       api.Status{Version: "1", Listen: "127.0.0.1:8080", PublicURL: "http://127.0.0.1:8080", DataDir: "/var/lib/frozen-snapd", ConfigFile: file("config.toml"), Free: 1 << 40, Mirrors: []api.MirrorStatus{mirror}},
		"reload":       api.ReloadResult{Added: []string{}, Changed: []string{"debian"}, Removed: []string{}, Restart: []string{}},
		"mirror/list":  api.MirrorList{Mirrors: []api.MirrorStatus{mirror}},
		"mirror/show":  api.MirrorDetail{MirrorStatus: mirror, URLs: []string{"http://deb.example.org/debian"}, Suites: []api.SuiteDetail{suite}, Components: []string{"main"}, Stored: &api.StoredFiles{Files: 3, Bytes: 1 << 20}},
		"sync":         api.SyncResult{Mirrors: []api.MirrorSync{{Mirror: "debian", Snapshot: snapshot.ID, New: true, Files: 5, Bytes: 1 << 20, Changed: 12}}},
		"list":         api.SnapshotList{Snapshots: []api.Snapshot{snapshot}, Frozen: []api.Frozen{frozen}},
		"show":         api.ShowResult{Frozen: &frozen},
		"packages":     api.PackageList{Ref: "4.1", Packages: []api.Package{pkg, clock}},
		"find":         api.FindResult{Matches: []api.Match{{Package: pkg, First: snapshot.ID, Last: snapshot.ID, Here: true, Frozen: []string{"4.1"}}}},
		"diff":         api.Diff{A: "4.0", B: "4.1", Upgraded: []api.DiffEntry{{Mirror: "debian", Name: "bash", Arch: "amd64", Old: "5.1", New: "5.2"}}, Sources: []api.SourceDiff{{Source: "bash", Old: []string{"5.1"}, New: []string{"5.2"}, Kind: "upgraded", Count: 1}}},
		"freeze":       api.FreezeResult{Frozen: &frozen, New: true, Fetched: 3, FetchedBytes: 3 << 20},
		"label":        api.LabelResult{Name: "4.1", Labels: map[string]string{"a": "b"}, Description: "D", Changed: true},
		"sources":      api.SourcesResult{Text: "Types: deb\nURIs: http://127.0.0.1:8080/frozen/4.1/debian\nSuites: bookworm\nComponents: main\n", Keys: []api.KeyFile{{Name: "snapd.asc", Armored: string(public)}}},
		"verify":       api.VerifyResult{Ref: "4.1", Packages: 200, Files: 300, Signature: &api.Signer{Fingerprint: "F1"}, Relied: []api.Relied{{Mirror: "debian", Suite: "bookworm", Trust: "signature", Date: day}}},
		"export":       api.TransferResult{Name: "4.1", Files: 300, Bytes: 1 << 30, New: true},
		"import":       api.TransferResult{Name: "4.1", Files: 300, Bytes: 1 << 30, New: true},
		"sbom":         api.SBOMResult{Format: "spdx", Text: "{}\n"},
		"record/start": recording, "record/stop": recording, "record/show": recording,
		"record/list":  api.RecordList{Recordings: []api.Recording{recording}},
		"record/rm":    api.RemoveResult{Removed: "4.2"},
		"channel/list": api.ChannelList{Channels: []api.Channel{channel}}, "channel/show": channel,
		"channel/set":     api.ChannelResult{Channel: channel, Moved: true, From: "4.0", Warnings: []string{"4.1 lacks suite bookworm-updates"}},
		"channel/history": api.ChannelHistory{Name: "stable", Moves: []api.ChannelMove{{Moved: day, Freeze: "4.1", From: "4.0", By: "user root (0)"}, {Moved: day, From: "3.9"}}},
		"channel/rm":      api.RemoveResult{Removed: "stable"},
		"pin":             snapshot, "unpin": snapshot,
		"rm":           api.RemoveResult{Removed: "4.1"},
		"gc":           api.GCResult{Snapshots: []string{snapshot.ID}, Blobs: 4, Bytes: 1 << 20},
		"fsck":         api.FsckResult{Blobs: 300, Bytes: 1 << 30},
		"token/create": api.NewToken{Token: token, Secret: "snapd_secret"}, "token/list": api.TokenList{Tokens: []api.Token{token}}, "token/revoke": api.RemoveResult{Removed: "ci"},
		"add": own, "remove": own,
		"audit": api.AuditList{Entries: []api.AuditEntry{{Number: 1, Time: day, Who: "token ci", From: "192.0.2.1", Verb: "freeze", What: "4.1", Result: api.AuditFailed, Detail: "taken"}}},
		"jobs":  api.JobList{Jobs: []api.Job{job}}, "jobs/cancel": job,
		"key/show":    api.KeyInfo{Fingerprint: "F1", UserID: "snapd", Created: day, Algorithm: "EdDSA", Armored: string(public)},
		"image/add":   api.Image{Name: "4.1", Variant: "apt", SHA256: digest2, Size: 4096},
		"image/list":  api.ImageList{Images: append([]api.Image{image39, image40, image41, other}, two...)},
		"kit/publish": api.Empty{},
		"log/show": api.LogStatus{Origin: "mirror.example.org/log", Key: logKey, Size: 2, Root: "AAAA", Witnessed: "1/2", Quorum: true,
			Witnesses: []api.LogWitness{{Name: "a", URL: "http://witness.example.org", Size: 2}}, Entry: &api.LogEntry{Index: 1, Entry: "{}", Proof: "proof\n"}},
		"webhook/list": api.WebhookList{Webhooks: []api.Webhook{
			{Name: "ci.example.org", Target: "https://ci.example.org", Events: []string{"freeze", "stale"}, Pending: 2, Oldest: &day, Last: &delivery},
			{Name: "announce", Target: "/usr/local/bin/announce", Events: []string{"freeze"}},
		}},
		"webhook/log": api.WebhookLog{Deliveries: []api.WebhookDelivery{delivery,
			{Webhook: "ci.example.org", Event: "A", Type: "channel", Subject: "stable to 4.1", Time: day, State: "delivered", Attempts: 1, Last: &day, Status: 204, Millis: 12},
			{Webhook: "announce", Event: "B", Type: "freeze", Subject: "4.1", Time: day, State: "pending"},
		}},
		"webhook/test":      api.WebhookTest{Webhook: "ci.example.org", Event: "C", Status: 200, Millis: 35},
		"webhook/redeliver": delivery,
		"log/verify":        api.LogStatus{Origin: "mirror.example.org/log", Key: logKey, Size: 2, Verified: true},
		"log/entries":       api.LogEntries{Entries: []string{"{}"}, Next: 1, Size: 1},
	}
	attestedWorld(t, x, dir, image41.SHA256)
	write(t, file("log.vkey"), logKey+"\n")
	write(t, file("policy"), "log "+logKey+"\nquorum none\n")
	x.fake.progress = map[string][]api.Progress{}
	for _, v := range []string{"sync", "freeze", "verify", "export", "import", "gc", "fsck", "record/start", "image/add"} {
		x.fake.progress[v] = []api.Progress{{Task: "debian", Phase: "packages", Files: 1, FilesTotal: 2, Bytes: 10, BytesTotal: 20}}
	}
	return dir
}

// logKey is the public key of a log.
const logKey = "mirror.example.org/log+7d3c23aa+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"

var testKey = func() *sign.PrivateKey {
	k, err := sign.Generate("Test", "test@example.org", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), sign.GenerateOptions{})
	if err != nil {
		panic(err)
	}
	return k
}()

// leaves calls fn for every verb that runs.
func leaves(v *verb, prefix string, fn func(name string, v *verb)) {
	for _, s := range v.verbs {
		name := strings.TrimSpace(prefix + " " + s.name)
		if s.run != nil {
			fn(name, s)
		}
		leaves(s, name, fn)
	}
}

// elsewhere are verbs that connect to other servers. The story of the log runs them
// with real servers.
var elsewhere = map[string]bool{"log monitor": true, "witness serve": true}

// TestWalk runs every verb, with --json, whose output must match its type, and with
// every option. Long because it checks everything about one run before the next.
func TestWalk(t *testing.T) {
	t.Chdir(t.TempDir()) // commands write into the working directory by default
	seen := map[string]bool{}
	leaves(root(), "", func(name string, v *verb) {
		seen[name] = true
		if elsewhere[name] {
			return
		}
		t.Run(name, func(t *testing.T) {
			s, ok := samples[name]
			if !ok {
				t.Fatal("the walk has no sample for it")
			}
			x := newTester(t)
			run := func(args []string, more ...string) outcome {
				dir := world(t, x)
				line := strings.Fields(name)
				for _, a := range slices.Concat(args, more) {
					line = append(line, strings.ReplaceAll(a, "DIR", dir))
				}
				if name == "__complete" {
					line = slices.Concat([]string{name}, more, args)
				}
				return x.run(dir, line...)
			}

			plain := map[string]outcome{} // of runs without the option in question
			human := run(s.args)
			plain[strings.Join(s.args, " ")] = human
			if human.Exit != s.exit || human.Out == "" {
				t.Errorf("exit %d, output %q, errors %q", human.Exit, human.Out, human.Err)
			}

			asJSON := run(s.args, "--json")
			lines := strings.Split(strings.TrimSuffix(asJSON.Out, "\n"), "\n")
			if asJSON.Exit != s.exit || asJSON.Err != "" {
				t.Errorf("--json: exit %d, errors %q", asJSON.Exit, asJSON.Err)
			}
			if !v.long && len(lines) != 1 {
				t.Errorf("--json prints %d lines, expected one document:\n%s", len(lines), asJSON.Out)
			}
			for _, l := range lines[:len(lines)-1] {
				var p struct {
					Progress api.Progress `json:"progress"`
				}
				strict(t, l, &p)
				if p.Progress.Phase == "" {
					t.Errorf("a line of progress without a phase: %s", l)
				}
			}
			if v.result == nil {
				t.Fatal("no type of result")
			}
			if d := cmp.Diff(strict(t, lines[len(lines)-1], v.result), asMap(t, lines[len(lines)-1])); d != "" {
				t.Errorf("--json loses something in its type (-type +printed):\n%s", d)
			}

			for _, o := range v.options {
				value, ok := s.options[o.name]
				if !ok {
					t.Errorf("the walk has no value for --%s", o.name)
					continue
				}
				base, ok := s.base[o.name]
				if !ok {
					base = s.args
				}
				more := []string{"--" + o.name}
				if o.value != "" {
					more = []string{"--" + o.name + "=" + value}
				}
				without, ok := plain[strings.Join(base, " ")]
				if !ok {
					without = run(base)
					plain[strings.Join(base, " ")] = without
				}
				with := run(base, more...)
				if cmp.Equal(with, without) {
					t.Errorf("--%s %s changes nothing", o.name, value)
				}
				if with.Exit != 0 && o.name != "rollback" {
					t.Errorf("--%s %s: exit %d: %s", o.name, value, with.Exit, with.Err)
				}
			}
			for o := range s.options {
				if !slices.ContainsFunc(v.options, func(x option) bool { return x.name == o }) {
					t.Errorf("the walk has a value for --%s, which does not exist", o)
				}
			}
		})
	})
	for name := range samples {
		if !seen[name] {
			t.Errorf("the walk has a sample for %q, which does not exist", name)
		}
	}
}

// strict decodes a line into a type that must have every field, and returns the type's
// own encoding of it.
func strict(t *testing.T, line string, into any) map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	b, err := json.Marshal(into)
	if err != nil {
		t.Fatal(err)
	}
	return asMap(t, string(b))
}

func asMap(t *testing.T, line string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	return m
}

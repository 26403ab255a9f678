package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/aptconf"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/regfile"
)

func initVerb() *verb {
	return &verb{
		name: "init", max: 0,
		usage: "write a configuration, optionally from this machine's package sources",
		about: `init reads apt's sources (sources.list, sources.list.d), dnf's .repo files, or
the given files, and writes a configuration with a mirror for each repository.
It lists sources that cannot be mirrored, with the reason, and the exit code is
then 3. The mirrors download packages on demand. init changes nothing else.

The URLs of an apt mirror list (mirror+file:, mirror+http:) become the URLs of
one mirror, ordered by priority.

Keys embedded in sources are written to files in keyrings/ beside the
configuration. User names and passwords are written to files in auth/, readable
only by their owner, never to the configuration. Logins in apt's auth.conf and
auth.conf.d stay there and are used, as are the certificates named in apt's
configuration and in .repo files.`,
		examples: []string{
			"snapctl init --from-apt",
			"snapctl init --from-apt=/etc/apt/sources.list.d/debian.sources --data-dir /srv/snapd --output /etc/frozen-snapd/config.toml",
			"snapctl init --from-dnf --output -",
			"snapctl init --from-dnf=rocky.repo --releasever 9",
		},
		options: []option{
			{name: "from-apt", value: "FILE", optional: true, many: true, usage: "use apt's sources, or those in these files"},
			{name: "from-dnf", value: "FILE", optional: true, many: true, usage: "use dnf's repositories, or those in these files"},
			{name: "releasever", value: "V", usage: "the value of $releasever in .repo files (default: the release of this machine, for its own files)"},
			{name: "data-dir", value: "D", usage: "data directory of snapd (default /var/lib/frozen-snapd)"},
			{name: "output", value: "FILE", usage: "file to write (default config.toml); - is standard output"},
			{name: "force", usage: "replace an existing file"},
		},
		result: new(api.InitResult),
		run:    runInit,
	}
}

// initMirror is a mirror to configure.
type initMirror struct {
	config.Mirror
	urls                 []string // as they will be in the configuration
	metalink, mirrorlist string
	keys                 []string        // armored, to be written to files
	logins               []*remote.Login // content of the file to write
	from                 []string
	notes                []string
}

// shown returns the mirror's first URL without secrets.
func (m *initMirror) shown() string {
	for _, u := range append(slices.Clone(m.urls), m.metalink, m.mirrorlist) {
		if u != "" {
			return remote.Redact(u)
		}
	}
	return ""
}

// token reports whether the query of a URL may be a secret.
func (m *initMirror) token() bool {
	return slices.ContainsFunc(append(slices.Clone(m.urls), m.metalink, m.mirrorlist), func(u string) bool { return u != "" && remote.NewURL(u).HasSecret() })
}

func runInit(ctx context.Context, c *call) error {
	if c.IsSet("releasever") && !c.IsSet("from-dnf") {
		return c.usagef("--releasever needs --from-dnf")
	}
	output := c.str("output")
	if output == "" {
		output = "config.toml"
	}
	if output != "-" && !c.on("force") {
		if _, err := os.Lstat(output); err == nil {
			return fmt.Errorf("write %s: %w", output, errExists)
		}
	}
	dataDir := "/var/lib/frozen-snapd"
	if d := c.str("data-dir"); d != "" {
		var err error
		if dataDir, err = absolute(d); err != nil {
			return err
		}
	}
	p := initPlan{
		output: output, keyFiles: map[string]string{}, loginFiles: map[string][]byte{},
		r: api.InitResult{Keys: []string{}, Logins: []string{}, Mirrors: []api.InitMirror{}, Skipped: []api.InitSkip{}},
	}
	mirrors, err := p.read(ctx, c)
	if err != nil {
		return err
	}
	if mirrors, err = p.keep(mirrors); err != nil {
		return err
	}
	if len(mirrors) == 0 && (c.IsSet("from-apt") || c.IsSet("from-dnf")) {
		c.ui.skipped(p.r.Skipped)
		return errNoSources
	}
	text := configText(dataDir, mirrors)
	if _, err := config.Parse(output, []byte(text)); err != nil {
		return fmt.Errorf("make configuration: %w", err)
	}
	if output == "-" {
		p.r.Text = text
	} else if err := p.write(text, c.on("force")); err != nil {
		return err
	}
	p.r.Exit = initExit(p.r.Skipped)
	show(c.ui, &p.r, c.ui.initialised)
	if !c.ui.json {
		if err := c.ui.flush(); err != nil {
			return err
		}
		c.ui.skipped(p.r.Skipped)
	}
	return exitCode(p.r.Exit)
}

// initPlan contains the files that an init writes. Keys and logins in the sources
// become files beside the configuration, so they cannot be kept if the configuration is
// printed.
type initPlan struct {
	output     string // the file of the configuration, or "-"
	r          api.InitResult
	keyFiles   map[string]string // path to content
	loginFiles map[string][]byte // path to content
	secret     bool              // the configuration may contain a secret
}

// read returns the mirrors for the sources that the options name.
func (p *initPlan) read(ctx context.Context, c *call) ([]initMirror, error) {
	var mirrors []initMirror
	if c.IsSet("from-apt") {
		m, skipped, err := fromApt(ctx, c.p.machine, c.list("from-apt"))
		if err != nil {
			return nil, err
		}
		mirrors, p.r.Skipped = append(mirrors, m...), append(p.r.Skipped, skipped...)
	}
	if c.IsSet("from-dnf") {
		m, skipped, err := fromDNF(c.p.machine, c.list("from-dnf"), c.str("releasever"))
		if err != nil {
			return nil, err
		}
		mirrors, p.r.Skipped = append(mirrors, m...), append(p.r.Skipped, skipped...)
	}
	distinctNames(mirrors)
	return mirrors, nil
}

// keep returns the mirrors that can be written, with the names of their files.
func (p *initPlan) keep(mirrors []initMirror) ([]initMirror, error) {
	kept := mirrors[:0]
	for _, m := range mirrors {
		if reason := p.unprintable(&m); reason != "" {
			p.r.Skipped = append(p.r.Skipped, api.InitSkip{File: strings.Join(m.from, " "), Text: m.shown(), Reason: reason})
			continue
		}
		if m.token() {
			p.secret = true
			m.notes = append(m.notes, "the query of the URL may contain a secret: only the owner can read this file")
		}
		if err := p.addFiles(&m); err != nil {
			return nil, err
		}
		kept = append(kept, m)
		p.r.Mirrors = append(p.r.Mirrors, api.InitMirror{Name: string(m.Name), Type: m.Type, URL: m.shown(), From: m.from, Notes: m.notes})
	}
	return kept, nil
}

// unprintable returns the reason why a mirror cannot be in a printed configuration, or
// "".
func (p *initPlan) unprintable(m *initMirror) string {
	switch {
	case p.output != "-":
		return ""
	case len(m.keys) > 0:
		return "its key is embedded in the sources and must be written to a file: use --output FILE"
	case len(m.logins) > 0:
		return "its user name and password must be written to a file: use --output FILE"
	case m.token():
		return "the query of its URL may contain a secret, which is not printed: use --output FILE"
	}
	return ""
}

// addFiles plans the files with the logins and keys of a mirror.
func (p *initPlan) addFiles(m *initMirror) error {
	dir := filepath.Dir(p.output)
	if len(m.logins) > 0 {
		file, err := absolute(filepath.Join(dir, "auth", string(m.Name)+".conf"))
		if err != nil {
			return err
		}
		m.AuthFile = file
		p.loginFiles[file] = remote.AuthFile(m.logins...)
		p.r.Logins = append(p.r.Logins, file)
	}
	for i, k := range m.keys {
		name := string(m.Name) + ".asc"
		if i > 0 {
			name = fmt.Sprintf("%s-%d.asc", m.Name, i+1)
		}
		file, err := absolute(filepath.Join(dir, "keyrings", name))
		if err != nil {
			return err
		}
		p.keyFiles[file] = k
		m.Keyring = append(m.Keyring, file)
		p.r.Keys = append(p.r.Keys, file)
	}
	return nil
}

// write writes the configuration and its files.
func (p *initPlan) write(text string, force bool) error {
	var err error
	if p.r.File, err = absolute(p.output); err != nil {
		return err
	}
	for _, f := range p.r.Keys {
		if err := writeFile(f, []byte(p.keyFiles[f]), true, 0o644); err != nil {
			return err
		}
	}
	for _, f := range p.r.Logins {
		if err := writeFile(f, p.loginFiles[f], true, 0o600); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o644)
	if p.secret {
		mode = 0o600
	}
	return writeFile(p.r.File, []byte(text), force, mode)
}

// initExit returns the exit code of an init that wrote a configuration.
func initExit(skipped []api.InitSkip) int {
	if slices.ContainsFunc(skipped, func(s api.InitSkip) bool { return !s.Disabled }) {
		return api.ExitPartial
	}
	return api.ExitOK
}

// errNoSources means that no mirror can be made from the sources.
var errNoSources = errors.New("none of the sources can be mirrored")

// writeFile atomically writes the file name. It replaces an existing file only if
// replace is set.
func writeFile(name string, data []byte, replace bool, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer root.Close()
	if !replace {
		if _, err := root.Lstat(filepath.Base(name)); err == nil {
			return fmt.Errorf("write %s: %w", name, errExists)
		}
	}
	if err := replaceFile(root, filepath.Base(name), data, mode); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// A machine provides the system configuration that init reads.
type machine struct {
	root          fs.FS // the file system, rooted at "/"
	architectures func() []string
}

// maxMirrorList bounds a mirror list, in bytes.
const maxMirrorList = 1 << 20

// fetch returns a function that downloads a mirror list.
func (m machine) fetch(ctx context.Context) func(string) ([]byte, error) {
	return func(u string) ([]byte, error) {
		client := fetch.New(fetch.Config{Retries: 1})
		defer client.Close()
		data, _, err := client.GetBytes(ctx, fetch.Request{URLs: remote.NewURLs(u), Size: -1, MaxSize: maxMirrorList})
		return data, err
	}
}

func thisMachine() machine {
	return machine{root: regfile.DirFS("/"), architectures: dpkgArchitectures}
}

// dpkgArchitectures returns dpkg's native and foreign architectures or, without dpkg,
// the architecture of this program.
func dpkgArchitectures() []string {
	var out []string
	for _, arg := range []string{"--print-architecture", "--print-foreign-architectures"} {
		b, err := exec.Command("dpkg", arg).Output()
		if err != nil {
			break
		}
		out = append(out, strings.Fields(string(b))...)
	}
	if len(out) == 0 {
		switch runtime.GOARCH {
		case "386":
			return []string{"i386"}
		case "arm":
			return []string{"armhf"}
		case "ppc64le":
			return []string{"ppc64el"}
		}
		return []string{runtime.GOARCH}
	}
	return out
}

// files converts the values of an option to paths. An option without a value has none;
// the machine's own files are then used.
func files(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		if v == "" {
			continue
		}
		a, err := absolute(v)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func fromApt(ctx context.Context, m machine, values []string) ([]initMirror, []api.InitSkip, error) {
	names, err := files(values)
	if err != nil {
		return nil, nil, err
	}
	list, skipped, err := aptconf.FromFiles(aptconf.Machine{FS: m.root, Architectures: m.architectures(), Fetch: m.fetch(ctx)}, names...)
	if err != nil {
		return nil, nil, err
	}
	var out []initMirror
	for _, a := range list {
		var logins []*remote.Login
		if a.Login != nil {
			logins = append(logins, a.Login)
		}
		out = append(out, initMirror{Mirror: a.Mirror, urls: a.URIs, logins: logins, keys: a.Keys, from: a.From, notes: a.Notes})
	}
	var skips []api.InitSkip
	for _, s := range skipped {
		skips = append(skips, api.InitSkip{File: s.File, Line: s.Line, Text: s.Text, Reason: s.Reason, Disabled: s.Disabled})
	}
	return out, skips, nil
}

func readFS(root fs.FS, name string) ([]byte, error) {
	st, err := fs.Stat(root, strings.TrimPrefix(path.Clean(name), "/"))
	if err == nil {
		err = regfile.Check(name, st)
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxRepoFile {
		return nil, fmt.Errorf("read %s: %s: %w", name, bytesText(st.Size()), errTooLarge)
	}
	return fs.ReadFile(root, strings.TrimPrefix(path.Clean(name), "/"))
}

// distinctNames numbers mirrors whose names are already used.
func distinctNames(list []initMirror) {
	seen := map[string]bool{}
	for i := range list {
		base := list[i].Name
		for n := 2; seen[string(list[i].Name)]; n++ {
			list[i].Name = config.MirrorName(fmt.Sprintf("%s-%d", base, n))
		}
		seen[string(list[i].Name)] = true
	}
}

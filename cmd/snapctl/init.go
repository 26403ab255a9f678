package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	"example.org/snapd/internal/yumconf"
)

func initVerb() *verb {
	return &verb{
		name: "init", max: 0,
		usage: "write a configuration, from this machine's own package sources if asked",
		about: `Reads apt's sources (sources.list, sources.list.d) or dnf's .repo files, or the
files given, and writes a configuration with a mirror for each repository. What
cannot be mirrored is named with the reason, and the exit code is then 3.
Packages are fetched on demand. Nothing else on the machine is changed.

A list of mirrors that apt uses (mirror+file:, mirror+http:) becomes the URLs of
one mirror, in the order of their priorities.

Keys that stand inside sources are written to files in keyrings/ beside the
configuration. User names and passwords are written to files in auth/, which
only their owner can read, and never into the configuration. Logins in apt's
auth.conf and auth.conf.d are used from there, and so are the certificates that
apt's configuration and .repo files name.`,
		examples: []string{
			"snapctl init --from-apt",
			"snapctl init --from-apt=/etc/apt/sources.list.d/debian.sources --data-dir /srv/snapd --output /etc/snapd/config.toml",
			"snapctl init --from-dnf --output -",
			"snapctl init --from-dnf=rocky.repo --releasever 9",
		},
		options: []option{
			{name: "from-apt", value: "FILE", optional: true, many: true, usage: "take apt's sources, or those in these files"},
			{name: "from-dnf", value: "FILE", optional: true, many: true, usage: "take dnf's repositories, or those in these files"},
			{name: "releasever", value: "V", usage: "the value of $releasever in .repo files (default: the release of this machine, for its own files)"},
			{name: "data-dir", value: "D", usage: "where snapd keeps everything (default /var/lib/snapd)"},
			{name: "output", value: "FILE", usage: "the file to write (default config.toml); - prints it"},
			{name: "force", usage: "replace the file"},
		},
		result: new(api.InitResult),
		run:    runInit,
	}
}

// initMirror is one mirror to configure.
type initMirror struct {
	config.Mirror
	urls                 []string // as the configuration shall have them
	metalink, mirrorlist string
	keys                 []string        // armored, to be written to files
	logins               []*remote.Login // to be written to a file
	from                 []string
	notes                []string
}

// shown is the mirror's first URL as people may see it.
func (m *initMirror) shown() string {
	for _, u := range append(slices.Clone(m.urls), m.metalink, m.mirrorlist) {
		if u != "" {
			return remote.Redact(u)
		}
	}
	return ""
}

// token reports whether a URL has a query that is not shown.
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
	dataDir := "/var/lib/snapd"
	if d := c.str("data-dir"); d != "" {
		var err error
		if dataDir, err = absolute(d); err != nil {
			return err
		}
	}
	r := api.InitResult{Keys: []string{}, Mirrors: []api.InitMirror{}, Skipped: []api.InitSkip{}}
	var mirrors []initMirror
	if c.IsSet("from-apt") {
		m, skipped, err := fromApt(ctx, c.p.machine, c.list("from-apt"))
		if err != nil {
			return err
		}
		mirrors, r.Skipped = append(mirrors, m...), append(r.Skipped, skipped...)
	}
	if c.IsSet("from-dnf") {
		m, skipped, err := fromDNF(c.p.machine, c.list("from-dnf"), c.str("releasever"))
		if err != nil {
			return err
		}
		mirrors, r.Skipped = append(mirrors, m...), append(r.Skipped, skipped...)
	}
	distinctNames(mirrors)

	// Keys and logins inside sources become files; printed text has no place for
	// them.
	r.Logins = []string{}
	keyFiles := map[string]string{}   // path to content
	loginFiles := map[string][]byte{} // likewise
	secret := false
	kept := mirrors[:0]
	for _, m := range mirrors {
		skip := func(reason string) {
			r.Skipped = append(r.Skipped, api.InitSkip{File: strings.Join(m.from, " "), Text: m.shown(), Reason: reason})
		}
		switch {
		case len(m.keys) > 0 && output == "-":
			skip("its key stands inside the sources and needs a file: use --output FILE")
			continue
		case len(m.logins) > 0 && output == "-":
			skip("its user name and password need a file: use --output FILE")
			continue
		case m.token() && output == "-":
			skip("the query of its URL may hold a secret, which is not printed: use --output FILE")
			continue
		}
		if m.token() {
			secret = true
			m.notes = append(m.notes, "the query of the URL may hold a secret: this file is for its owner alone")
		}
		if len(m.logins) > 0 {
			file, err := absolute(filepath.Join(filepath.Dir(output), "auth", m.Name+".conf"))
			if err != nil {
				return err
			}
			m.AuthFile = file
			loginFiles[file] = remote.AuthFile(m.logins...)
			r.Logins = append(r.Logins, file)
		}
		for i, k := range m.keys {
			name := m.Name + ".asc"
			if i > 0 {
				name = fmt.Sprintf("%s-%d.asc", m.Name, i+1)
			}
			file, err := absolute(filepath.Join(filepath.Dir(output), "keyrings", name))
			if err != nil {
				return err
			}
			keyFiles[file] = k
			m.Keyring = append(m.Keyring, file)
			r.Keys = append(r.Keys, file)
		}
		kept = append(kept, m)
		r.Mirrors = append(r.Mirrors, api.InitMirror{Name: m.Name, Type: m.Type, URL: m.shown(), From: m.from, Notes: m.notes})
	}
	if len(kept) == 0 && (c.IsSet("from-apt") || c.IsSet("from-dnf")) {
		c.ui.skipped(r.Skipped)
		return errNoSources
	}
	text := configText(dataDir, kept)
	if _, err := config.Parse(output, []byte(text)); err != nil {
		return fmt.Errorf("make configuration: %w", err)
	}
	if output == "-" {
		r.Text = text
	} else {
		var err error
		if r.File, err = absolute(output); err != nil {
			return err
		}
		for _, f := range r.Keys {
			if err := writeFile(f, []byte(keyFiles[f]), true, 0o644); err != nil {
				return err
			}
		}
		for _, f := range r.Logins {
			if err := writeFile(f, loginFiles[f], true, 0o600); err != nil {
				return err
			}
		}
		mode := os.FileMode(0o644)
		if secret {
			mode = 0o600
		}
		if err := writeFile(r.File, []byte(text), c.on("force"), mode); err != nil {
			return err
		}
	}
	r.Exit = initExit(r.Skipped)
	show(c.ui, &r, c.ui.initialised)
	if !c.ui.json {
		if err := c.ui.flush(); err != nil {
			return err
		}
		c.ui.skipped(r.Skipped)
	}
	return exitCode(r.Exit)
}

// initExit is the exit code of an init that wrote a configuration.
func initExit(skipped []api.InitSkip) int {
	if slices.ContainsFunc(skipped, func(s api.InitSkip) bool { return !s.Disabled }) {
		return api.ExitPartial
	}
	return api.ExitOK
}

// errNoSources means that a machine's sources give no mirror.
var errNoSources = errors.New("no source can be mirrored")

// writeFile puts data under name, whole or not at all; what is there is only
// replaced when asked.
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

// A machine is what init reads.
type machine struct {
	root          fs.FS // the file system, rooted at "/"
	architectures func() []string
}

// maxMirrorList bounds a list of mirrors, in bytes.
const maxMirrorList = 1 << 20

// fetch returns a function that gets a list of mirrors.
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

// dpkgArchitectures are dpkg's own and foreign ones; where there is no dpkg,
// what this program was built for.
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

// files makes paths of the option's values; an option without a value means
// none, and so the machine's own.
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

// maxRepoFile bounds a .repo file, in bytes.
const maxRepoFile = 4 << 20

// ownRepos are the directories of .repo files that belong to the machine.
var ownRepos = []string{"/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d"}

// fromDNF makes mirrors of the machine's repositories or those in files. Of files
// from elsewhere the machine's release says nothing: they need releasever.
func fromDNF(m machine, values []string, releasever string) ([]initMirror, []api.InitSkip, error) {
	names, err := files(values)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		found, err := fs.Glob(m.root, "etc/yum.repos.d/*.repo")
		if err != nil {
			return nil, nil, err
		}
		for _, f := range found {
			names = append(names, "/"+f)
		}
	}
	vars, err := yumconf.LoadVars(m.root, m.architectures()[0], releasever)
	if err != nil {
		return nil, nil, err
	}
	main, err := readFS(m.root, "/etc/dnf/dnf.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var out []initMirror
	var skips []api.InitSkip
	for _, name := range names {
		data, err := readFS(m.root, name)
		if err != nil {
			return nil, nil, err
		}
		vars := vars
		if releasever == "" && !slices.Contains(ownRepos, filepath.Dir(name)) {
			vars = maps.Clone(vars)
			delete(vars, "releasever")
		}
		repos, err := yumconf.Parse(name, data, main, vars)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range repos {
			mirror, reason := rpmMirror(m, &r)
			if reason != "" {
				if slices.ContainsFunc(r.Unknown, func(v string) bool { return strings.HasPrefix(v, "releasever") }) {
					reason += ": use --releasever"
				}
				skips = append(skips, api.InitSkip{File: r.File, Line: r.Line, Text: "[" + r.ID + "]", Reason: reason, Disabled: !r.Enabled})
				continue
			}
			out = append(out, mirror)
		}
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

// rpmMirror makes a mirror of one repository, or says why it cannot be one.
func rpmMirror(m machine, r *yumconf.Repo) (initMirror, string) {
	if reason := r.Unmirrorable(); reason != "" {
		return initMirror{}, reason
	}
	out := initMirror{from: []string{fmt.Sprintf("%s:%d", r.File, r.Line)}}
	out.Mirror = config.Mirror{Name: mirrorName(r.ID), Type: "rpm"}
	out.urls, out.metalink, out.mirrorlist, out.logins = r.BaseURLs, r.Metalink, r.Mirrorlist, r.Logins
	out.CAFile, out.ClientCert, out.ClientKey = r.CAFile, r.ClientCert, r.ClientKey
	for _, f := range []string{r.CAFile, r.ClientCert, r.ClientKey} {
		if f == "" {
			continue
		}
		if _, err := fs.Stat(m.root, strings.TrimPrefix(path.Clean("/"+f), "/")); err != nil {
			return initMirror{}, "its certificate or key " + f + " cannot be read"
		}
	}
	if r.NoVerify {
		out.notes = append(out.notes, "sslverify=0 is not followed: servers are verified")
	}
	if len(r.Logins) > 0 && (r.Metalink != "" || r.Mirrorlist != "") {
		out.notes = append(out.notes, "the login is sent to the hosts that are named here, not to those that the list of mirrors names: add these to auth_file where they need it")
	}
	local, remote := r.KeyFiles()
	for _, f := range local {
		if _, err := fs.Stat(m.root, strings.TrimPrefix(path.Clean(f), "/")); err != nil {
			return initMirror{}, "its key file " + f + " cannot be read"
		}
		out.Keyring = append(out.Keyring, f)
	}
	if len(remote) > 0 {
		out.notes = append(out.notes, "keys at "+strings.Join(remote, " ")+" are not fetched: fetch and check them yourself, then add the files to keyring")
	}
	no := false
	switch {
	case len(out.Keyring) == 0 && r.GPGCheck:
		if len(remote) > 0 {
			return initMirror{}, "its keys are not on this machine: " + strings.Join(remote, " ")
		}
		return initMirror{}, "it has no key (gpgkey), and packages must be checked"
	case !r.GPGCheck:
		out.GPGCheck = &no
		out.notes = append(out.notes, "gpgcheck is off, as it is for dnf: package signatures are not checked")
	}
	if !r.RepoGPGCheck && r.Metalink == "" {
		out.RepoGPGCheck = &no
		out.notes = append(out.notes, "repo_gpgcheck is off, as it is for dnf: the list of packages is not signed, only packages are")
	}
	if len(r.Exclude) > 0 {
		out.notes = append(out.notes, "excludes are not followed: "+strings.Join(r.Exclude, " "))
	}
	out.Packages = r.Include
	return out, ""
}

// mirrorName makes a mirror's name of a repository's id.
func mirrorName(id string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".+~_-", r) {
			return r
		}
		return '-'
	}, id)
	name = strings.TrimLeft(name, ".+~_-")
	if len(name) > 90 {
		name = name[:90]
	}
	if name == "" || name == "latest" {
		return "rpm"
	}
	return name
}

// distinctNames numbers mirrors whose names are taken.
func distinctNames(list []initMirror) {
	seen := map[string]bool{}
	for i := range list {
		base := list[i].Name
		for n := 2; seen[list[i].Name]; n++ {
			list[i].Name = fmt.Sprintf("%s-%d", base, n)
		}
		seen[list[i].Name] = true
	}
}

// configText is the configuration as people find it.
func configText(dataDir string, mirrors []initMirror) string {
	var b strings.Builder
	b.WriteString("# Configuration of snapd. config.example.toml documents every key.\n\n")
	tomlKey(&b, "data_dir", dataDir)
	b.WriteString("\n[server]\nlisten = \"127.0.0.1:8080\"\n")
	for _, m := range mirrors {
		b.WriteString("\n")
		if len(m.from) > 0 {
			b.WriteString("# from " + clean(strings.Join(m.from, ", ")) + "\n")
		}
		for _, n := range m.notes {
			b.WriteString("# note: " + clean(n) + "\n")
		}
		b.WriteString("[[mirror]]\n")
		tomlKey(&b, "name", m.Name)
		tomlKey(&b, "type", m.Type)
		if len(m.urls) == 1 {
			tomlKey(&b, "url", m.urls[0])
		} else {
			tomlList(&b, "urls", m.urls)
		}
		tomlKey(&b, "metalink", m.metalink)
		tomlKey(&b, "mirrorlist", m.mirrorlist)
		tomlList(&b, "suites", m.Suites)
		tomlList(&b, "components", m.Components)
		tomlList(&b, "architectures", m.Architectures)
		tomlList(&b, "keyring", m.Keyring)
		tomlKey(&b, "auth_file", m.AuthFile)
		tomlKey(&b, "ca_file", m.CAFile)
		tomlKey(&b, "client_cert", m.ClientCert)
		tomlKey(&b, "client_key", m.ClientKey)
		if m.Type == "deb" {
			fmt.Fprintf(&b, "sources = %t\n", m.Sources)
		}
		if m.Languages != nil {
			fmt.Fprintf(&b, "languages = %s\n", tomlStrings(m.Languages))
		}
		for _, f := range []struct {
			key string
			on  bool
		}{{"contents", m.Contents}, {"udebs", m.Udebs}, {"installer", m.Installer}} {
			if f.on {
				fmt.Fprintf(&b, "%s = true\n", f.key)
			}
		}
		tomlList(&b, "indices", m.Indices)
		tomlList(&b, "packages", m.Packages)
		if m.GPGCheck != nil {
			fmt.Fprintf(&b, "gpgcheck = %t\n", *m.GPGCheck)
		}
		if m.RepoGPGCheck != nil {
			fmt.Fprintf(&b, "repo_gpgcheck = %t\n", *m.RepoGPGCheck)
		}
		download := m.Download
		if download == "" {
			download = config.OnDemand
		}
		tomlKey(&b, "download", download)
		b.WriteString("interval = \"6h\"\n")
	}
	if len(mirrors) == 0 {
		b.WriteString(`
# A mirror looks like this:
#
# [[mirror]]
# name          = "debian"
# type          = "deb"
# url           = "https://mirror.example.org/debian"
# suites        = ["bookworm", "bookworm-updates"]
# components    = ["main"]
# architectures = ["amd64"]
# keyring       = "/usr/share/keyrings/debian-archive-keyring.gpg"
# sources       = true
# interval      = "6h"
`)
	}
	return b.String()
}

// tomlKey writes a key with a string, if it has one.
func tomlKey(b *strings.Builder, key, value string) {
	if value != "" {
		fmt.Fprintf(b, "%s = %s\n", key, tomlString(value))
	}
}

func tomlList(b *strings.Builder, key string, list []string) {
	if len(list) > 0 {
		fmt.Fprintf(b, "%s = %s\n", key, tomlStrings(list))
	}
}

func tomlStrings(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, tomlString(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// tomlString is s as a basic string: JSON's form, with DEL escaped too.
func tomlString(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s)
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/lockfile"
)

// maxManifest bounds one build manifest, in bytes. Even bills of materials that
// list every file are smaller.
const maxManifest = 256 << 20

func freezeVerb() *verb {
	return &verb{
		name: "freeze", args: "NAME", min: 1, max: 1,
		usage: "name and sign an immutable set of packages",
		about: `freeze freezes the packages in the given manifests, or else the given packages,
or else the recording called NAME, or else whole mirrors. It downloads packages
that are not stored yet; if upstream no longer has some, the freeze fails and
lists them. Without --mirror, the newest snapshots of all configured mirrors are
used, and each mirror must have one. A recording must be stopped first. A freeze
without packages is refused unless --allow-empty is given.

Freezing the same contents under an existing name changes nothing, not even its
labels; other contents are an error. With --base, the freeze starts from the
packages of another freeze; the changes made by --replace and --remove are shown
as a diff, and refused if they break dependencies unless --allow-broken is
given. If the base has no source packages, none are added.

--dry-run downloads nothing, so it does not notice packages that upstream lists
but no longer has.`,
		examples: []string{
			"snapctl freeze 4.1 --manifest build.manifest",
			"snapctl freeze demo-1 --package bash --package coreutils --with-deps",
			`snapctl freeze web-1 --mirror debian --query '$Section(web)&!arch:i386' --with-deps`,
			"snapctl freeze 4.1.1 --base 4.1 --replace openssl@debian@latest --remove telnet",
			"snapctl freeze 4.1 --mirror debian@2026-11-22 --all --dry-run",
		},
		options: []option{
			{name: "mirror", value: "M[@T]", many: true, usage: "use this mirror's snapshot at this timestamp (default: the newest of all mirrors); repeat for several snapshots of one mirror"},
			{name: "manifest", value: "FILE", many: true, usage: "freeze exactly what this build manifest lists; - is standard input"},
			{name: "format", value: "F", choices: manifestFormats(), usage: "format of the manifests, if it is not recognised: " + orList(manifestFormats())},
			{name: "recording", value: "R", usage: "freeze the packages of this recording"},
			{name: "no-recording", usage: "ignore a recording called NAME"},
			{name: "package", value: "P", many: true, usage: "freeze this package: NAME[:ARCH][=VERSION]"},
			{name: "query", value: "Q", usage: "freeze the packages of the snapshots that this query selects: see snapctl packages"},
			{name: "with-deps", usage: "include the dependencies of the packages"},
			{name: "base", value: "FROZEN", usage: "start from the packages of this freeze"},
			{name: "replace", value: "P[=V]@REF", many: true, usage: "take this package from that snapshot or freeze instead"},
			{name: "remove", value: "P", many: true, usage: "leave out this package"},
			{name: "all", usage: "download every package of whole mirrors"},
			{name: "date", value: "T", usage: "date of the freeze (default: the newest upstream date in it)"},
			{name: "no-sources", usage: "leave out source packages"},
			{name: "allow-missing", usage: "record missing packages instead of failing"},
			{name: "allow-broken", usage: "allow unsatisfied dependencies"},
			{name: "allow-empty", usage: "allow a freeze without packages"},
			{name: "label", value: "K=V", many: true, usage: "mark the freeze with this label: see snapctl label"},
			{name: "description", value: "TEXT", usage: "say what the freeze is"},
			{name: "dry-run", usage: "show what would be frozen without changing anything; the exit code is that of the freeze"},
		},
		result: new(api.FreezeResult),
		long:   true,
		reads:  true,
		run:    runFreeze,
	}
}

// manifestFormats are the values of --format.
func manifestFormats() (out []string) {
	for _, f := range buildlist.Formats() {
		out = append(out, string(f))
	}
	return out
}

func runFreeze(ctx context.Context, c *call) error {
	req := api.FreezeRequest{
		Name:         c.arg(0),
		Mirrors:      c.list("mirror"),
		Format:       c.str("format"),
		Recording:    c.str("recording"),
		NoRecording:  c.on("no-recording"),
		Packages:     c.list("package"),
		Query:        c.str("query"),
		WithDeps:     c.on("with-deps"),
		Base:         c.str("base"),
		Replace:      c.list("replace"),
		Remove:       c.list("remove"),
		All:          c.on("all"),
		NoSources:    c.on("no-sources"),
		AllowMissing: c.on("allow-missing"),
		AllowBroken:  c.on("allow-broken"),
		AllowEmpty:   c.on("allow-empty"),
		DryRun:       c.on("dry-run"),
		Description:  c.str("description"),
	}
	if err := c.checkFreeze(&req); err != nil {
		return err
	}
	for _, name := range c.list("manifest") {
		data, err := c.readLimited(name, maxManifest)
		if err != nil {
			return err
		}
		req.Manifests = append(req.Manifests, api.ManifestFile{Name: filepath.Base(name), Data: data})
	}
	var r api.FreezeResult
	if err := c.ask(ctx, "freeze", req, &r); err != nil {
		return err
	}
	show(c.ui, &r, c.ui.freezeDone)
	for _, w := range r.Warnings {
		c.ui.warning("%s", w)
	}
	return nil
}

// checkFreeze checks the options of a freeze, and sets those that are parsed here.
func (c *call) checkFreeze(req *api.FreezeRequest) error {
	if err := c.checkName("name", req.Name); err != nil {
		return err
	}
	for i, m := range req.Mirrors {
		if err := c.checkRef(m); err != nil {
			return err
		}
		if slices.Contains(req.Mirrors[:i], m) {
			return c.usagef("snapshot %s is given twice", m)
		}
	}
	var err error
	if req.Labels, err = c.labels(c.list("label")); err != nil {
		return err
	}
	if req.Date, err = c.timestamp("date"); err != nil {
		return err
	}
	for _, n := range []struct{ flag, name string }{{"recording", req.Recording}, {"base", req.Base}} {
		if n.name != "" {
			if err := c.checkName("--"+n.flag, n.name); err != nil {
				return err
			}
		}
	}
	switch {
	case req.Recording != "" && req.NoRecording:
		return c.usagef("--recording and --no-recording cannot be combined")
	case req.Base == "" && len(req.Replace)+len(req.Remove) > 0:
		return c.usagef("--replace and --remove need --base")
	case req.WithDeps && len(req.Packages)+len(req.Query) == 0 && len(c.list("manifest")) == 0:
		return c.usagef("--with-deps needs --package, --query or --manifest")
	case req.Format != "" && len(c.list("manifest")) == 0:
		return c.usagef("--format needs --manifest")
	}
	for _, r := range req.Replace {
		p, ref, ok := strings.Cut(r, "@")
		if !ok || p == "" || strings.HasPrefix(p, "=") || strings.HasSuffix(p, "=") {
			return c.usagef("--replace %q: expected P[=V]@REF", r)
		}
		if err := c.checkRef(ref); err != nil {
			return err
		}
	}
	return nil
}

func sourcesVerb() *verb {
	return &verb{
		name: "sources", args: "[REF]", max: 1,
		usage: "print apt or dnf configuration for a snapshot, or a lock file",
		about: `REF is a snapshot, a freeze, or a running recording, which records a build that
uses its sources.

With --for, sources chooses the fewest snapshots, and the fewest suites in them,
that together have the packages of a build manifest. The manifest can be in any
format that freeze reads. Packages that no snapshot has are listed, and the exit
code is then 3.

A .repo file refers to keys by their URLs on this server, or with --keys-dir by
files in that directory. The formats list and mmdebstrap need --keys-dir: the
keys of this server and of the distribution are written there.

A lock file lists each package of a snapshot or a freeze with its digest and its
URL on this server: repro-env.lock (repro-env), the lock files of
rules_distroless (rules-distroless, and rules-distroless-v1 for version 1),
rpms.lock.yaml (rpms-lock), or SHA256SUMS for repro-get (sha256sums). freeze
--manifest reads all of these.`,
		examples: []string{
			"snapctl sources 4.1 > /etc/apt/sources.list.d/release.sources",
			"snapctl sources fedora@latest > /etc/yum.repos.d/release.repo",
			"snapctl sources fedora@latest --keys-dir /etc/pki/rpm-gpg",
			"snapctl sources --for hello_2.10-3_amd64.buildinfo",
			"snapctl sources 4.1 --format rules-distroless > release.lock.json",
		},
		options: []option{
			{name: "format", value: "FORMAT", choices: append([]string{"deb822", "list", "repo", "mmdebstrap"}, lockFormats()...), usage: "deb822 (default for deb), list, repo (default for rpm), mmdebstrap, or a lock file: " + orList(lockFormats())},
			{name: "for", value: "FILE", usage: "for the packages of this build manifest instead of REF; - is standard input"},
			{name: "mirror", value: "M", usage: "only this mirror"},
			{name: "keys-dir", value: "DIR", usage: "write the key files to this directory"},
			{name: "container", value: "IMAGE", usage: "image that a lock file of repro-env names, with its digest"},
		},
		result: new(api.SourcesResult),
		run:    runSources,
	}
}

// lockFormats are the values of --format for lock files.
func lockFormats() (out []string) {
	for _, f := range lockfile.Formats() {
		out = append(out, string(f))
	}
	return out
}

func runSources(ctx context.Context, c *call) error {
	req := api.SourcesRequest{Format: c.str("format"), Mirror: c.str("mirror"), Container: c.str("container")}
	if err := c.sourcesOf(&req); err != nil {
		return err
	}
	if req.Mirror != "" {
		if err := c.checkName("mirror", req.Mirror); err != nil {
			return err
		}
	}
	if dir := c.str("keys-dir"); dir != "" {
		var err error
		if req.KeysDir, err = absolute(dir); err != nil {
			return err
		}
	}
	var r api.SourcesResult
	if err := c.ask(ctx, "sources", req, &r); err != nil {
		return err
	}
	if req.KeysDir != "" {
		if err := writeKeys(req.KeysDir, r.Keys); err != nil {
			return err
		}
	}
	show(c.ui, &r, func(r *api.SourcesResult) { c.ui.text(r.Text) })
	for _, n := range r.Notes {
		c.ui.note("%s", n)
	}
	if r.Cover == nil || len(r.Cover.Missing) == 0 {
		return nil
	}
	for i, e := range r.Cover.Missing {
		if i == maxListed {
			c.ui.note("and %d others", len(r.Cover.Missing)-i)
			break
		}
		c.ui.note("no snapshot has %s", e)
	}
	return exitError(api.ExitPartial)
}

// maxListed is how many missing packages are listed one by one.
const maxListed = 20

// sourcesOf sets REF or --for in a request. Exactly one of them must be given.
func (c *call) sourcesOf(req *api.SourcesRequest) error {
	file := c.str("for")
	switch {
	case file == "" && c.arg(0) == "":
		return c.usagef("sources needs a REF or --for FILE")
	case file != "" && c.arg(0) != "":
		return c.usagef("sources takes a REF or --for FILE, not both")
	case file == "":
		req.Ref = c.arg(0)
		return c.checkRef(req.Ref)
	}
	data, err := c.readLimited(file, maxManifest)
	if err != nil {
		return err
	}
	req.For = &api.ManifestFile{Name: filepath.Base(file), Data: data}
	return nil
}

// writeKeys writes public keys to a directory, and creates it if necessary. The server
// chooses the file names, so writeKeys refuses names outside the directory.
func writeKeys(dir string, keys []api.KeyFile) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, k := range keys {
		if k.Name != filepath.Base(k.Name) || !config.ValidName(k.Name) {
			return fmt.Errorf("write key: %q is not a valid file name for a key", k.Name)
		}
		if err := replaceFile(root, k.Name, []byte(k.Armored), 0o644); err != nil {
			return fmt.Errorf("write key %s: %w", filepath.Join(dir, k.Name), err)
		}
	}
	return nil
}

// replaceFile atomically replaces the file name in root.
func replaceFile(root *os.Root, name string, data []byte, mode os.FileMode) (err error) {
	tmp := "." + name + ".new"
	if err := root.Remove(tmp); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			root.Remove(tmp)
		}
	}()
	if err := f.Chmod(mode); err != nil { // independent of the umask
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}

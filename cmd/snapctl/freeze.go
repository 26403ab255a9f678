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
)

// maxManifest bounds one build manifest, in bytes. The largest real ones, bills
// of materials that name every file, stay below it.
const maxManifest = 256 << 20

func freezeVerb() *verb {
	return &verb{
		name: "freeze", args: "NAME", min: 1, max: 1,
		usage: "name and sign an immutable set of packages",
		about: `What is frozen: the manifests given, else the packages given, else the
recording of that name, else whole mirrors. Packages that are not here yet are
fetched; the freeze fails, naming each, when upstream no longer has one.
Without --mirror every configured mirror is taken, and each needs a snapshot. A
recording is frozen after it was stopped. A freeze of nothing is refused
unless --allow-empty is given.

Freezing a name again with equal contents changes nothing; with others it is an
error. With --base the packages of another frozen snapshot are taken instead,
and what --replace and --remove change is told as a difference; what that breaks
is refused unless --allow-broken is given. A base without source packages gets
none.

--dry-run fetches nothing: that upstream has lost a package shows only in the
freeze itself.`,
		examples: []string{
			"snapctl freeze 4.1 --manifest build.manifest",
			"snapctl freeze demo-1 --package bash --package coreutils --with-deps",
			"snapctl freeze 4.1.1 --base 4.1 --replace openssl@debian@latest --remove telnet",
			"snapctl freeze 4.1 --mirror debian@2026-11-22 --all --dry-run",
		},
		options: []option{
			{name: "mirror", value: "M[@T]", many: true, usage: "take this mirror, at this timestamp (default: the newest of all mirrors); repeat it for several snapshots of one mirror"},
			{name: "manifest", value: "FILE", many: true, usage: "freeze exactly what this build manifest lists; - is standard input"},
			{name: "format", value: "F", choices: manifestFormats(), usage: "format of the manifests, when it is not recognised: " + orList(manifestFormats())},
			{name: "recording", value: "R", usage: "freeze what this recording noted"},
			{name: "no-recording", usage: "do not look for a recording of that name"},
			{name: "package", value: "P", many: true, usage: "freeze this package: NAME[:ARCH][=VERSION]"},
			{name: "with-deps", usage: "and what the packages depend on"},
			{name: "base", value: "FROZEN", usage: "start from the packages of this frozen snapshot"},
			{name: "replace", value: "P[=V]@REF", many: true, usage: "take this package from there instead"},
			{name: "remove", value: "P", many: true, usage: "leave this package out"},
			{name: "all", usage: "fetch every package of whole mirrors"},
			{name: "date", value: "T", usage: "date of the freeze (default: the newest upstream date in it)"},
			{name: "no-sources", usage: "leave source packages out"},
			{name: "allow-missing", usage: "record what is missing instead of failing"},
			{name: "allow-broken", usage: "take a set whose relations are not satisfied"},
			{name: "allow-empty", usage: "make a freeze that holds no package"},
			{name: "dry-run", usage: "show what would be frozen, change nothing, and exit as the freeze would"},
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
	}
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
		return c.usagef("--recording and --no-recording exclude each other")
	case req.Base == "" && len(req.Replace)+len(req.Remove) > 0:
		return c.usagef("--replace and --remove need --base")
	case req.WithDeps && len(req.Packages) == 0 && len(c.list("manifest")) == 0:
		return c.usagef("--with-deps needs --package or --manifest")
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
func sourcesVerb() *verb {
	return &verb{
		name: "sources", args: "REF", min: 1, max: 1,
		usage: "print the configuration with which apt or dnf uses a snapshot",
		about: `REF is a snapshot, or a recording that is not frozen yet: a build that uses
its sources is recorded.

A .repo file names the keys by URL at this server, or, with --keys-dir, as files
in that directory. The formats list and mmdebstrap name key files: --keys-dir
writes this server's key and the distribution's there.`,
		examples: []string{
			"snapctl sources 4.1 > /etc/apt/sources.list.d/release.sources",
			"snapctl sources fedora@latest > /etc/yum.repos.d/release.repo",
			"snapctl sources fedora@latest --keys-dir /etc/pki/rpm-gpg",
		},
		options: []option{
			{name: "format", value: "FORMAT", choices: []string{"deb822", "list", "repo", "mmdebstrap"}, usage: "deb822 (default for deb), list, repo (default for rpm) or mmdebstrap"},
			{name: "mirror", value: "M", usage: "only this mirror's"},
			{name: "keys-dir", value: "DIR", usage: "write the key files into this directory"},
		},
		result: new(api.SourcesResult),
		run:    runSources,
	}
}

func runSources(ctx context.Context, c *call) error {
	req := api.SourcesRequest{Ref: c.arg(0), Format: c.str("format"), Mirror: c.str("mirror")}
	if err := c.checkRef(req.Ref); err != nil {
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
	return nil
}

// writeKeys writes public keys into a directory, which is made if need be.
// Their names are the server's: they may not leave the directory.
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
		if k.Name != filepath.Base(k.Name) || !config.NameRE.MatchString(k.Name) {
			return fmt.Errorf("write key: %q is no file name for a key", k.Name)
		}
		if err := replaceFile(root, k.Name, []byte(k.Armored), 0o644); err != nil {
			return fmt.Errorf("write key %s: %w", filepath.Join(dir, k.Name), err)
		}
	}
	return nil
}

// replaceFile puts data under name in root, whole or not at all.
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
	if err := f.Chmod(mode); err != nil { // whatever the umask
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

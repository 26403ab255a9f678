package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/yumconf"
)

// maxRepoFile bounds a .repo file, in bytes.
const maxRepoFile = 4 << 20

// ownRepos are the directories of the machine's own .repo files.
var ownRepos = []string{"/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d"}

// fromDNF returns the mirrors for the machine's repositories or for those in files.
// Files of another machine need releasever, because this machine's release does not
// apply to them.
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

// rpmMirror returns the mirror for a repository, or the reason why it cannot be mirrored.
func rpmMirror(m machine, r *yumconf.Repo) (initMirror, string) {
	if reason := r.Unmirrorable(); reason != "" {
		return initMirror{}, reason
	}
	out := initMirror{from: []string{fmt.Sprintf("%s:%d", r.File, r.Line)}}
	out.Mirror = config.Mirror{Name: config.MirrorName(mirrorName(r.ID)), Type: "rpm"}
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
		out.notes = append(out.notes, "sslverify=0 is ignored: certificates are verified")
	}
	if len(r.Logins) > 0 && (r.Metalink != "" || r.Mirrorlist != "") {
		out.notes = append(out.notes, "the login is sent only to the hosts named here, not to those in the mirror list: add them to auth_file if they need it")
	}
	local, remote := r.KeyFiles()
	for _, f := range local {
		if _, err := fs.Stat(m.root, strings.TrimPrefix(path.Clean(f), "/")); err != nil {
			return initMirror{}, "its key file " + f + " cannot be read"
		}
		out.Keyring = append(out.Keyring, f)
	}
	if len(remote) > 0 {
		out.notes = append(out.notes, "keys at "+strings.Join(remote, " ")+" are not downloaded: download and check them yourself, then add the files to keyring")
	}
	no := false
	switch {
	case len(out.Keyring) == 0 && r.GPGCheck:
		if len(remote) > 0 {
			return initMirror{}, "its keys are not installed on this machine: " + strings.Join(remote, " ")
		}
		return initMirror{}, "it names no key (gpgkey) to check packages with"
	case !r.GPGCheck:
		out.GPGCheck = &no
		out.notes = append(out.notes, "gpgcheck is off, as in dnf: package signatures are not checked")
	}
	if !r.RepoGPGCheck && r.Metalink == "" {
		out.RepoGPGCheck = &no
		out.notes = append(out.notes, "repo_gpgcheck is off, as in dnf: only packages are signed, not the list of packages")
	}
	if len(r.Exclude) > 0 {
		out.notes = append(out.notes, "excludes are ignored: "+strings.Join(r.Exclude, " "))
	}
	out.Packages = r.Include
	return out, ""
}

// mirrorName derives the name of a mirror from a repository id.
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

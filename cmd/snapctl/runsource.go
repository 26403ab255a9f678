package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/purl"
)

// A runSource is the freeze or snapshot that a run gets its packages from.
type runSource struct {
	name     string // of the freeze or snapshot
	epoch    time.Time
	inputs   []buildenv.Input
	packages []api.Package
	rpm      bool              // the root is made of rpm packages
	sources  string            // apt's sources or dnf's repositories for this machine
	inside   string            // for the environment
	keys     map[string]string // of dnf's repositories, by file name
	server   *url.URL          // to forward to
	below    string            // the path prefix of all its repositories
	first    string            // URL of a repository
}

// runSource returns the source for REF.
func (c *call) runSource(ctx context.Context, ref string) (*runSource, error) {
	var r api.ShowResult
	if err := c.ask(ctx, "show", api.ShowRequest{Ref: ref}, &r); err != nil {
		return nil, err
	}
	s := &runSource{}
	switch {
	case r.Frozen != nil:
		f := r.Frozen
		s.name, s.epoch, s.below = f.Name, f.Date, "/frozen/"+f.Name
		s.inputs = []buildenv.Input{{Name: "freeze " + f.Name, SHA256: f.Manifest}}
		s.rpm = !slices.ContainsFunc(f.Mirrors, func(m api.FrozenMirror) bool { return m.Type == "deb" })
		if err := c.repositories(ctx, s, f.Name, f); err != nil {
			return nil, err
		}
	default:
		n := r.Snapshot
		mirror, at, _ := strings.Cut(n.ID, "@")
		s.name, s.epoch, s.below = n.ID, n.Timestamp, "/archive/"+mirror+"/"+at
		s.inputs = []buildenv.Input{{Name: "snapshot " + n.ID}}
		var newest time.Time
		for _, su := range n.Suites {
			if su.Date != nil && su.Date.After(newest) {
				newest = *su.Date
			}
			for _, d := range su.Documents {
				s.inputs = append(s.inputs, buildenv.Input{Name: d.Path, SHA256: d.SHA256})
			}
		}
		if !newest.IsZero() {
			s.epoch = newest
		}
		s.rpm = n.Type == "rpm"
		if err := c.repositories(ctx, s, n.ID, nil); err != nil {
			return nil, err
		}
	}
	if err := s.split(); err != nil {
		return nil, fmt.Errorf("run %s: %w", ref, err)
	}
	var list api.PackageList
	if err := c.ask(ctx, "packages", api.RefRequest{Ref: s.name}, &list); err != nil {
		return nil, err
	}
	s.packages = list.Packages
	return s, nil
}

// repositories asks snapd for the configuration of apt or dnf. f is nil for a snapshot.
func (c *call) repositories(ctx context.Context, s *runSource, ref string, f *api.Frozen) (err error) {
	var text api.SourcesResult
	switch {
	case s.rpm:
		if err := c.ask(ctx, "sources", api.SourcesRequest{Ref: ref, Format: "repo", KeysDir: buildenv.KeysDir}, &text); err != nil {
			return err
		}
		s.sources, s.keys = text.Text, map[string]string{}
		for _, k := range text.Keys {
			if filepath.Base(k.Name) != k.Name || !filepath.IsLocal(k.Name) {
				return fmt.Errorf("snapd names a key %q, expected a file name", k.Name)
			}
			s.keys[k.Name] = k.Armored
		}
	case f != nil:
		s.sources, err = c.installSources(ctx, f)
		return err
	default:
		if err := c.ask(ctx, "sources", api.SourcesRequest{Ref: ref, Format: "deb822"}, &text); err != nil {
			return err
		}
		// Upstream's Release files expire; they were valid when snapd downloaded them.
		s.sources = uriLine().ReplaceAllString(text.Text, "$0\nCheck-Valid-Until: no")
	}
	return nil
}

// uriLine matches the URLs of apt's sources and of dnf's repositories.
var uriLine = lazyregexp.New(`(?m)^(?:URIs: |baseurl=)(\S+)$`)

// split separates the server's URL from the paths below it, and makes the sources for
// use in the environment.
func (s *runSource) split() error {
	for _, m := range uriLine().FindAllStringSubmatch(s.sources, -1) {
		before, _, ok := strings.Cut(m[1]+"/", s.below+"/")
		u, err := url.Parse(before)
		if !ok || err != nil {
			return fmt.Errorf("the server's sources name %s, expected a URL with %s", m[1], s.below)
		}
		s.server, s.first = u, strings.TrimSuffix(m[1], "/")+"/"
		s.inside = uriLine().ReplaceAllStringFunc(s.sources, func(line string) string {
			return strings.Replace(line, before, "http://127.0.0.1:"+buildenv.Port, 1)
		})
	}
	if s.server == nil {
		return errors.New("the server's sources name no URL")
	}
	return nil
}

// choosePackages checks that REF has all requested packages, and adds the base packages
// of the root.
func (j *runJob) choosePackages() error {
	has := func(p string) bool {
		if j.src.rpm {
			return j.src.hasRPM(p, j.spec.Architecture)
		}
		return j.src.hasPackage(p, j.spec.Architecture)
	}
	if j.c.on("fake-clock") {
		if !has("libfaketime") {
			return fmt.Errorf("--fake-clock: package libfaketime: %w: %s", errNotInFreeze, j.src.name)
		}
		j.spec.Include = append(slices.Clone(j.packages), "libfaketime")
	}
	var missing []string
	for _, p := range j.packages {
		if !has(p) {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("--package %s: %w: %s", strings.Join(missing, ", "), errNotInFreeze, j.src.name)
	}
	if !j.src.rpm {
		if has("apt") {
			j.spec.Variant = "apt"
		}
		return nil
	}
	for _, names := range rpmBase {
		if i := slices.IndexFunc(names, has); i >= 0 && !slices.Contains(j.spec.Include, names[i]) {
			j.spec.Include = append(slices.Clone(j.spec.Include), names[i])
		}
	}
	if len(j.spec.Include) == 0 {
		return fmt.Errorf("run %s: it has none of bash, coreutils and dnf: choose the packages of the root with --package", j.c.arg(0))
	}
	return nil
}

// rpmBase are the base packages of a root of rpm packages: the first available one of
// each list.
var rpmBase = [][]string{{"bash"}, {"coreutils"}, {"dnf5", "dnf", "microdnf"}}

// hasPackage reports whether the source has a package NAME, NAME:ARCH or NAME=VERSION.
func (s *runSource) hasPackage(p, native string) bool {
	p, version, exact := strings.Cut(p, "=")
	name, arch, foreign := strings.Cut(p, ":")
	return slices.ContainsFunc(s.packages, func(p api.Package) bool {
		return p.Name == name && (!exact || p.Version == version) &&
			(p.Arch == arch || !foreign && (p.Arch == native || p.Arch == "all"))
	})
}

// hasRPM reports whether the source has a package NAME, NAME.ARCH, NAME-VERSION-RELEASE
// or NAME-VERSION-RELEASE.ARCH, in dnf's notation.
func (s *runSource) hasRPM(name, native string) bool {
	return slices.ContainsFunc(s.packages, func(p api.Package) bool {
		if !strings.HasPrefix(name, p.Name) || p.Arch == "src" {
			return false
		}
		_, short, ok := strings.Cut(p.Version, ":")
		if !ok {
			short = p.Version
		}
		for _, n := range []string{p.Name, p.Name + "-" + short, p.Name + "-" + p.Version} {
			if name == n+"."+p.Arch || name == n && (p.Arch == native || p.Arch == "noarch") {
				return true
			}
		}
		return false
	})
}

// installedInputs returns the packages of the root with their digests.
func (j *runJob) installedInputs() []buildenv.Input {
	sums := map[[3]string]string{}
	for _, p := range j.src.packages {
		sums[[3]string{p.Name, p.Version, p.Arch}] = p.SHA256
	}
	var out []buildenv.Input
	for _, p := range j.has {
		one := buildenv.Input{SHA256: sums[[3]string{p.Name, p.Version, p.Architecture}]}
		if j.src.rpm {
			one.Name, one.URI = p.Name+"-"+p.Version+"."+p.Architecture, purl.RPM("", p.Name, p.Version, p.Architecture, nil).String()
		} else {
			one.Name = p.Name + "_" + p.Version + "_" + p.Architecture
			one.URI = purl.Deb("debian", p.Name, p.Version, p.Architecture, nil).String()
		}
		out = append(out, one)
	}
	return out
}

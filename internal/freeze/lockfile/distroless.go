package lockfile

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"example.org/snapd/internal/buildlist"
)

// distrolessOne is a package in version 1. The fields are in the order of their
// names, as rules_distroless writes them.
type distrolessOne struct {
	Arch         string   `json:"arch"`
	Dependencies []string `json:"dependencies"`
	Key          string   `json:"key"`
	Name         string   `json:"name"`
	SHA256       string   `json:"sha256"`
	URLs         []string `json:"urls"`
	Version      string   `json:"version"`
}

// distrolessTwo is a package in version 2.
type distrolessTwo struct {
	Architecture string   `json:"architecture"`
	DependsOn    []string `json:"depends_on"`
	Filename     string   `json:"filename"`
	Name         string   `json:"name"`
	SHA256       string   `json:"sha256"`
	Size         int64    `json:"size"`
	Suite        string   `json:"suite"`
	Version      string   `json:"version"`
}

// distrolessSource is the location of the files of a suite.
type distrolessSource struct {
	Architectures []string `json:"architectures"`
	Components    []string `json:"components"`
	Types         []string `json:"types"`
	URIs          []string `json:"uris"`
}

// distrolessSets are the requested packages, by architecture.
type distrolessSets struct {
	Sets map[string]map[string]string `json:"sets"`
}

// distroless1 writes version 1. It lists every package for each architecture that needs
// it, without dependencies: the lock file contains all packages, and libraries that
// depend on each other would be a cycle for Bazel.
func distroless1(d *Document) (string, error) {
	list := []distrolessOne{}
	seen := make(map[string]bool)
	for i := range d.Repositories {
		r := &d.Repositories[i]
		archs := r.archs()
		for _, p := range r.Packages {
			for _, arch := range p.wantedFor(archs) {
				key := buildlist.DistrolessKey(p.Name, p.Version, arch)
				if seen[key] {
					continue // another repository also has it
				}
				seen[key] = true
				list = append(list, distrolessOne{Arch: arch, Dependencies: []string{}, Key: key, Name: p.Name, SHA256: p.SHA256, URLs: []string{p.url(r)}, Version: p.Version})
			}
		}
	}
	return encode(struct {
		Packages []distrolessOne `json:"packages"`
		Version  int             `json:"version"`
	}{list, 1})
}

// distroless2 writes version 2. Its only dependency set has the name of the reference,
// and contains all packages.
func distroless2(d *Document) (string, error) {
	packages := make(map[string]distrolessTwo)
	sources := make(map[string]distrolessSource)
	set := distrolessSets{Sets: make(map[string]map[string]string)}
	for i := range d.Repositories {
		r := &d.Repositories[i]
		labels := make(map[string]string) // by suite
		archs := r.archs()
		for _, s := range r.Suites {
			label := suiteLabel(s.Name)
			if _, taken := sources[label]; taken {
				label = r.Mirror + "-" + label
			}
			labels[s.Name] = label
			sources[label] = distrolessSource{Architectures: nonNil(s.Archs), Components: nonNil(s.Components), Types: []string{"deb"}, URIs: []string{r.URL}}
		}
		for _, p := range r.Packages {
			if p.Source {
				continue
			}
			label := r.Mirror
			if len(p.Suites) > 0 {
				label = labels[slices.Min(p.Suites)]
			}
			for _, arch := range p.wantedFor(archs) {
				short := "/" + label + "/" + p.Name + ":" + arch
				packages[short+"="+p.Version] = distrolessTwo{Architecture: p.Arch, DependsOn: []string{}, Filename: p.Path,
					Name: p.Name, SHA256: p.SHA256, Size: p.Size, Suite: label, Version: p.Version}
				if set.Sets[arch] == nil {
					set.Sets[arch] = make(map[string]string)
				}
				set.Sets[arch][short] = p.Version
			}
		}
	}
	return encode(struct {
		DependencySets map[string]distrolessSets   `json:"dependency_sets"`
		Facts          map[string]string           `json:"facts"`
		Packages       map[string]distrolessTwo    `json:"packages"`
		Sources        map[string]distrolessSource `json:"sources"`
		Version        int                         `json:"version"`
	}{map[string]distrolessSets{d.Ref: set}, map[string]string{}, packages, sources, 2})
}

// suiteLabel returns the name of a suite without slashes, which separate the parts of
// keys in version 2.
func suiteLabel(suite string) string {
	label := strings.ReplaceAll(strings.Trim(suite, "/."), "/", "-")
	if label == "" {
		return "flat"
	}
	return label
}

// archs returns the architectures for which packages for all architectures are listed.
func (r *Repository) archs() (out []string) {
	for _, p := range r.Packages {
		if !p.Source && p.Arch != "all" && !slices.Contains(out, p.Arch) {
			out = append(out, p.Arch)
		}
	}
	if len(out) == 0 {
		out = slices.Clone(r.Archs)
	}
	slices.Sort(out)
	return out
}

// wantedFor returns the architectures for which a binary package is listed.
func (p *Package) wantedFor(archs []string) []string {
	switch {
	case p.Source:
		return nil
	case p.Arch == "all" && len(archs) > 0:
		return archs
	}
	return []string{p.Arch}
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// encode writes JSON as Bazel does.
func encode(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	err := enc.Encode(v)
	return b.String(), err
}

package lockfile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// rpmsLockFile is rpms.lock.yaml.
type rpmsLockFile struct {
	Version int            `yaml:"lockfileVersion"`
	Vendor  string         `yaml:"lockfileVendor"`
	Arches  []rpmsLockArch `yaml:"arches"`
}

type rpmsLockArch struct {
	Arch     string         `yaml:"arch"`
	Packages []rpmsLockItem `yaml:"packages"`
	Source   []rpmsLockItem `yaml:"source"`
	Modules  []string       `yaml:"module_metadata"`
}

type rpmsLockItem struct {
	URL       string `yaml:"url"`
	RepoID    string `yaml:"repoid"`
	Size      int64  `yaml:"size"`
	Checksum  string `yaml:"checksum"`
	Name      string `yaml:"name"`
	EVR       string `yaml:"evr"`
	SourceRPM string `yaml:"sourcerpm,omitempty"`
}

// rpmsLock writes the packages of each architecture, with the packages for all
// architectures and the source packages of the document.
func rpmsLock(d *Document) (string, error) {
	lock := rpmsLockFile{Version: 1, Vendor: "redhat"}
	archs := baseArchs(d)
	if len(archs) == 0 {
		return "", fmt.Errorf("%w: expected packages of an architecture, found packages for all: configure the architectures of the mirror", ErrInvalid)
	}
	for _, arch := range archs {
		a := rpmsLockArch{Arch: arch, Packages: []rpmsLockItem{}, Source: []rpmsLockItem{}, Modules: []string{}}
		for i := range d.Repositories {
			r := &d.Repositories[i]
			for _, p := range r.Packages {
				item := rpmsLockItem{URL: p.url(r), RepoID: r.ID, Size: p.Size, Checksum: "sha256:" + p.SHA256, Name: p.Name, EVR: p.Version}
				switch {
				case p.Source:
					a.Source = append(a.Source, item)
				case p.Arch == "noarch" || baseArch(p.Arch, d) == arch:
					item.SourceRPM = sourceRPM(&p)
					a.Packages = append(a.Packages, item)
				}
			}
		}
		lock.Arches = append(lock.Arches, a)
	}
	var b bytes.Buffer
	b.WriteString("---\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(lock); err != nil {
		return "", err
	}
	err := enc.Close()
	return b.String(), err
}

// sourceRPM returns the name of the file of a package's source, which has no epoch; "" if
// the source is unknown.
func sourceRPM(p *Package) string {
	version := p.SourceVersion
	if _, rest, ok := strings.Cut(version, ":"); ok {
		version = rest
	}
	if p.SourceName == "" || version == "" {
		return ""
	}
	return p.SourceName + "-" + version + ".src.rpm"
}

// baseArchs returns the architectures of the machines that the packages are for.
func baseArchs(d *Document) (out []string) {
	for i := range d.Repositories {
		for _, p := range d.Repositories[i].Packages {
			if p.Source || p.Arch == "noarch" {
				continue
			}
			if a := baseArch(p.Arch, d); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	if len(out) == 0 {
		for i := range d.Repositories {
			out = append(out, d.Repositories[i].Archs...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// baseArch returns the architecture of the machine on which a package is installed:
// 32-bit packages are for x86_64 if the document has packages for x86_64.
func baseArch(arch string, d *Document) string {
	if len(arch) != 4 || arch[0] != 'i' || arch[2:] != "86" {
		return arch
	}
	for i := range d.Repositories {
		if slices.ContainsFunc(d.Repositories[i].Packages, func(p Package) bool { return p.Arch == "x86_64" }) {
			return "x86_64"
		}
	}
	return "i686"
}

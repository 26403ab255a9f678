// Package lockfile writes lock files of other tools: repro-env, rules_distroless,
// rpm-lockfile-prototype and repro-get. A lock file lists the packages of a freeze or a
// snapshot, each with its digest and its URL at this server.
//
// Equal input gives equal bytes: everything is sorted, and there are no times. Package
// buildlist reads all of these formats.
package lockfile

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"example.org/snapd/internal/buildlist"
)

// Format is the format of a lock file, a value of `--format`.
type Format string

// The formats.
const (
	ReproEnv          Format = "repro-env"           // repro-env.lock, TOML
	RulesDistroless   Format = "rules-distroless"    // of rules_distroless, version 2, JSON
	RulesDistrolessV1 Format = "rules-distroless-v1" // the same, version 1
	RPMsLock          Format = "rpms-lock"           // rpms.lock.yaml, version 1
	SHA256Sums        Format = "sha256sums"          // of repro-get and sha256sum(1)
)

// Formats lists every format.
func Formats() []Format {
	return []Format{ReproEnv, RulesDistroless, RulesDistrolessV1, RPMsLock, SHA256Sums}
}

// Known reports whether f is one of Formats.
func (f Format) Known() bool { return slices.Contains(Formats(), f) }

// Holds reports whether lock files of the format can contain packages of an ecosystem.
func (f Format) Holds(e buildlist.Ecosystem) bool {
	switch f {
	case SHA256Sums:
		return true
	case RPMsLock:
		return e == buildlist.RPM
	}
	return e == buildlist.Deb
}

// ErrInvalid means that the format cannot express a document.
var ErrInvalid = errors.New("invalid lock file")

// Document is the content of a lock file.
type Document struct {
	Ref string // the snapshot or freeze: "4.1", "debian@20261122T160000Z"
	// Container is the image in which repro-env installs the packages, with its digest.
	// If it is empty, it is left out. Other formats have no field for it.
	Container    string
	Repositories []Repository
}

// Repository is a repository of packages at this server.
type Repository struct {
	ID        string // "snapd-4.1-debian"
	Mirror    string
	Ecosystem buildlist.Ecosystem // buildlist.Deb or buildlist.RPM
	URL       string              // base URL, without a slash at its end
	Suites    []Suite             // of debs
	// Archs are the architectures of the machines that the repository is for, as far as
	// they are known. Packages for all architectures are listed for each architecture of
	// the other packages or, if there are no others, for each of these.
	Archs    []string
	Packages []Package
}

// Suite is a suite of a repository of debs.
type Suite struct {
	Name       string
	Components []string
	Archs      []string
}

// Package is one package of a repository.
type Package struct {
	Name    string
	Version string // "1:2.3-4"; rpm: "[epoch:]version-release"
	Arch    string // "amd64", "all", "x86_64", "noarch"; of a source package "source" or "src"
	Source  bool
	Suites  []string
	Path    string // relative to the URL of the repository; the .dsc of a source package of debs
	Size    int64  // bytes
	SHA256  string // hex
	// SourceName and SourceVersion name the source package that it was built from.
	SourceName, SourceVersion string
}

// url returns the URL of the package file.
func (p *Package) url(r *Repository) string {
	return r.URL + "/" + (&url.URL{Path: p.Path}).EscapedPath()
}

// Write returns a document as a lock file. ErrInvalid.
func Write(d *Document, f Format) (string, error) {
	d = sorted(d)
	var text string
	err := check(d)
	if err == nil {
		switch f {
		case ReproEnv:
			text = reproEnv(d)
		case RulesDistroless:
			text, err = distroless2(d)
		case RulesDistrolessV1:
			text, err = distroless1(d)
		case RPMsLock:
			text, err = rpmsLock(d)
		case SHA256Sums:
			text = sha256sums(d)
		default:
			err = fmt.Errorf("%w: format %q", ErrInvalid, string(f))
		}
	}
	if err != nil {
		return "", fmt.Errorf("write lock file %s of %s: %w", f, d.Ref, err)
	}
	return text, nil
}

// sorted returns a copy of a document in the order in which it is written, with each
// package once.
func sorted(d *Document) *Document {
	out := *d
	out.Repositories = slices.Clone(d.Repositories)
	slices.SortFunc(out.Repositories, func(a, b Repository) int { return cmp.Compare(a.ID, b.ID) })
	for i := range out.Repositories {
		r := &out.Repositories[i]
		r.Packages = slices.Clone(r.Packages)
		slices.SortFunc(r.Packages, func(a, b Package) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Path, b.Path))
		})
		r.Packages = slices.CompactFunc(r.Packages, func(a, b Package) bool { return a.Path == b.Path && a.SHA256 == b.SHA256 })
	}
	return &out
}

// check refuses values that would break a line or a field of any format.
func check(d *Document) error {
	for i := range d.Repositories {
		for _, p := range d.Repositories[i].Packages {
			if len(p.SHA256) != 64 || strings.Trim(p.SHA256, "0") == "" {
				return fmt.Errorf("%w: %s:%s=%s: expected a SHA-256, found %q: upstream lists another digest, and the file is not stored yet", ErrInvalid, p.Name, p.Arch, p.Version, p.SHA256)
			}
			if p.Path == "" || strings.ContainsFunc(p.Path, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
				return fmt.Errorf("%w: %s:%s=%s: expected the path of a file, found %q", ErrInvalid, p.Name, p.Arch, p.Version, p.Path)
			}
		}
	}
	return nil
}

// sha256sums writes the packages for repro-get, and for sha256sum --check in a directory
// with the files. A comment tells repro-get the provider.
func sha256sums(d *Document) string {
	var b strings.Builder
	for i := range d.Repositories {
		r := &d.Repositories[i]
		fmt.Fprintf(&b, "# repro-get --provider=%s/{{.Name}}\n", r.URL)
		for _, p := range r.Packages {
			if !p.Source {
				fmt.Fprintf(&b, "%s  %s\n", p.SHA256, p.Path)
			}
		}
	}
	return b.String()
}

// reproEnv writes repro-env.lock.
func reproEnv(d *Document) string {
	var b strings.Builder
	if d.Container != "" {
		fmt.Fprintf(&b, "[container]\nimage = %s\n", tomlText(d.Container))
	}
	for i := range d.Repositories {
		r := &d.Repositories[i]
		for _, p := range r.Packages {
			if p.Source {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString("[[package]]\n")
			for _, f := range [][2]string{{"name", p.Name}, {"version", p.Version}, {"system", "debian"}, {"url", p.url(r)}, {"sha256", p.SHA256}} {
				fmt.Fprintf(&b, "%s = %s\n", f[0], tomlText(f[1]))
			}
		}
	}
	return b.String()
}

// tomlText quotes a basic string of TOML.
func tomlText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

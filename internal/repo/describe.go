package repo

import (
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
)

// Describe returns a package of a mirror as the API represents it, without suites
// and components, which AddPlace adds.
func Describe(mirror config.MirrorName, r *Record) api.Package {
	p := api.Package{Mirror: string(mirror), Name: r.Name, Version: r.Version, Arch: r.Arch}
	source := r.Kind == KindSource
	if len(r.Sources) > 0 && !source {
		p.Source, p.SourceVersion = r.Sources[0].Name, r.Sources[0].Version
	}
	if f, ok := MainFile(r.Files); ok {
		p.Path, p.SHA256 = f.Path, f.SHA256.String()
	}
	for _, f := range r.Files {
		p.Size += f.Size
		if source {
			p.Files = append(p.Files, api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()})
		}
	}
	return p
}

// AddPlace adds a suite and a component that contain the package. Either may be
// empty.
func AddPlace(p *api.Package, suite SuiteName, component string) {
	if s := string(suite); s != "" && !slices.Contains(p.Suites, s) {
		p.Suites = append(p.Suites, s)
	}
	if component != "" && !slices.Contains(p.Components, component) {
		p.Components = append(p.Components, component)
	}
}

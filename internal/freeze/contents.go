package freeze

import (
	"encoding/hex"
	"iter"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Suite describes a generation of a suite for a manifest. wanted reports whether
// to include an index of the generation; metalinkSize is the size of the
// generation's metalink, if it has one.
func Suite(g *meta.Generation, metalinkSize int64, wanted func(meta.Group) bool) DocSuite {
	s := DocSuite{Suite: g.Suite, Date: g.Date.UTC(), Trust: g.Trust, Keys: []string{}, Indices: []DocIndex{}}
	for _, k := range g.Signers {
		s.Keys = append(s.Keys, string(k.Fingerprint))
	}
	slices.Sort(s.Keys)
	for _, d := range g.Docs {
		s.Documents = append(s.Documents, d.File)
	}
	if !g.Metalink.IsZero() {
		s.Metalink = &repo.File{Path: MetalinkFile, Size: metalinkSize, SHA256: g.Metalink}
	}
	for _, gr := range g.Groups {
		if wanted(gr) {
			s.Indices = append(s.Indices, DocIndex{
				Index: gr.Index, Component: gr.Component, Arch: gr.Arch,
				Path: gr.Variant.Path, Size: gr.Variant.Size, SHA256: gr.Variant.SHA256, Packages: gr.Packages,
			})
		}
	}
	slices.SortFunc(s.Indices, DocIndex.Compare)
	return s
}

// ProofFiles returns the upstream files that prove a mirror.
func (d *DocMirror) ProofFiles() []repo.File {
	var out []repo.File
	for _, s := range d.Suites {
		out = append(out, s.Documents...)
		if s.Metalink != nil {
			out = append(out, *s.Metalink)
		}
		for _, i := range s.Indices {
			out = append(out, repo.File{Path: i.Path, Size: i.Size, SHA256: i.SHA256})
		}
	}
	return out
}

// Tally counts the packages and source packages of an exact mirror, each once even if it
// is in several places. sourceArch is the architecture that the format uses for sources.
func (d *DocMirror) Tally(sourceArch string) (packages, sources int) {
	count := func(arch string) {
		if arch == sourceArch {
			sources++
		} else {
			packages++
		}
	}
	for _, same := range d.samePackages() {
		count(d.Packages[same[0]].Arch)
	}
	for range d.sameSources() {
		sources++
	}
	return packages, sources
}

// List returns the packages of an exact mirror, each once.
func (d *DocMirror) List(sourceArch string) []api.Package {
	return slices.Collect(d.Each(sourceArch))
}

// Each returns the packages of an exact mirror one by one, each once.
func (d *DocMirror) Each(sourceArch string) iter.Seq[api.Package] {
	return func(yield func(api.Package) bool) {
		for p := range d.EachStanza(sourceArch) {
			if !yield(p) {
				return
			}
		}
	}
}

// EachStanza is Each with the key of the stanza that describes the package.
func (d *DocMirror) EachStanza(sourceArch string) iter.Seq2[api.Package, meta.StanzaKey] {
	return func(yield func(api.Package, meta.StanzaKey) bool) {
		for _, same := range d.samePackages() {
			p := &d.Packages[same[0]]
			r := repo.Record{Kind: repo.KindBinary, Name: p.Name, Version: p.Version, Arch: p.Arch, Files: []repo.File{{Path: p.Path, Size: p.Size, SHA256: p.SHA256}}}
			if p.Source != "" {
				r.Sources = []repo.Ref{{Name: p.Source, Version: p.SourceVersion}}
			}
			e := repo.Describe(d.Name, &r)
			for _, i := range same {
				repo.AddPlace(&e, d.Packages[i].Suite, d.Packages[i].Component)
			}
			if !yield(e, stanzaKey(p.Name, p.Paragraph)) {
				return
			}
		}
		for _, same := range d.sameSources() {
			s := &d.Sources[same[0]]
			e := repo.Describe(d.Name, &repo.Record{Kind: repo.KindSource, Name: s.Name, Version: s.Version, Arch: sourceArch, Files: s.Files})
			for _, i := range same {
				repo.AddPlace(&e, d.Sources[i].Suite, d.Sources[i].Component)
			}
			if !yield(e, stanzaKey(s.Name, s.Paragraph)) {
				return
			}
		}
	}
}

// stanzaKey returns the key of a stanza from a manifest, which has half of its digest. If
// the text is not half a digest, as in a hostile manifest, no stanza has the key.
func stanzaKey(name, paragraph string) meta.StanzaKey {
	k := meta.StanzaKey{Name: name}
	if len(paragraph) == hex.EncodedLen(len(k.Digest)) {
		_, _ = hex.Decode(k.Digest[:], []byte(paragraph))
	}
	return k
}

// samePackages groups the entries of packages that are the same file, in the order of
// their first entries.
func (d *DocMirror) samePackages() [][]int32 {
	type key struct {
		digest cas.Digest
		path   string
	}
	return grouped(d.Packages, func(p *DocPackage) key { return key{p.SHA256, p.Path} })
}

func (d *DocMirror) sameSources() [][]int32 {
	return grouped(d.Sources, func(s *DocSource) repo.Ref { return repo.Ref{Name: s.Name, Version: s.Version} })
}

// grouped groups the positions of elements with the same key.
func grouped[T any, K comparable](list []T, keyOf func(*T) K) (groups [][]int32) {
	at := make(map[K]int32, len(list))
	numbers := make([]int32, len(list)) // most groups are a part of this slice
	for i := range list {
		numbers[i] = int32(i)
		k := keyOf(&list[i])
		if g, ok := at[k]; ok {
			groups[g] = append(groups[g], int32(i))
			continue
		}
		at[k] = int32(len(groups))
		groups = append(groups, numbers[i:i+1:i+1])
	}
	return groups
}

// ClientSuites returns what clients need to know about each suite of a mirror.
func (d *DocMirror) ClientSuites(sourceArch string) []meta.FrozenSuite {
	var out []meta.FrozenSuite
	for i := range d.Suites {
		s := &d.Suites[i]
		at := slices.IndexFunc(out, func(f meta.FrozenSuite) bool { return f.Suite == s.Suite })
		if at < 0 {
			at = len(out)
			out = append(out, meta.FrozenSuite{Suite: s.Suite})
		}
		for _, x := range s.Indices {
			if x.Packages {
				addIndex(&out[at], x.Component, x.Arch, sourceArch)
			}
		}
	}
	return out
}

// ClientSuite returns what clients need to know about a generation.
func ClientSuite(g *meta.Generation, sourceArch string) meta.FrozenSuite {
	fs := meta.FrozenSuite{Suite: g.Suite, Gen: g.Gen}
	for _, gr := range g.Groups {
		if gr.Packages {
			addIndex(&fs, gr.Component, gr.Arch, sourceArch)
		}
	}
	return fs
}

// MissingStanza returns the missing entry for a stanza that no client can
// install. sourceArch is the architecture that the format uses for sources.
func MissingStanza(r *repo.Record, sourceArch string) Missing {
	m := Missing{Name: r.Name, Version: r.Version, Arch: r.Arch}
	if m.Source = r.Arch == sourceArch; m.Source {
		m.Arch = ""
	}
	return m
}

// addIndex adds the component and architecture of a package index.
func addIndex(fs *meta.FrozenSuite, component, arch, sourceArch string) {
	if component != "" && !slices.Contains(fs.Components, component) {
		fs.Components = append(fs.Components, component)
	}
	if arch == sourceArch {
		fs.Sources = true
	} else if arch != "" && !slices.Contains(fs.Archs, arch) {
		fs.Archs = append(fs.Archs, arch)
	}
}

package freeze

import (
	"context"
	"fmt"
	"slices"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// withDeps resolves packages and what they depend on: the package manager of
// the mirrors' format runs in an empty root against the chosen snapshots.
func (z *Freezer) withDeps(ctx context.Context, pl *plan, packages []string) ([]buildlist.Entry, error) {
	byType := map[string][]repo.SourceParams{}
	archs := map[string][]string{}
	for _, mir := range pl.mirrors {
		for i, src := range pl.sources[mir] {
			m, err := z.e.Mirror(mir)
			if err != nil {
				return nil, err
			}
			p := repo.SourceParams{
				Mirror: m, Name: sourceName(mir, i), Components: map[repo.SuiteName][]string{},
				URL: z.cfg.LocalURL + "/archive/" + mir + "/" + meta.FormatTimestamp(src.snap.Timestamp),
			}
			for _, e := range src.snap.Suites {
				fs, _, err := z.frozenSuite(ctx, src.snap, e)
				if err != nil {
					return nil, err
				}
				p.Suites = append(p.Suites, e.Suite)
				p.Components[e.Suite] = fs.Components
				for _, a := range fs.Archs {
					if !slices.Contains(p.Archs, a) {
						p.Archs = append(p.Archs, a)
					}
				}
			}
			kr, err := z.e.Keyring(m.Name)
			if err != nil {
				return nil, err
			}
			if kr != nil {
				p.KeyArmored = string(kr.ExportArmored())
			}
			for _, a := range m.Architectures {
				if !slices.Contains(archs[src.typ], a) {
					archs[src.typ] = append(archs[src.typ], a)
				}
			}
			byType[src.typ] = append(byType[src.typ], p)
		}
	}
	if len(byType) != 1 {
		return nil, fmt.Errorf("%w: dependencies are resolved within mirrors of one type; name them with --mirror", ErrUsage)
	}
	var out []buildlist.Entry
	for typ, repos := range byType {
		f, err := z.e.Format(typ)
		if err != nil {
			return nil, err
		}
		r, ok := f.(repo.Resolver)
		if !ok {
			return nil, fmt.Errorf("%w: mirrors of type %s cannot resolve dependencies", ErrUsage, typ)
		}
		if len(archs[typ]) == 0 {
			return nil, fmt.Errorf("%w: the mirrors name no architecture to resolve for", ErrUsage)
		}
		found, err := r.Resolve(ctx, repos, archs[typ], packages)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			e := buildlist.Entry{SHA256: p.SHA256.String(), Size: -1, Path: p.URL, Raw: p.SHA256.String() + "  " + p.URL}
			if p.SHA256.IsZero() {
				e = buildlist.Entry{Name: p.Name, Version: p.Version, Arch: p.Arch, SHA512: p.SHA512, Size: -1, Path: p.URL, Raw: p.SHA512 + "  " + p.URL}
			}
			out = append(out, e)
		}
	}
	return out, nil
}

// sourceName names the i-th snapshot of a mirror to the package manager.
func sourceName(mir string, i int) string {
	if i == 0 {
		return "snapd-" + mir
	}
	return fmt.Sprintf("snapd-%s-%d", mir, i)
}

// carriedChoice is a suite of an imported base: its root comes from the proof
// that was imported with it.
func (z *Freezer) carriedChoice(ctx context.Context, pl *plan, d *DocMirror, c carried) (*repo.Choice, *meta.FrozenSuite, error) {
	f, err := z.e.Format(d.Type)
	if err != nil {
		return nil, nil, err
	}
	root, err := z.parseProof(ctx, f, d, &c.suite, c.certs)
	if err != nil {
		return nil, nil, err
	}
	fs := &meta.FrozenSuite{Suite: c.suite.Suite}
	choice := &repo.Choice{Suite: c.suite.Suite, Root: root, Records: z.records(pl, d.Name, c.suite.Suite), Packages: z.chosen(pl, d.Name, c.suite.Suite, nil)}
	held := map[string]cas.Digest{}
	for _, i := range c.suite.Indices {
		held[i.Path] = i.SHA256
		choice.Groups = append(choice.Groups, repo.Group{
			Index: i.Index, Component: i.Component, Arch: i.Arch, Packages: i.Packages,
			Forms: []repo.Listed{{Path: i.Path, Size: i.Size, SHA256: i.SHA256}},
		})
		if i.Component != "" && !slices.Contains(fs.Components, i.Component) {
			fs.Components = append(fs.Components, i.Component)
		}
		if i.Arch == f.SourceArch() {
			fs.Sources = true
		} else if i.Arch != "" && !slices.Contains(fs.Archs, i.Arch) {
			fs.Archs = append(fs.Archs, i.Arch)
		}
	}
	choice.Held = func(l repo.Listed) (repo.File, bool) {
		d, ok := held[l.Path]
		return repo.File{Path: l.Path, Size: l.Size, SHA256: d}, ok
	}
	choice.Open = z.opener(held)
	return choice, fs, nil
}

// parseProof reads a root again from the documents that a freeze keeps, by the
// certificates kept with them.
func (z *Freezer) parseProof(ctx context.Context, f repo.Format, d *DocMirror, s *DocSuite, certs cas.Digest) (*repo.Root, error) {
	var docs []repo.Doc
	for _, file := range s.Documents {
		data, err := cas.ReadAll(ctx, z.blobs, file.SHA256, 64<<20)
		if err != nil {
			return nil, err
		}
		docs = append(docs, repo.Doc{Path: file.Path, Data: data})
	}
	var p repo.VerifyParams
	if !certs.IsZero() {
		data, err := cas.ReadAll(ctx, z.blobs, certs, 16<<20)
		if err != nil {
			return nil, err
		}
		if p.Keyring, err = parseKeys([]string{string(data)}); err != nil {
			return nil, err
		}
	}
	if s.Metalink != nil {
		var err error
		if p.Metalink, err = cas.ReadAll(ctx, z.blobs, s.Metalink.SHA256, 16<<20); err != nil {
			return nil, err
		}
	}
	return f.ParseRoot(repo.Recorded(d.Name, d.Type, s.Trust), s.Suite, docs, p)
}

func (z *Freezer) proofRoot(ctx context.Context, f repo.Format, fr *meta.Frozen, d *DocMirror, s *DocSuite) (*repo.Root, error) {
	var certs cas.Digest
	for _, m := range fr.Mirrors {
		if m.Mirror == d.Name {
			certs = m.Certificates
		}
	}
	return z.parseProof(ctx, f, d, s, certs)
}

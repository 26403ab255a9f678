package freeze

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Describe tells what a frozen snapshot is.
func (z *Freezer) Describe(ctx context.Context, name string) (*api.Frozen, error) {
	f, doc, _, err := z.frozen(ctx, name)
	if err != nil {
		return nil, err
	}
	out := &api.Frozen{
		Name: f.Name, Date: f.Date, Created: f.Created, Manifest: f.Manifest.SHA256.String(), Key: f.Key,
		Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, URL: z.cfg.PublicURL + "/frozen/" + f.Name + "/",
		Mirrors: []api.FrozenMirror{}, Images: []api.Image{}, Imported: f.Imported,
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		m := api.FrozenMirror{Mirror: d.Name, Type: d.Type, Kind: d.Kind, Trust: string(d.Trust)}
		for _, s := range d.Suites {
			if !slices.Contains(m.Suites, string(s.Suite)) {
				m.Suites = append(m.Suites, string(s.Suite))
			}
		}
		format, err := z.e.Format(d.Type)
		if err != nil {
			return nil, err
		}
		m.Packages, m.Sources = tally(d, format.SourceArch())
		for _, fm := range f.Mirrors {
			if fm.Mirror == d.Name && d.Kind == Whole {
				if m.Packages, m.Sources, err = z.countWhole(ctx, &fm); err != nil {
					return nil, err
				}
			}
			if fm.Mirror == d.Name && !fm.Timestamp.IsZero() {
				m.Snapshot = fm.Mirror + "@" + meta.FormatTimestamp(fm.Timestamp)
			}
		}
		out.Mirrors = append(out.Mirrors, m)
	}
	for _, m := range doc.Missing {
		out.Missing = append(out.Missing, m.text())
	}
	for _, s := range f.Statements {
		out.Statements = append(out.Statements, s.Path)
	}
	out.Images, err = z.Images(ctx, name)
	return out, err
}

// Packages lists what a reference holds, sources included, by mirror, name,
// version and architecture.
func (z *Freezer) Packages(ctx context.Context, ref string) (*api.PackageList, error) {
	r, _, err := z.e.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := &api.PackageList{Ref: r.String(), Packages: []api.Package{}}
	fromSnap := func(mir, typ string, snap *meta.Snapshot) error {
		comp, err := z.components(ctx, snap)
		if err != nil {
			return err
		}
		return z.e.EachPackage(ctx, snap, func(en meta.Entry) error {
			p := apiPackage(&pick{mirror: mir, fact: en.Fact, places: en.Places})
			for _, pl := range en.Places {
				if c := comp[pl]; c != "" && !slices.Contains(p.Components, c) {
					p.Components = append(p.Components, c)
				}
			}
			out.Packages = append(out.Packages, p)
			return nil
		})
	}
	if r.Snapshot != nil {
		err := fromSnap(r.Snapshot.Mirror, r.Snapshot.Type, r.Snapshot)
		return out, err
	}
	_, doc, _, err := z.frozen(ctx, r.Frozen.Name)
	if err != nil {
		return nil, err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		if d.Kind == Whole {
			for j := range r.Frozen.Mirrors {
				fm := &r.Frozen.Mirrors[j]
				if fm.Mirror != d.Name {
					continue
				}
				src := sourceOf(fm)
				for _, s := range src {
					if err := fromSnap(d.Name, d.Type, s.snap); err != nil {
						return nil, err
					}
				}
				if len(src) == 0 {
					err := z.eachDerived(ctx, r.Frozen, fm, func(suite repo.SuiteName, g repo.Group, rec *repo.Record) error {
						p := apiPackage(&pick{mirror: d.Name, fact: &meta.Fact{Record: *rec}, places: []meta.Place{{Suite: suite, Index: g.Index}}})
						if g.Component != "" {
							p.Components = []string{g.Component}
						}
						out.Packages = append(out.Packages, p)
						return nil
					})
					if err != nil {
						return nil, err
					}
				}
			}
			continue
		}
		f, err := z.e.Format(d.Type)
		if err != nil {
			return nil, err
		}
		out.Packages = append(out.Packages, docPackages(d, f.SourceArch())...)
	}
	return out, nil
}

// tally counts an exact mirror's packages and source packages, each once in
// however many places it is.
func tally(d *DocMirror, sourceArch string) (packages, sources int) {
	for _, p := range docPackages(d, sourceArch) {
		if p.Arch == sourceArch {
			sources++
		} else {
			packages++
		}
	}
	return packages, sources
}

// countWhole counts the packages of a whole mirror, those of each suite: none
// where it was imported, and its indices never read.
func (z *Freezer) countWhole(ctx context.Context, fm *meta.FrozenMirror) (packages, sources int, err error) {
	for _, s := range fm.Suites {
		if s.Gen == 0 {
			continue
		}
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			g, err := tx.Generation(fm.Mirror, s.Suite, s.Gen)
			if err == nil {
				packages += g.Packages
				sources += g.Sources
			}
			return err
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return packages, sources, nil
}

// docPackages lists an exact mirror's packages, each once.
func docPackages(d *DocMirror, sourceArch string) []api.Package {
	var out []api.Package
	add := func(list *[]string, s string) {
		if s != "" && !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	at := map[string]int{}
	for _, p := range d.Packages {
		k := p.SHA256.String() + p.Path
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, api.Package{
				Mirror: d.Name, Name: p.Name, Version: p.Version, Arch: p.Arch, Path: p.Path, Size: p.Size, SHA256: p.SHA256.String(),
				Source: p.Source, SourceVersion: p.SourceVersion,
			})
		}
		add(&out[i].Suites, string(p.Suite))
		add(&out[i].Components, p.Component)
	}
	for _, s := range d.Sources {
		k := "source " + s.Name + " " + s.Version
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			e := api.Package{Mirror: d.Name, Name: s.Name, Version: s.Version, Arch: sourceArch}
			for _, f := range s.Files {
				e.Files = append(e.Files, api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()})
				e.Size += f.Size
			}
			out = append(out, e)
		}
		add(&out[i].Suites, string(s.Suite))
		add(&out[i].Components, s.Component)
	}
	return out
}

func (z *Freezer) components(ctx context.Context, snap *meta.Snapshot) (map[meta.Place]string, error) {
	out := map[meta.Place]string{}
	for _, e := range snap.Suites {
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			g, err := tx.Generation(snap.Mirror, e.Suite, e.Gen)
			if err != nil {
				return err
			}
			for _, gr := range g.Groups {
				out[meta.Place{Suite: e.Suite, Index: gr.Index}] = gr.Component
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Sources renders a reference, or the name of a recording that is not frozen
// yet, for clients: apt's .sources or one-line lists,
// dnf's .repo, what mmdebstrap reads.
func (z *Freezer) Sources(ctx context.Context, req *api.SourcesRequest) (*api.SourcesResult, error) {
	r, _, err := z.e.ResolvePast(ctx, req.Ref)
	var rec *meta.Recording
	if errors.Is(err, meta.ErrNotFound) && !strings.Contains(req.Ref, "@") {
		_ = z.st.View(ctx, func(tx *bolt.Tx) error {
			rec, _ = tx.Recording(req.Ref)
			return nil
		})
	}
	if err != nil && rec == nil {
		return nil, err
	}
	switch req.Format {
	case "", "deb822", "list", "repo", "mmdebstrap":
	default:
		return nil, fmt.Errorf("%w: --format %q: expected deb822, list, repo or mmdebstrap", ErrUsage, req.Format)
	}
	res := &api.SourcesResult{}
	var texts, has []string
	render := func(name, typ, base, mir string, suites []meta.FrozenSuite, keys clientKeys, unsigned bool, comment string) error {
		has = append(has, mir)
		if req.Mirror != "" && req.Mirror != mir {
			return nil
		}
		f, err := z.e.Format(typ)
		if err != nil {
			return err
		}
		kind := req.Format
		if kind == "" {
			kind = f.ClientKinds()[0]
		}
		if !slices.Contains(f.ClientKinds(), kind) {
			return nil
		}
		m, err := z.e.Mirror(mir)
		if err != nil {
			m = config.Mirror{Name: mir, Type: typ}
			if keys.upstream == "" {
				no := false
				m.GPGCheck = &no // nobody has a key to check packages by
			}
		}
		p := repo.SourceParams{Mirror: m, URL: base, Name: name, KeyArmored: keys.root, Unsigned: unsigned, Comment: comment, Components: map[repo.SuiteName][]string{}, NoSources: map[repo.SuiteName]bool{}}
		hasSources := map[repo.SuiteName]bool{}
		for _, s := range suites {
			if !slices.Contains(p.Suites, s.Suite) {
				p.Suites = append(p.Suites, s.Suite)
			}
			p.Components[s.Suite] = s.Components
			p.HasSources = p.HasSources || s.Sources
			if with, seen := hasSources[s.Suite]; !seen || !with {
				hasSources[s.Suite] = s.Sources
			}
			for _, a := range s.Archs {
				if !slices.Contains(p.Archs, a) {
					p.Archs = append(p.Archs, a)
				}
			}
		}
		for suite, with := range hasSources {
			p.NoSources[suite] = !with
		}
		if p.KeyFiles, err = keyFiles(req, res, kind, name, mir, keys); err != nil {
			return err
		}
		text, err := f.ClientConfig(kind, p)
		if err != nil {
			return err
		}
		texts = append(texts, text)
		return nil
	}
	// upstream renders a snapshot that is served with the distribution's signature,
	// or, where resigned, with this server's.
	upstream := func(s *meta.Snapshot, name, url, words string, resigned bool) error {
		var suites []meta.FrozenSuite
		unsigned, comment := false, s.ID()+", signed by the distribution"
		for _, e := range s.Suites {
			fs, g, err := z.frozenSuite(ctx, s, e)
			if err != nil {
				return err
			}
			suites = append(suites, fs)
			if resigned {
				continue
			}
			if g.Trust != repo.TrustSignature {
				unsigned, comment = true, s.ID()+", whose metadata the distribution did not sign"
				res.Notes = append(res.Notes, fmt.Sprintf("the metadata of %s carry no signature that a client could check (trust: %s); a frozen snapshot is signed by this server", s.ID(), g.Trust))
			}
			if !g.ValidUntil.IsZero() && g.ValidUntil.Before(z.cfg.Now()) {
				res.Notes = append(res.Notes, fmt.Sprintf("the Release of %s has expired (Valid-Until %s): apt refuses it; a frozen snapshot has no such date", e.Suite, g.ValidUntil.Format("2006-01-02")))
			}
		}
		bases, err := z.e.AlternateBases(ctx, s)
		if err != nil {
			return err
		}
		if len(bases) > 0 {
			res.Notes = append(res.Notes, fmt.Sprintf("%s lists packages at %s: clients fetch them from there, not from this server; a frozen snapshot lists them here", s.ID(), remote.Redact(bases[0])))
		}
		batch := z.blobs.NewBatch()
		defer batch.Discard()
		pl := &plan{req: &api.FreezeRequest{}, sources: map[string][]*source{s.Mirror: {{mirror: s.Mirror, typ: s.Type, snap: s}}}}
		certs, err := z.joinCerts(ctx, pl, s.Mirror, batch)
		if err != nil {
			return err
		}
		if err := z.e.Flush(ctx, batch); err != nil {
			return err
		}
		var keys clientKeys
		if keys.upstream, err = z.certificates(ctx, certs); err != nil {
			return err
		}
		keys.upstreamURL = z.cfg.PublicURL + "/by-hash/SHA256/" + certs.String()
		keys.root, keys.rootURL = keys.upstream, keys.upstreamURL
		if resigned {
			keys.root, keys.rootURL = z.cfg.Signer.PublicKeyArmored(), z.cfg.PublicURL+"/key.asc"
			comment = s.ID() + ", signed again by this server"
		}
		return render(name, s.Type, url, s.Mirror, suites, keys, unsigned, comment+words)
	}
	switch {
	case rec != nil:
		for _, pin := range rec.Pins {
			var s *meta.Snapshot
			err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
				s, err = tx.Snapshot(pin.Mirror, pin.Timestamp)
				return err
			})
			if err != nil {
				return nil, err
			}
			if err := upstream(s, "snapd-"+rec.Name+"-"+s.Mirror, z.cfg.PublicURL+"/record/"+rec.Name+"/"+s.Mirror, "; recording "+rec.Name, rec.Resigned); err != nil {
				return nil, err
			}
		}
	case r.Snapshot != nil:
		s := r.Snapshot
		at := meta.FormatTimestamp(s.Timestamp)
		if latest := strings.HasSuffix(req.Ref, "@latest"); latest {
			if ok, why := z.latestHolds(ctx, s); ok {
				at = "latest"
			} else {
				res.Notes = append(res.Notes, "the exact timestamp is printed instead of latest: "+why)
			}
		}
		if err := upstream(s, "snapd-"+s.Mirror+"-"+at, z.cfg.PublicURL+"/archive/"+s.Mirror+"/"+at, "", false); err != nil {
			return nil, err
		}
	default:
		f := r.Frozen
		key, err := cas.ReadAll(ctx, z.blobs, f.KeyBlob, 1<<20)
		if err != nil {
			return nil, err
		}
		if f.Key == z.cfg.Signer.Fingerprint() {
			key = []byte(z.cfg.Signer.PublicKeyArmored()) // it may have been renewed
		}
		for i := range f.Mirrors {
			m := &f.Mirrors[i]
			base := z.cfg.PublicURL + "/frozen/" + f.Name + "/"
			keys := clientKeys{root: string(key), rootURL: base + keyFile, upstreamURL: base + path.Join(proofDir, m.Mirror, certsFile)}
			if keys.upstream, err = z.certificates(ctx, m.Certificates); err != nil {
				return nil, err
			}
			if err := render("snapd-"+f.Name+"-"+m.Mirror, m.Type, base+m.Mirror, m.Mirror, m.Suites, keys, false, "frozen snapshot "+f.Name+" of "+m.Mirror); err != nil {
				return nil, err
			}
		}
	}
	if len(texts) == 0 {
		switch {
		case req.Mirror != "" && !slices.Contains(has, req.Mirror):
			return nil, fmt.Errorf("%w: %s has no mirror %s, only %s", ErrUsage, req.Ref, req.Mirror, strings.Join(has, ", "))
		default:
			return nil, fmt.Errorf("%w: --format %s does not fit any mirror of %s (deb822, list and mmdebstrap are for deb, repo is for rpm)", ErrUsage, req.Format, req.Ref)
		}
	}
	res.Text = strings.Join(texts, "\n")
	return res, nil
}

// clientKeys are the keys by which a client checks a repository, armored, with
// the URLs at which this server has them.
type clientKeys struct {
	root, rootURL         string // checks the signed documents
	upstream, upstreamURL string // the distribution's, checks packages; empty where there is none
}

// certificates reads the certificates that a mirror was verified by, armored;
// none where d is zero.
func (z *Freezer) certificates(ctx context.Context, d cas.Digest) (string, error) {
	if d.IsZero() {
		return "", nil
	}
	data, err := cas.ReadAll(ctx, z.blobs, d, 16<<20)
	return string(data), err
}

// keyFiles names the keys of configurations that cannot hold a key: as files
// below KeysDir, which snapctl writes, else, for those that take URLs, at this
// server.
func keyFiles(req *api.SourcesRequest, res *api.SourcesResult, kind, name, mir string, keys clientKeys) ([]string, error) {
	if kind != "list" && kind != "repo" && req.KeysDir == "" {
		return nil, nil
	}
	if kind == "list" && req.KeysDir == "" {
		return nil, fmt.Errorf("%w: --format %s names key files: use --keys-dir to choose where to write them", ErrUsage, kind)
	}
	var out []string
	add := func(file, armored, url string) {
		switch {
		case armored == "":
			return
		case req.KeysDir == "":
			out = append(out, url)
			return
		}
		if !slices.ContainsFunc(res.Keys, func(k api.KeyFile) bool { return k.Name == file }) {
			res.Keys = append(res.Keys, api.KeyFile{Name: file, Armored: armored})
		}
		out = append(out, path.Join(req.KeysDir, file))
	}
	add(name+".asc", keys.root, keys.rootURL)
	if kind == "repo" && keys.upstream != keys.root {
		add("snapd-"+mir+"-packages.asc", keys.upstream, keys.upstreamURL)
	}
	return out, nil
}

func (z *Freezer) frozenSuite(ctx context.Context, s *meta.Snapshot, e meta.SnapshotSuite) (meta.FrozenSuite, *meta.Generation, error) {
	f, err := z.e.Format(s.Type)
	if err != nil {
		return meta.FrozenSuite{}, nil, err
	}
	var g *meta.Generation
	err = z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		g, err = tx.Generation(s.Mirror, e.Suite, e.Gen)
		return err
	})
	if err != nil {
		return meta.FrozenSuite{}, nil, err
	}
	return suiteOf(f, g), g, nil
}

// suiteOf gathers a generation's components and architectures.
func suiteOf(f repo.Format, g *meta.Generation) meta.FrozenSuite {
	fs := meta.FrozenSuite{Suite: g.Suite, Gen: g.Gen}
	for _, gr := range g.Groups {
		if !gr.Packages {
			continue
		}
		if gr.Component != "" && !slices.Contains(fs.Components, gr.Component) {
			fs.Components = append(fs.Components, gr.Component)
		}
		if gr.Arch == f.SourceArch() {
			fs.Sources = true
		} else if gr.Arch != "" && !slices.Contains(fs.Archs, gr.Arch) {
			fs.Archs = append(fs.Archs, gr.Arch)
		}
	}
	return fs
}

// latestHolds reports whether `latest` can promise clients that a sync under
// them does not mix states: only where upstream names its indices by hash.
func (z *Freezer) latestHolds(ctx context.Context, s *meta.Snapshot) (bool, string) {
	for _, e := range s.Suites {
		_, g, err := z.frozenSuite(ctx, s, e)
		if err != nil || !g.ByHash {
			return false, fmt.Sprintf("suite %s does not name its indices by hash, so a client that runs across a sync could mix two states", e.Suite)
		}
	}
	return true, ""
}

// Keyring is the server's own public key, for those who check.
func (z *Freezer) Keyring() *sign.Keyring { return z.cfg.Signer.Keyring() }

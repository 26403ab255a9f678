package client

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/lockfile"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Sources formats the client configuration for a reference, or for the name of a
// recording that is not frozen yet: apt's .sources or one-line lists, dnf's
// .repo, or the input of mmdebstrap.
func (c *Client) Sources(ctx context.Context, req *api.SourcesRequest) (*api.SourcesResult, error) {
	if err := checkFormat(req); err != nil {
		return nil, err
	}
	if req.For != nil {
		return c.cover(ctx, req)
	}
	r, _, err := c.cat.ResolvePast(ctx, req.Ref)
	var rec *meta.Recording
	if errors.Is(err, meta.ErrNotFound) && !strings.Contains(req.Ref, "@") {
		var unknown error
		if rec, unknown = c.meta.Recording(ctx, req.Ref); unknown == nil {
			err = nil
		} else if !errors.Is(unknown, meta.ErrNotFound) {
			err = unknown
		}
	}
	if err != nil {
		return nil, err
	}
	if lockfile.Format(req.Format).Known() {
		if rec != nil {
			return nil, fmt.Errorf("%w: --format %s is for a snapshot or a freeze, and %s is a recording: freeze it first", freeze.ErrUsage, req.Format, rec.Name)
		}
		return c.lock(ctx, req, r)
	}
	w := &sourcesWriter{c: c, req: req, res: &api.SourcesResult{}}
	switch {
	case rec != nil:
		err = w.recording(ctx, rec)
	case r.Snapshot != nil:
		err = w.snapshot(ctx, r.Snapshot)
	case r.Channel != nil:
		err = w.channel(ctx, r.Channel, r.Frozen)
	default:
		err = w.freeze(ctx, r.Frozen)
	}
	if err != nil {
		return nil, err
	}
	return w.result()
}

// sourcesWriter formats the repositories of a reference.
type sourcesWriter struct {
	c     *Client
	req   *api.SourcesRequest
	res   *api.SourcesResult
	texts []string
	has   []string // the mirrors of the reference
}

// result returns the formatted text, or freeze.ErrUsage if it is empty.
func (w *sourcesWriter) result() (*api.SourcesResult, error) {
	if len(w.texts) > 0 {
		w.res.Text = strings.Join(w.texts, "\n")
		return w.res, nil
	}
	if m := w.req.Mirror; m != "" && !slices.Contains(w.has, m) {
		return nil, fmt.Errorf("%w: %s has no mirror %s, only %s", freeze.ErrUsage, w.req.Ref, m, strings.Join(w.has, ", "))
	}
	return nil, fmt.Errorf("%w: --format %s does not apply to any mirror of %s (deb822, list and mmdebstrap are for deb, repo is for rpm)", freeze.ErrUsage, w.req.Format, w.req.Ref)
}

// repository describes the repository of one mirror to clients.
type repository struct {
	name     string // for the stanza or the file
	mirror   meta.MirrorName
	typ      string
	url      string
	suites   []meta.FrozenSuite
	keys     keys
	unsigned bool // the roots are not signed
	comment  string
	// expire is how long dnf may use its copy of repomd.xml; 0: dnf's default.
	expire time.Duration
}

// keys are the armored keys with which a client checks a repository, and their URLs on
// this server.
type keys struct {
	root, rootURL         string // checks the signed documents
	upstream, upstreamURL string // the distribution's keys, which verify packages; empty: none
}

// recording adds the view of a recording.
func (w *sourcesWriter) recording(ctx context.Context, rec *meta.Recording) error {
	for _, pin := range rec.Pins {
		snap, err := w.c.meta.Snapshot(ctx, pin.Mirror, pin.Timestamp)
		if err != nil {
			return err
		}
		gens, err := w.c.meta.Generations(ctx, snap)
		if err != nil {
			return err
		}
		r, err := w.upstream(ctx, snap, gens)
		if err != nil {
			return err
		}
		r.name, r.url = "snapd-"+rec.Name+"-"+string(snap.Mirror), w.c.cfg.PublicURL+"/record/"+rec.Name+"/"+string(snap.Mirror)
		if rec.Resigned {
			r.keys.root, r.keys.rootURL = w.c.cfg.Signer.PublicKeyArmored(), w.c.cfg.PublicURL+"/"+freeze.KeyFile
			r.comment = snap.ID() + ", re-signed by this server"
		} else {
			w.warnOfRoots(snap, gens, r)
		}
		w.warnOfBases(snap, gens)
		r.comment += "; recording " + rec.Name
		if err := w.render(r); err != nil {
			return err
		}
	}
	return nil
}

// snapshot adds a snapshot of a mirror.
func (w *sourcesWriter) snapshot(ctx context.Context, snap *meta.Snapshot) error {
	gens, err := w.c.meta.Generations(ctx, snap)
	if err != nil {
		return err
	}
	at := meta.FormatTimestamp(snap.Timestamp)
	if strings.HasSuffix(w.req.Ref, "@"+catalog.Latest) {
		// If upstream does not name its indices by hash, clients that use latest
		// during a sync could mix two states.
		i := slices.IndexFunc(gens, func(g *meta.Generation) bool { return !g.ByHash })
		if i < 0 {
			at = catalog.Latest
		} else {
			w.note("using the exact timestamp instead of latest: suite %s does not list its indices by hash, so a client could mix two states during a sync", gens[i].Suite)
		}
	}
	r, err := w.upstream(ctx, snap, gens)
	if err != nil {
		return err
	}
	return w.archived(r, snap, gens, at)
}

// archived adds a snapshot, or some of its suites, by its timestamp or as latest.
func (w *sourcesWriter) archived(r *repository, snap *meta.Snapshot, gens []*meta.Generation, at string) error {
	w.warnOfRoots(snap, gens, r)
	w.warnOfBases(snap, gens)
	r.name, r.url = "snapd-"+string(snap.Mirror)+"-"+at, w.c.cfg.PublicURL+"/archive/"+string(snap.Mirror)+"/"+at
	return w.render(r)
}

func (w *sourcesWriter) note(format string, args ...any) {
	w.res.Notes = append(w.res.Notes, fmt.Sprintf(format, args...))
}

// upstream describes a snapshot that is served with the distribution's
// signatures.
func (w *sourcesWriter) upstream(ctx context.Context, snap *meta.Snapshot, gens []*meta.Generation) (*repository, error) {
	f, err := w.c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return nil, err
	}
	r := &repository{mirror: snap.Mirror, typ: snap.Type, comment: snap.ID() + ", signed by the distribution"}
	var certs []cas.Digest
	for _, g := range gens {
		r.suites = append(r.suites, freeze.ClientSuite(g, f.SourceArch()))
		certs = append(certs, g.Certificates)
	}
	if r.keys.upstream, r.keys.upstreamURL, err = w.certificates(ctx, certs); err != nil {
		return nil, err
	}
	r.keys.root, r.keys.rootURL = r.keys.upstream, r.keys.upstreamURL
	return r, nil
}

// certificates stores certificates as one blob, for clients that fetch keys by URL. It
// returns "" for no certificates.
func (w *sourcesWriter) certificates(ctx context.Context, certs []cas.Digest) (armored, url string, err error) {
	ring, err := freeze.Certificates(ctx, w.c.blobs, certs...)
	if err != nil || ring == nil {
		return "", "", err
	}
	batch := w.c.blobs.NewBatch()
	defer batch.Discard()
	data := ring.ExportArmored()
	info, err := cas.PutBatch(ctx, batch, data, time.Time{})
	if err != nil {
		return "", "", err
	}
	if err := w.c.cfg.Keeper.Flush(ctx, batch); err != nil {
		return "", "", err
	}
	return string(data), w.c.cfg.PublicURL + "/by-hash/SHA256/" + info.Digest.String(), nil
}

// warnOfRoots warns of upstream documents that clients will not accept.
func (w *sourcesWriter) warnOfRoots(snap *meta.Snapshot, gens []*meta.Generation, r *repository) {
	for _, g := range gens {
		if g.Trust == repo.TrustOwn {
			r.comment = snap.ID() + ", signed by this server"
		} else if g.Trust != repo.TrustSignature {
			r.unsigned, r.comment = true, snap.ID()+", whose metadata the distribution did not sign"
			w.note("the metadata of %s has no signature that a client could check (trust: %s); a freeze is signed by this server", snap.ID(), g.Trust)
		}
		if !g.ValidUntil.IsZero() && g.ValidUntil.Before(w.c.cfg.Now()) {
			w.note("the Release file of %s has expired (Valid-Until %s) and apt refuses it; a freeze has no expiry date", g.Suite, g.ValidUntil.Format("2006-01-02"))
		}
	}
}

// warnOfBases warns if the indices of a snapshot refer clients to another server.
func (w *sourcesWriter) warnOfBases(snap *meta.Snapshot, gens []*meta.Generation) {
	for _, g := range gens {
		if len(g.AlternateBases) > 0 {
			w.note("%s lists packages at %s: clients download them there, not from this server; a freeze lists them at this server", snap.ID(), remote.Redact(g.AlternateBases[0]))
			return
		}
	}
}

// freeze adds a freeze.
func (w *sourcesWriter) freeze(ctx context.Context, f *meta.Frozen) error {
	key, err := cas.ReadAll(ctx, w.c.blobs, f.KeyBlob, freeze.MaxSignature)
	if err != nil {
		return err
	}
	if f.Key == w.c.cfg.Signer.Fingerprint() {
		key = []byte(w.c.cfg.Signer.PublicKeyArmored()) // it may have been renewed
	}
	return w.frozenMirrors(ctx, f, repository{
		name: string(f.Name), url: w.c.cfg.PublicURL + "/frozen/" + string(f.Name) + "/", comment: "freeze " + string(f.Name) + " of ", keys: keys{root: string(key)},
	})
}

// channelExpire is how long dnf uses its copy of a channel's repomd.xml.
const channelExpire = 5 * time.Minute

// channel adds the freeze that a channel shows, at the URLs of the channel.
func (w *sourcesWriter) channel(ctx context.Context, ch *meta.Channel, f *meta.Frozen) error {
	key := []byte(w.c.cfg.Signer.PublicKeyArmored()) // it may have been renewed
	if ch.Key != w.c.cfg.Signer.Fingerprint() {
		var err error
		if key, err = cas.ReadAll(ctx, w.c.blobs, ch.KeyBlob, freeze.MaxSignature); err != nil {
			return err
		}
	}
	return w.frozenMirrors(ctx, f, repository{
		name: ch.Name, url: w.c.cfg.PublicURL + "/channel/" + ch.Name + "/", comment: "channel " + ch.Name + " of ", keys: keys{root: string(key)},
		expire: channelExpire,
	})
}

// frozenMirrors adds the mirrors of a freeze. like has the name, base URL and key of the
// freeze or channel that serves them, and the start of a comment.
func (w *sourcesWriter) frozenMirrors(ctx context.Context, f *meta.Frozen, like repository) error {
	base := like.url
	for i := range f.Mirrors {
		m := &f.Mirrors[i]
		one := like
		r := &one
		r.name, r.mirror, r.typ, r.url, r.suites = "snapd-"+like.name+"-"+string(m.Mirror), m.Mirror, m.Type, base+string(m.Mirror), m.Suites
		r.comment += string(m.Mirror)
		r.keys.rootURL = base + freeze.KeyFile
		r.keys.upstreamURL = base + path.Join(freeze.ProofDir, string(m.Mirror), freeze.CertificatesFile)
		if !m.Certificates.IsZero() {
			data, err := cas.ReadAll(ctx, w.c.blobs, m.Certificates, freeze.MaxCertificates)
			if err != nil {
				return err
			}
			r.keys.upstream = string(data)
		}
		if err := w.render(r); err != nil {
			return err
		}
	}
	return nil
}

// render formats a repository, unless the request is for another mirror or for a
// format that does not apply to this mirror.
func (w *sourcesWriter) render(r *repository) error {
	w.has = append(w.has, string(r.mirror))
	if w.req.Mirror != "" && meta.MirrorName(w.req.Mirror) != r.mirror {
		return nil
	}
	f, err := w.c.cfg.Formats.Of(r.typ)
	if err != nil {
		return err
	}
	kind := w.req.Format
	if kind == "" {
		kind = f.ClientKinds()[0]
	}
	if !slices.Contains(f.ClientKinds(), kind) {
		return nil
	}
	params := w.params(r)
	if params.KeyFiles, err = w.keyFiles(kind, r); err != nil {
		return err
	}
	text, err := f.ClientConfig(kind, params)
	if err != nil {
		return err
	}
	w.texts = append(w.texts, text)
	return nil
}

// params describes a repository to its format.
func (w *sourcesWriter) params(r *repository) repo.SourceParams {
	m, err := w.c.cat.Mirror(r.mirror)
	if err != nil {
		m = config.Mirror{Name: r.mirror, Type: r.typ} // imported, and not configured on this server
		if r.keys.upstream == "" {
			no := false
			m.GPGCheck = &no // packages are not verified, because there is no key
		}
	}
	p := repo.SourceParams{
		Mirror: m, URL: r.url, Name: r.name, KeyArmored: r.keys.root, Unsigned: r.unsigned, Comment: r.comment, Expire: r.expire,
		Components: map[repo.SuiteName][]string{}, NoSources: map[repo.SuiteName]bool{},
	}
	for _, s := range r.suites {
		if !slices.Contains(p.Suites, s.Suite) {
			p.Suites = append(p.Suites, s.Suite)
			p.NoSources[s.Suite] = true
		}
		p.Components[s.Suite] = s.Components
		if s.Sources {
			p.HasSources = true
			p.NoSources[s.Suite] = false
		}
		for _, a := range s.Archs {
			if !slices.Contains(p.Archs, a) {
				p.Archs = append(p.Archs, a)
			}
		}
	}
	return p
}

// keyFiles returns the names of the keys for configurations that cannot contain keys:
// files below KeysDir, which snapctl writes, or URLs on this server for configurations
// that accept those.
func (w *sourcesWriter) keyFiles(kind string, r *repository) ([]string, error) {
	dir := w.req.KeysDir
	if kind != "list" && kind != "repo" && dir == "" {
		return nil, nil
	}
	if kind == "list" && dir == "" {
		return nil, fmt.Errorf("%w: --format %s refers to key files: use --keys-dir to choose where to write them", freeze.ErrUsage, kind)
	}
	var out []string
	add := func(file, armored, url string) {
		switch {
		case armored == "":
			return
		case dir == "":
			out = append(out, url)
			return
		}
		if !slices.ContainsFunc(w.res.Keys, func(k api.KeyFile) bool { return k.Name == file }) {
			w.res.Keys = append(w.res.Keys, api.KeyFile{Name: file, Armored: armored})
		}
		out = append(out, path.Join(dir, file))
	}
	add(r.name+".asc", r.keys.root, r.keys.rootURL)
	if kind == "repo" && r.keys.upstream != r.keys.root {
		add("snapd-"+string(r.mirror)+"-packages.asc", r.keys.upstream, r.keys.upstreamURL)
	}
	return out, nil
}

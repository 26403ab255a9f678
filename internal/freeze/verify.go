package freeze

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// tree is where a frozen snapshot's files are: in the store, or in an exported
// directory.
type tree interface {
	// open opens a file of the frozen repository: <mirror>/<path>.
	open(ctx context.Context, path string) (io.ReadCloser, error)
	// each calls f for each file of a mirror's frozen repository with its size and,
	// where it is stored by digest, its digest.
	each(ctx context.Context, mirror string, f func(meta.Node) error) error
	// proof opens an upstream file that the proof rests on.
	proof(ctx context.Context, mirror string, f repo.File) (io.ReadCloser, error)
	// key is the certificate that checks the freeze's own signature.
	key(ctx context.Context) ([]byte, error)
	// certs are the certificates that verified a mirror's roots.
	certs(ctx context.Context, mirror string) ([]byte, error)
	// provenance are the local facts with their signature, nil where there is none.
	provenance(ctx context.Context) (data, sig []byte, err error)
	// pool tells the size of a whole mirror's package file, opening it if deep.
	pool(ctx context.Context, mirror string, f repo.File) (size int64, r io.ReadCloser, err error)
}

// VerifyOptions say how much is checked and by what.
type VerifyOptions struct {
	Name     string // the manifest must be of this freeze; empty: of any
	Deep     bool
	Upstream *sign.Keyring // roots must be signed by these; nil: by the kept certificates
	Ours     *sign.Keyring // the manifest must be signed by these
	Formats  []repo.Format
	Progress *mirror.Progress
}

// verifier checks one frozen snapshot.
type verifier struct {
	t       tree
	o       VerifyOptions
	formats map[string]repo.Format
	doc     *Document
	res     *api.VerifyResult
	mu      sync.Mutex
	proven  map[string]repo.File // of a directory: what may be imported
	blind   bool                 // a root that we should have signed could not be read
	buffers sync.Pool            // of *[256 << 10]byte, for hashing
	bytes   atomic.Int64
	files   atomic.Int64
}

func (v *verifier) fault(object, expected, found, format string, args ...any) {
	v.fieldFault("", object, expected, found, format, args...)
}

// fieldFault is a fault of one field of the manifest, such as
// "mirrors.packages.version".
func (v *verifier) fieldFault(field, object, expected, found, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.res.Faults = append(v.res.Faults, api.VerifyFault{Object: object, Field: field, Expected: expected, Found: found, Message: fmt.Sprintf(format, args...)})
}

// Verify proves a frozen snapshot of this server: our signature, every blob's
// presence (with Deep its digest), and for each package the chain from its
// stanza to the distribution's signature. No network is used.
// One that is removed meanwhile is not faulty but store.ErrNotFound.
func (z *Freezer) Verify(ctx context.Context, req *api.VerifyRequest, p *mirror.Progress) (res *api.VerifyResult, err error) {
	r, err := z.e.ResolveRef(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil && len(res.Faults) == 0 {
			return
		}
		if _, gone := z.e.ResolveRef(ctx, req.Ref); errors.Is(gone, meta.ErrNotFound) {
			res, err = nil, gone
		}
	}()
	o := VerifyOptions{Deep: req.Deep, Progress: p, Formats: z.formats()}
	if o.Upstream, err = parseKeys(req.UpstreamKeys); err != nil {
		return nil, err
	}
	if r.Snapshot != nil {
		return z.verifySnapshot(ctx, r.Snapshot, o)
	}
	f := r.Frozen
	data, err := cas.ReadAll(ctx, z.blobs, f.Manifest.SHA256, maxManifest)
	if err != nil {
		return faulty(req.Ref, "manifest.json", err), nil
	}
	sig, err := cas.ReadAll(ctx, z.blobs, f.Signature.SHA256, 1<<20)
	if err != nil {
		return faulty(req.Ref, "manifest.json.asc", err), nil
	}
	if o.Ours, err = parseKeys(req.Keys); err != nil {
		return nil, err
	}
	if o.Ours == nil {
		key, err := cas.ReadAll(ctx, z.blobs, f.KeyBlob, 1<<20)
		if err != nil {
			return faulty(req.Ref, "key.asc", err), nil
		}
		then, err := sign.ParseKeyring(key)
		if err != nil {
			return nil, err
		}
		o.Ours = sign.Merge(then, z.cfg.Signer.Keyring())
	}
	o.Name = f.Name
	res, err = verify(ctx, &ownTree{z: z, f: f}, data, sig, o)
	if err != nil {
		return nil, err
	}
	if err := z.metadataFaults(ctx, f, res); err != nil {
		return nil, err
	}
	for _, flt := range res.Faults {
		if d, err := cas.ParseDigest(flt.Expected); err == nil && req.Deep && strings.Contains(flt.Message, "bytes") {
			if cas.Check(ctx, z.blobs, d) != nil {
				_ = z.e.MarkCorrupt(ctx, d, "verify", flt.Message)
			}
		}
	}
	return res, nil
}

// metadataFaults adds what is wrong with the metadata that serves a freeze.
func (z *Freezer) metadataFaults(ctx context.Context, f *meta.Frozen, res *api.VerifyResult) error {
	damage, err := z.st.Verify(ctx)
	if err != nil {
		return err
	}
	for _, d := range damage {
		res.Faults = append(res.Faults, api.VerifyFault{Object: "metadata", Message: d.Error()})
	}
	faults, err := z.verifyTree(ctx, f)
	if err != nil {
		return err
	}
	if res.Faults = append(res.Faults, faults...); len(res.Faults) > 0 {
		res.Exit = api.ExitVerify
	}
	return nil
}

func faulty(ref, object string, err error) *api.VerifyResult {
	return &api.VerifyResult{Ref: ref, Exit: api.ExitVerify, Faults: []api.VerifyFault{{Object: object, Message: err.Error()}}}
}

func parseKeys(armored []string) (*sign.Keyring, error) {
	var rings []*sign.Keyring
	for _, a := range armored {
		k, err := sign.ParseKeyring([]byte(a))
		if err != nil {
			return nil, fmt.Errorf("%w: key: %w", ErrUsage, err)
		}
		rings = append(rings, k)
	}
	if len(rings) == 0 {
		return nil, nil
	}
	return sign.Merge(rings...), nil
}

func (z *Freezer) formats() []repo.Format { return z.e.Formats() }

// VerifyDir proves an exported directory with no server and no data directory:
// everything in it is read. Without Ours the key inside the directory is used,
// and the result says so.
func VerifyDir(ctx context.Context, dir string, o VerifyOptions) (*api.VerifyResult, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	v, err := verifyDir(ctx, &dirTree{root: root}, dir, o)
	if err != nil {
		return nil, err
	}
	return v.res, nil
}

// verifyDir is VerifyDir that returns what was found besides: the manifest, and
// the files with the digests that were proven.
func verifyDir(ctx context.Context, t *dirTree, dir string, o VerifyOptions) (*verifier, error) {
	data, err := t.read(manifestFile, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("%s is not an exported frozen snapshot: %w", dir, err)
	}
	faulty := func(object string, err error) (*verifier, error) {
		return &verifier{res: faulty(dir, object, err)}, nil
	}
	sig, err := t.read(manifestSignature, maxSignature)
	if err != nil {
		return faulty(manifestSignature, err)
	}
	key, err := t.read(keyFile, maxSignature)
	if err != nil {
		return faulty(keyFile, err)
	}
	inside, err := sign.ParseKeyring(key)
	if err != nil {
		return faulty(keyFile, err)
	}
	note := ""
	if o.Ours == nil {
		o.Ours = inside
		note = "the freeze's own signature was checked by the key in the directory (" + strings.Join(inside.Fingerprints(), ", ") + "): compare it with one from a place that you trust, or name it with --key"
	}
	o.Deep = true
	v := newVerifier(t, o)
	v.prove(manifestFile, data)
	v.prove(manifestSignature, sig)
	v.prove(keyFile, key)
	if err := v.run(ctx, data, sig); err != nil {
		return nil, err
	}
	if _, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: inside}); err != nil && note == "" {
		v.fault(keyFile, "", "", "the certificate in the directory does not check the signature of the frozen manifest: %v", err)
		v.res.Exit = api.ExitVerify
	}
	if note != "" {
		v.res.Notes = append(v.res.Notes, note)
	}
	v.res.Ref = dir
	return v, nil
}

func newVerifier(t tree, o VerifyOptions) *verifier {
	v := &verifier{t: t, o: o, formats: map[string]repo.Format{}, proven: map[string]repo.File{}, res: &api.VerifyResult{Deep: o.Deep, Relied: []api.Relied{}, Faults: []api.VerifyFault{}}}
	for _, f := range o.Formats {
		v.formats[f.Type()] = f
	}
	if v.o.Progress == nil {
		v.o.Progress = &mirror.Progress{}
	}
	return v
}

// prove notes a file that an import may take as it is.
func (v *verifier) prove(path string, data []byte) {
	v.proveFile(path, int64(len(data)), cas.Sum(data))
}

func (v *verifier) proveFile(path string, size int64, d cas.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.proven[path] = repo.File{Path: path, Size: size, SHA256: d}
}

func verify(ctx context.Context, t tree, data, sig []byte, o VerifyOptions) (*api.VerifyResult, error) {
	v := newVerifier(t, o)
	err := v.run(ctx, data, sig)
	return v.res, err
}

// run proves the freeze of a manifest and its signature.
func (v *verifier) run(ctx context.Context, data, sig []byte) error {
	v.o.Progress.SetPhase("verifying")
	doc, err := ParseDocument(data)
	if err != nil {
		field := ""
		if errors.Is(err, errFormat) {
			field = "format"
		}
		v.fieldFault(field, "manifest.json", "", "", "%v", err)
		v.res.Exit = api.ExitVerify
		return nil
	}
	v.doc, v.res.Ref = doc, doc.Name
	statements, err := v.readStatements(ctx)
	if err != nil {
		return err
	}
	// Keys are judged at the signature's own time: one that has expired since was
	// good then, and whoever gives a later one vouches for it.
	s, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: v.o.Ours})
	if errors.Is(err, sign.ErrUnknownKey) {
		if both := v.vouched(ctx, v.o.Ours, doc, data, statements); both != nil {
			v.o.Ours = both
			v.res.Notes = append(v.res.Notes, "the manifest is signed by an earlier key, for which a statement by the given one vouches")
			s, err = sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: both})
		}
	}
	if err != nil {
		v.fault("manifest.json.asc", "a signature by "+strings.Join(v.o.Ours.Fingerprints(), ", "), "", "signature of the frozen manifest: %v", err)
	} else {
		g := s.Good[0]
		v.res.Signature = &api.Signer{Fingerprint: g.Fingerprint, UserID: g.UserID, SignedAt: g.Created}
	}
	v.checkStatements(statements, doc, cas.Sum(data))
	v.documentFields(doc)
	v.checkProvenance(ctx, doc, cas.Sum(data))
	names := map[string]bool{}
	for i := range doc.Mirrors {
		name := doc.Mirrors[i].Name
		if names[name] || !config.ValidMirrorName(name) {
			v.fieldFault("mirrors.name", "manifest.json", "", name, "mirror %q: its name is another mirror's, a file's or no name at all", name)
			continue
		}
		names[name] = true
		if err := v.mirror(ctx, &doc.Mirrors[i]); err != nil {
			return err
		}
	}
	if d, ok := v.t.(*dirTree); ok {
		if err := v.unexpectedFiles(ctx, d); err != nil {
			return err
		}
	}
	v.res.Bytes, v.res.Files = v.bytes.Load(), int(v.files.Load())
	// What all else rests on comes first.
	rank := func(f api.VerifyFault) int {
		if strings.HasPrefix(f.Object, "manifest.json") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(v.res.Faults, func(a, b api.VerifyFault) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Object, b.Object))
	})
	if len(v.res.Faults) > 0 {
		v.res.Exit = api.ExitVerify
	}
	return ctx.Err()
}

// maxStatements bounds the statements beside a manifest, in bytes.
const maxStatements = 256 << 20

// maxSignature bounds a signature, a statement and the key of a freeze, in bytes.
const maxSignature = 1 << 20

// readStatements reads the signed statements beside the manifest, by path.
func (v *verifier) readStatements(ctx context.Context) (map[string][]byte, error) {
	have := map[string][]byte{}
	left := int64(maxStatements)
	err := v.t.each(ctx, statementDir, func(n meta.Node) error {
		if n.Size > maxSignature {
			v.fault(n.Path, fmt.Sprintf("at most %d", maxSignature), fmt.Sprint(n.Size), "size of a statement in bytes")
			return nil
		}
		if left -= n.Size; left < 0 {
			return fmt.Errorf("%w: statements of more than %d bytes in all", ErrVerify, int64(maxStatements))
		}
		data, err := v.readAll(ctx, n.Path, n.Size)
		if err != nil {
			v.fault(n.Path, "", "", "%v", err)
			return nil
		}
		have[n.Path] = data
		v.prove(n.Path, data)
		return nil
	})
	return have, err
}

// readAll reads a file of the frozen repository that has the given size.
func (v *verifier) readAll(ctx context.Context, path string, size int64) ([]byte, error) {
	r, err := v.t.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(regfile.WithContext(ctx, r), size+1))
	if err == nil && int64(len(data)) != size {
		err = &sizeError{path, size, int64(len(data))}
	}
	return data, err
}

// checkStatements checks their signatures. One by a later key of the server is
// no fault where only the earlier is known: it adds to the proof, nothing rests
// on it.
func (v *verifier) checkStatements(have map[string][]byte, doc *Document, manifest cas.Digest) {
	for _, name := range slices.Sorted(maps.Keys(have)) {
		data := have[name]
		if strings.HasSuffix(name, ".asc") {
			if _, ok := have[strings.TrimSuffix(name, ".asc")]; !ok {
				v.fault(name, "", "", "signature of a statement that is not there")
			}
			continue
		}
		sig, ok := have[name+".asc"]
		if !ok {
			v.fault(name+".asc", "", "", "the signature of the statement is missing")
			continue
		}
		_, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: v.o.Ours})
		if errors.Is(err, sign.ErrUnknownKey) && strings.HasPrefix(name, statementDir+"/signature-") {
			v.res.Notes = append(v.res.Notes, name+" is by a later key, which is not among those given")
			continue
		}
		if err != nil {
			v.fault(name, strings.Join(v.o.Ours.Fingerprints(), ", "), "", "signature of the statement: %v", err)
			continue
		}
		v.checkStatement(name, data, doc, manifest)
	}
}

// checkStatement checks that a statement is canonical and about this freeze.
func (v *verifier) checkStatement(name string, data []byte, doc *Document, manifest cas.Digest) {
	var s Statement
	if err := decodeCanonical(data, &s); err != nil {
		v.fault(name, "", "", "statement: %v", err)
		return
	}
	if s.Freeze != doc.Name {
		v.fieldFault("name", name, s.Freeze, doc.Name, "name of the frozen snapshot, and that in a statement")
	}
	if s.Manifest != manifest {
		v.fault(name, manifest.String(), s.Manifest.String(), "the statement is about another manifest")
	}
}

// unexpectedFiles finds what does not belong into an exported directory: files
// that nothing names, and whatever is neither a file nor a directory. What is in
// frozen repositories was looked at already.
func (v *verifier) unexpectedFiles(ctx context.Context, d *dirTree) error {
	known := map[string]bool{manifestFile: true, manifestSignature: true, provenanceFile: true, provSignature: true, keyFile: true, proofDir: true, statementDir: true}
	for i := range v.doc.Mirrors {
		m := &v.doc.Mirrors[i]
		known[m.Name] = true
		dir := proofDir + "/" + m.Name
		known[dir], known[dir+"/"+certsFile] = true, true
		for _, f := range proofFiles(m) {
			known[dir+"/"+f.SHA256.String()] = true
		}
	}
	return fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if t := e.Type(); !t.IsDir() && !t.IsRegular() {
			v.fault(name, "a regular file", regfile.Kind(t), "a file that does not belong to the export")
			return nil
		}
		top, _, below := strings.Cut(name, "/")
		if known[name] || below && top != proofDir {
			return nil
		}
		v.fault(name, "", "", "a file that does not belong to the export")
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

func (v *verifier) mirror(ctx context.Context, d *DocMirror) error {
	f, ok := v.mirrorFields(d)
	if !ok {
		return nil
	}
	p := v.newMirrorProof(f, d)
	p.keyrings(ctx)
	packages, sources := tally(d, f.SourceArch())
	v.res.Packages += packages
	v.res.Sources += sources
	v.res.Places += len(d.Packages) + len(d.Sources)
	for i := range d.Suites {
		if err := p.suite(ctx, &d.Suites[i]); err != nil {
			return err
		}
	}
	p.unproven()
	return v.repository(ctx, p)
}

func (v *verifier) drain(ctx context.Context, open func(context.Context, repo.Listed) (io.ReadCloser, error), l repo.Listed) error {
	r, err := open(ctx, l)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// packageFile checks that a whole mirror's package is here or named as missing, and
// its bytes if deep.
func (v *verifier) packageFile(ctx context.Context, format repo.Format, mir string, r *repo.Record, f repo.File) {
	size, body, err := v.t.pool(ctx, mir, f)
	object := fmt.Sprintf("%s: %s %s %s", mir, r.Name, r.Version, r.Arch)
	if err != nil && (errors.Is(err, cas.ErrNotFound) || errors.Is(err, fs.ErrNotExist)) && v.mayMiss(missingStanza(format, r)) {
		return // upstream did not have it when the freeze was made
	}
	if err != nil {
		v.fault(object, digestText(f), "", "%s: %v", f.Path, err)
		return
	}
	v.files.Add(1)
	if body != nil {
		defer body.Close()
	}
	if size != f.Size {
		v.fault(object, fmt.Sprint(f.Size), fmt.Sprint(size), "%s: size in bytes", f.Path)
		return
	}
	var found cas.Digest
	if body != nil && v.o.Deep {
		found = v.hash(ctx, object, f, body)
	}
	if _, ok := v.t.(*dirTree); ok {
		if !f.SHA256.IsZero() {
			found = f.SHA256
		}
		v.proveFile(mir+"/"+f.Path, f.Size, found)
	}
}

// hash reads a file whole, compares its digests, and returns that by SHA-256.
func (v *verifier) hash(ctx context.Context, object string, f repo.File, r io.Reader) cas.Digest {
	h := sha256.New()
	var w io.Writer = h
	var h512 hash.Hash
	if f.SHA512 != "" {
		h512 = repo.NewStrong(f.SHA512)
		w = io.MultiWriter(h, h512)
	}
	b, _ := v.buffers.Get().(*[256 << 10]byte)
	if b == nil {
		b = new([256 << 10]byte)
	}
	defer v.buffers.Put(b)
	buf := b[:]
	for left := f.Size; ctx.Err() == nil; {
		n, err := r.Read(buf)
		if left -= int64(n); left < 0 {
			v.fault(object, fmt.Sprint(f.Size), "more", "%s: size in bytes", f.Path)
			return cas.Digest{}
		}
		w.Write(buf[:n])
		v.bytes.Add(int64(n))
		v.o.Progress.Bytes.Add(int64(n))
		if err == io.EOF {
			break
		} else if err != nil {
			v.fault(object, digestText(f), "", "%s: bytes cannot be read: %v", f.Path, err)
			return cas.Digest{}
		}
	}
	if ctx.Err() != nil {
		return cas.Digest{}
	}
	got := cas.Digest(h.Sum(nil))
	if !f.SHA256.IsZero() && got != f.SHA256 {
		v.fault(object, f.SHA256.String(), got.String(), "%s: bytes do not have the digest", f.Path)
	} else if h512 != nil {
		if got := hex.EncodeToString(h512.Sum(nil)); got != f.SHA512 {
			v.fault(object, f.SHA512, got, "%s: bytes do not have upstream's digest", f.Path)
			return cas.Digest{}
		}
	}
	return got
}

// digestText is the digest by which a file is known, for a message.
func digestText(f repo.File) string {
	if f.SHA256.IsZero() {
		return f.SHA512
	}
	return f.SHA256.String()
}

func (v *verifier) proofBytes(ctx context.Context, mir string, f repo.File, max int64) ([]byte, error) {
	if f.Size < 0 || f.Size > max {
		return nil, fmt.Errorf("expected at most %d bytes: %w", max, &sizeError{f.Path, f.Size, -1})
	}
	r, err := v.proofReader(ctx, mir, f)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// proofReader reads an upstream file; its size and digest are checked.
func (v *verifier) proofReader(ctx context.Context, mir string, f repo.File) (io.ReadCloser, error) {
	r, err := v.t.proof(ctx, mir, f)
	if err != nil {
		return nil, err
	}
	v.files.Add(1)
	v.proveFile(path.Join(proofDir, mir, f.SHA256.String()), f.Size, f.SHA256)
	return &digestReader{ctx: ctx, r: r, f: f, left: f.Size, sum: sha256.New(), v: v}, nil
}

// digestReader reads a file of known size and digest, and no byte more.
type digestReader struct {
	ctx  context.Context
	r    io.ReadCloser
	f    repo.File
	left int64
	sum  hash.Hash
	v    *verifier
}

func (d *digestReader) Read(p []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := d.r.Read(p)
	d.sum.Write(p[:n])
	d.v.bytes.Add(int64(n))
	if d.left -= int64(n); d.left < 0 {
		return 0, &sizeError{d.f.Path, d.f.Size, -1}
	}
	if err == io.EOF {
		if d.left != 0 {
			return n, &sizeError{d.f.Path, d.f.Size, d.f.Size - d.left}
		}
		if got := cas.Digest(d.sum.Sum(nil)); got != d.f.SHA256 {
			return n, fmt.Errorf("%w: %s: bytes have SHA-256 %s, expected %s", repo.ErrMismatch, d.f.Path, got, d.f.SHA256)
		}
	}
	return n, err
}

func (d *digestReader) Close() error { return d.r.Close() }

// repository checks the frozen repository itself: signed by us, listing exactly
// what is served, and holding the manifest's packages, no more and no fewer.
func (v *verifier) repository(ctx context.Context, p *mirrorProof) error {
	d := p.d
	have := map[string]meta.Node{}
	if err := v.t.each(ctx, d.Name, func(n meta.Node) error {
		have[strings.TrimPrefix(n.Path, d.Name+"/")] = n
		return nil
	}); err != nil {
		return err
	}
	known := map[string]cas.Digest{}
	sizes := map[string]int64{}
	sha512s := map[string]sha512File{} // by path
	if len(have) == 0 {
		v.fieldFault("mirrors.name", d.Name, "", d.Name, "there is no frozen repository of this mirror")
		return nil
	}
	for _, l := range p.want {
		for _, file := range l.files {
			v.claim(d, known, file.Path, file.SHA256)
			sizes[file.Path] = file.Size
			if file.SHA512 != "" {
				field := l.field + ".sha256"
				if l.field == "mirrors.sources" {
					field = l.field + ".files.sha256"
				}
				sha512s[file.Path] = sha512File{repo.File{Path: file.Path, Size: file.Size, SHA512: file.SHA512}, field}
			}
			if _, ok := have[file.Path]; !ok {
				v.fault(p.packageObject(l.name, l.version, l.arch), file.SHA256.String(), "", "%s is missing from the frozen repository", file.Path)
			}
		}
	}
	suites := map[repo.SuiteName]bool{}
	var names []repo.SuiteName
	for _, s := range d.Suites {
		if !suites[s.Suite] {
			suites[s.Suite] = true
			names = append(names, s.Suite)
		}
	}
	for _, suite := range names {
		if err := v.ownSuite(ctx, p, suite, have, known, sizes); err != nil {
			return err
		}
	}
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	seen := map[cas.Digest]bool{}
	paths := make([]string, 0, len(have))
	for p := range have {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, name := range paths {
		n := have[name]
		object := d.Name + ": " + name
		digest, ok := known[name]
		if !ok {
			if d.Kind == Whole && !n.Digest.IsZero() {
				continue // names of packages; they were checked with their indices
			}
			if d.Kind == Whole && v.wholeKnows(name) {
				continue
			}
			if v.blind {
				continue // without a signed index nothing says which files belong
			}
			v.fault(object, "", "", "the frozen repository has a file that neither its manifest nor its signed index names")
			continue
		}
		if !n.Digest.IsZero() && n.Digest != digest {
			v.fault(object, digest.String(), n.Digest.String(), "the file has another digest")
			continue
		}
		if size, ok := sizes[name]; ok && size >= 0 && n.Size != size {
			v.fault(object, fmt.Sprint(size), fmt.Sprint(n.Size), "size in bytes")
			continue
		}
		v.files.Add(1)
		v.proveFile(n.Path, n.Size, digest)
		if !n.Digest.IsZero() && seen[n.Digest] {
			continue
		}
		seen[n.Digest] = true
		eg.Go(func() error {
			r, err := v.t.open(egctx, n.Path)
			if err != nil {
				v.fault(object, digest.String(), "", "%v", err)
				return nil
			}
			defer r.Close()
			if v.o.Deep {
				if by512, ok := sha512s[name]; ok {
					if found := v.hash(egctx, object, by512.File, r); found != digest && !found.IsZero() {
						v.fieldFault(by512.field, object, found.String(), digest.String(), "SHA-256 of a file that upstream knows by its SHA-512")
					}
					return nil
				}
				v.hash(egctx, object, repo.File{Path: name, Size: n.Size, SHA256: digest}, r)
			}
			return nil
		})
	}
	return eg.Wait()
}

// sha512File is a file that upstream knows by SHA-512 alone, and the field that says
// its SHA-256.
type sha512File struct {
	repo.File
	field string
}

// claim notes what is at a path of the frozen repository: only one file can be.
func (v *verifier) claim(d *DocMirror, known map[string]cas.Digest, p string, sum cas.Digest) {
	if have, ok := known[p]; ok && have != sum {
		a, b := min(have.String(), sum.String()), max(have.String(), sum.String())
		v.fault(d.Name+": "+p, "one file", "files with SHA-256 "+a+" and "+b, "two files have one path")
	}
	known[p] = sum
}

// wholeKnows reports whether a whole mirror's indices named a package path.
func (v *verifier) wholeKnows(p string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return wholePaths(v.t)[p]
}

// ownSuite checks the root that we signed and the indices that it lists.
func (v *verifier) ownSuite(ctx context.Context, p *mirrorProof, suite repo.SuiteName, have map[string]meta.Node, known map[string]cas.Digest, sizes map[string]int64) error {
	f, d, upstream := p.f, p.d, p.signed[suite]
	object := fmt.Sprintf("%s: frozen suite %s", d.Name, suite)
	m := everything(d.Name, d.Type, suite)
	root, docs, err := v.ownRoot(ctx, f, m, suite, d.Name, have)
	if err != nil {
		v.fault(object, "", "", "%v", err)
		v.blind = true
		return nil
	}
	for _, doc := range docs {
		v.claim(d, known, doc.Path, cas.Sum(doc.Data))
		sizes[doc.Path] = int64(len(doc.Data))
	}
	if at := fmt.Sprint(v.doc.Date.Unix()); derivedAt(root) != at {
		v.fieldFault("date", object, derivedAt(root), at, "date of the freeze, in seconds since 1970, and that of its signed index")
	}
	dir := f.SuiteDir(suite)
	for _, l := range root.Files {
		name := dir + l.Path
		_, ok := have[name]
		hash := f.HashName(name, l.SHA256)
		if _, named := have[hash]; named {
			v.claim(d, known, hash, l.SHA256)
			sizes[hash] = l.Size
		} else if ok && root.ByHash && hash != "" {
			v.fault(d.Name+": "+hash, l.SHA256.String(), "", "the name by hash of %s is not there", l.Path)
		}
		if !ok {
			if d.Kind == Whole && v.plainOnly(root, l, have, dir) {
				continue // the plain form of an index, listed for clients that compare it
			}
			v.fault(d.Name+": "+name, l.SHA256.String(), "", "the signed index lists a file that is not there")
			continue
		}
		v.claim(d, known, name, l.SHA256)
		sizes[name] = l.Size
		if d.Kind == Whole {
			if want, ok := upstream[l.Path]; !ok || want != l.SHA256 {
				v.fault(d.Name+": "+name, want.String(), l.SHA256.String(), "the frozen index is not upstream's")
			}
		}
	}
	if d.Kind == Whole {
		return v.ownIndices(f, d, suite, root, func(l repo.Listed) bool { _, ok := have[dir+l.Path]; return ok })
	}
	// The indices of an exact freeze list the manifest's packages and no others.
	groups, err := f.Plan(m, root)
	if err != nil {
		v.fault(object, "", "", "%v", err)
		return nil
	}
	left := map[spot]*listing{}
	for k, l := range p.want {
		if k.suite == suite {
			left[k] = l
		}
	}
	open := func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		r, err := v.t.open(ctx, d.Name+"/"+dir+l.Path)
		if err != nil {
			return nil, err
		}
		return &digestReader{ctx: ctx, r: r, f: repo.File{Path: dir + l.Path, Size: l.Size, SHA256: l.SHA256}, left: l.Size, sum: sha256.New(), v: v}, nil
	}
	for _, g := range groups {
		if !g.Packages {
			continue
		}
		var form *repo.Listed
		for i := range g.Forms {
			if _, ok := have[dir+g.Forms[i].Path]; ok && (form == nil || g.Forms[i].Path == g.Index) {
				form = &g.Forms[i]
			}
		}
		if form == nil {
			v.fault(object, "", "", "no form of index %s is there", g.Index)
			continue
		}
		err := f.Read(ctx, root, g, *form, open, func(r *repo.Record) error {
			if r.Kind == repo.KindUnusable {
				v.fault(p.packageObject(r.Name, r.Version, r.Arch), "", "", "the frozen index %s lists what no client can install: %s", g.Index, r.Reason)
				return nil
			}
			k := spot{suite, g.Index, paragraphOf(r)}
			if len(p.want) == 0 {
				v.fieldFault("mirrors.kind", p.packageObject(r.Name, r.Version, r.Arch), "", d.Kind, "the frozen index %s lists a package, and the manifest has none of this mirror", g.Index)
			} else if l := p.want[k]; l == nil || len(l.differences(g, r)) > 0 {
				v.fault(p.packageObject(r.Name, r.Version, r.Arch), "", "", "the frozen index %s lists a package that is not in the manifest", g.Index)
			}
			delete(left, k)
			return nil
		})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.fault(object, form.SHA256.String(), "", "index %s: %v", form.Path, err)
			return nil
		}
	}
	for k, l := range left {
		v.fieldFault(l.field+".index", p.packageObject(l.name, l.version, l.arch), "", "", "the package is in the manifest but not in the frozen index %s", k.index)
	}
	return nil
}

// ownIndices checks that the manifest names each index that a whole mirror's
// frozen suite serves: what others list was not proven.
func (v *verifier) ownIndices(f repo.Format, d *DocMirror, suite repo.SuiteName, root *repo.Root, served func(repo.Listed) bool) error {
	groups, err := f.Plan(everyIndex(d.Name, d.Type, suite), root)
	if err != nil {
		v.fault(fmt.Sprintf("%s: frozen suite %s", d.Name, suite), "", "", "%v", err)
		return nil
	}
	for _, g := range groups {
		if slices.ContainsFunc(g.Forms, served) && !slices.ContainsFunc(d.Suites, func(s DocSuite) bool {
			return s.Suite == suite && slices.ContainsFunc(s.Indices, func(i DocIndex) bool { return i.Index == g.Index })
		}) {
			v.fieldFault("mirrors.suites.indices", fmt.Sprintf("%s: frozen suite %s", d.Name, suite), g.Index, "", "index %s is served but not in the manifest", g.Index)
		}
	}
	return nil
}

// everything is a configuration that selects every package index of a suite.
func everything(name, typ string, suite repo.SuiteName) config.Mirror {
	return config.Mirror{Name: name, Type: typ, Suites: []string{string(suite)}, Sources: true, Udebs: true}
}

// plainOnly reports whether l is the plain form of a file that is there in
// another form.
func (v *verifier) plainOnly(root *repo.Root, l repo.Listed, have map[string]meta.Node, dir string) bool {
	for _, o := range root.Files {
		if o.Path != l.Path && strings.HasPrefix(o.Path, l.Path+".") {
			if _, ok := have[dir+o.Path]; ok {
				return true
			}
		}
	}
	return false
}

// maxOwnDocument bounds a document that we signed, in bytes.
const maxOwnDocument = 64 << 20

// ownRoot reads and checks the documents of a suite that we signed.
func (v *verifier) ownRoot(ctx context.Context, f repo.Format, m config.Mirror, suite repo.SuiteName, mir string, have map[string]meta.Node) (*repo.Root, []repo.Doc, error) {
	var all []repo.Doc
	var root *repo.Root
	for _, set := range f.RootDocs(suite) {
		var docs []repo.Doc
		for _, p := range set {
			n, ok := have[p]
			if !ok {
				return nil, nil, fmt.Errorf("signed document %s: %w", p, ErrMissing)
			}
			if n.Size > maxOwnDocument {
				return nil, nil, fmt.Errorf("signed document %s: %d bytes, expected at most %d", p, n.Size, maxOwnDocument)
			}
			data, err := v.readAll(ctx, mir+"/"+p, n.Size)
			if err != nil {
				return nil, nil, err
			}
			docs = append(docs, repo.Doc{Path: p, Data: data})
		}
		all = append(all, docs...)
		r, err := f.ParseRoot(m, suite, docs, repo.VerifyParams{Keyring: v.o.Ours})
		if err != nil {
			return nil, nil, fmt.Errorf("our signature: %w", err)
		}
		if root != nil && !slices.EqualFunc(root.Files, r.Files, func(a, b repo.Listed) bool { return a.Path == b.Path && a.SHA256 == b.SHA256 && a.Size == b.Size }) {
			return nil, nil, errors.New("the signed documents list different files")
		}
		root = r
	}
	if root == nil {
		return nil, nil, fmt.Errorf("no signed root of suite %s: %w", suite, ErrMissing)
	}
	return root, all, nil
}

// readTree reads the package indices of a frozen tree.
func (z *Freezer) readTree(ctx context.Context, t tree, f *meta.Frozen, fm *meta.FrozenMirror, emit func(repo.SuiteName, repo.Group, *repo.Record) error) error {
	format, err := z.e.Format(fm.Type)
	if err != nil {
		return err
	}
	key, err := cas.ReadAll(ctx, z.blobs, f.KeyBlob, 1<<20)
	if err != nil {
		return err
	}
	kr, err := sign.ParseKeyring(key)
	if err != nil {
		return err
	}
	v := newVerifier(t, VerifyOptions{Ours: kr})
	have := map[string]meta.Node{}
	if err := t.each(ctx, fm.Mirror, func(n meta.Node) error {
		have[strings.TrimPrefix(n.Path, fm.Mirror+"/")] = n
		return nil
	}); err != nil {
		return err
	}
	done := map[repo.SuiteName]bool{}
	for _, s := range fm.Suites {
		if done[s.Suite] {
			continue
		}
		done[s.Suite] = true
		m := everything(fm.Mirror, fm.Type, s.Suite)
		root, _, err := v.ownRoot(ctx, format, m, s.Suite, fm.Mirror, have)
		if err != nil {
			return err
		}
		groups, err := format.Plan(m, root)
		if err != nil {
			return err
		}
		dir := format.SuiteDir(s.Suite)
		open := func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
			return t.open(ctx, fm.Mirror+"/"+dir+l.Path)
		}
		for _, g := range groups {
			if !g.Packages {
				continue
			}
			for _, form := range g.Forms {
				if _, ok := have[dir+form.Path]; !ok {
					continue
				}
				if err := format.Read(ctx, root, g, form, open, func(r *repo.Record) error {
					if r.Kind == repo.KindUnusable {
						return nil
					}
					return emit(s.Suite, g, r)
				}); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// ownTree is a frozen snapshot of this server.
type ownTree struct {
	z *Freezer
	f *meta.Frozen
}

func (t *ownTree) open(ctx context.Context, p string) (io.ReadCloser, error) {
	var n meta.Node
	err := t.z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		n, err = tx.Node(t.f.Name, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := t.z.e.Corrupt(n.Digest); err != nil {
		return nil, err
	}
	return t.z.blobs.Open(ctx, n.Digest)
}

func (t *ownTree) each(ctx context.Context, mir string, f func(meta.Node) error) error {
	after := ""
	for {
		var nodes []meta.Node
		err := t.z.st.View(ctx, func(tx *bolt.Tx) error {
			nodes = tx.Nodes(t.f.Name, mir+"/", after, 2000)
			return nil
		})
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if err := f(n); err != nil {
				return err
			}
		}
		if len(nodes) < 2000 {
			return nil
		}
		after = nodes[len(nodes)-1].Path
	}
}

func (t *ownTree) proof(ctx context.Context, _ string, f repo.File) (io.ReadCloser, error) {
	if err := t.z.e.Corrupt(f.SHA256); err != nil {
		return nil, err
	}
	return t.z.blobs.Open(ctx, f.SHA256)
}

func (t *ownTree) provenance(ctx context.Context) (data, sig []byte, err error) {
	if data, err = cas.ReadAll(ctx, t.z.blobs, t.f.Prov.SHA256, maxProvenance); err != nil {
		return nil, nil, err
	}
	if d := t.f.ProvSignature.SHA256; !d.IsZero() {
		sig, err = cas.ReadAll(ctx, t.z.blobs, d, maxSignature)
	}
	return data, sig, err
}

func (t *ownTree) key(ctx context.Context) ([]byte, error) {
	return cas.ReadAll(ctx, t.z.blobs, t.f.KeyBlob, 1<<20)
}

func (t *ownTree) certs(ctx context.Context, mir string) ([]byte, error) {
	for _, m := range t.f.Mirrors {
		if m.Mirror == mir && !m.Certificates.IsZero() {
			return cas.ReadAll(ctx, t.z.blobs, m.Certificates, 16<<20)
		}
	}
	return nil, nil
}

func (t *ownTree) pool(ctx context.Context, mir string, f repo.File) (int64, io.ReadCloser, error) {
	if f.SHA256.IsZero() {
		err := t.z.st.View(ctx, func(tx *bolt.Tx) (err error) {
			if t.f != nil { // an imported freeze has a node for each file
				if n, err := tx.Node(t.f.Name, mir+"/"+f.Path); err == nil {
					f.SHA256 = n.Digest
					return nil
				} else if !errors.Is(err, meta.ErrNotFound) {
					return err
				}
			}
			f.SHA256, err = tx.Alias(meta.AliasSHA512, []byte(f.SHA512))
			return err
		})
		if errors.Is(err, meta.ErrNotFound) {
			err = fmt.Errorf("SHA-512 %s: %w", f.SHA512, cas.ErrNotFound)
		}
		if err != nil {
			return 0, nil, err
		}
	}
	if err := t.z.e.Corrupt(f.SHA256); err != nil {
		return 0, nil, err
	}
	info, err := t.z.blobs.Stat(ctx, f.SHA256)
	if err != nil {
		return 0, nil, err
	}
	return info.Size, &lazyBlob{ctx: ctx, s: t.z.blobs, d: f.SHA256}, nil
}

// lazyBlob opens a blob at the first read: a shallow check never does.
type lazyBlob struct {
	ctx context.Context
	s   cas.Store
	d   cas.Digest
	b   cas.Blob
}

func (l *lazyBlob) Read(p []byte) (int, error) {
	if l.b == nil {
		var err error
		if l.b, err = l.s.Open(l.ctx, l.d); err != nil {
			return 0, err
		}
	}
	return l.b.Read(p)
}

func (l *lazyBlob) Close() error {
	if l.b != nil {
		return l.b.Close()
	}
	return nil
}

// dirTree is an exported directory. Its layout is described in FORMAT.md.
type dirTree struct {
	root  *os.Root
	mu    sync.Mutex
	whole map[string]bool // package paths that a whole mirror's indices named
}

// Names in an export. No mirror's name begins with an underscore.
const (
	manifestFile      = "manifest.json"
	manifestSignature = "manifest.json.asc"
	keyFile           = "key.asc"
	proofDir          = "_proof"
	statementDir      = "_statements"
	certsFile         = "keys.asc"
)

func (t *dirTree) read(name string, max int64) ([]byte, error) {
	return regfile.ReadIn(t.root, name, max)
}

func (t *dirTree) open(_ context.Context, p string) (io.ReadCloser, error) {
	return regfile.OpenIn(t.root, p)
}

// openSized opens a file that has the listed size.
func (t *dirTree) openSized(p string, size int64) (io.ReadCloser, error) {
	f, err := regfile.OpenIn(t.root, p)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != size {
		err = &sizeError{p, size, st.Size()}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (t *dirTree) provenance(context.Context) (data, sig []byte, err error) {
	if data, err = t.read(provenanceFile, maxProvenance); err != nil {
		return nil, nil, err
	}
	sig, err = t.read(provSignature, maxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		sig, err = nil, nil
	}
	return data, sig, err
}

func (t *dirTree) each(ctx context.Context, mir string, f func(meta.Node) error) error {
	return fs.WalkDir(t.root.FS(), mir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && p == mir {
				return nil
			}
			return err
		}
		if d.IsDir() {
			return ctx.Err()
		}
		if !d.Type().IsRegular() {
			return nil // reported by unexpectedFiles
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		return f(meta.Node{Path: p, Size: st.Size()})
	})
}

func (t *dirTree) proof(_ context.Context, mir string, f repo.File) (io.ReadCloser, error) {
	return t.openSized(path.Join(proofDir, mir, f.SHA256.String()), f.Size)
}

func (t *dirTree) key(context.Context) ([]byte, error) { return t.read(keyFile, maxSignature) }

func (t *dirTree) certs(_ context.Context, mir string) ([]byte, error) {
	data, err := t.read(path.Join(proofDir, mir, certsFile), 16<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (t *dirTree) pool(_ context.Context, mir string, f repo.File) (int64, io.ReadCloser, error) {
	t.mu.Lock()
	if t.whole == nil {
		t.whole = map[string]bool{}
	}
	t.whole[f.Path] = true
	t.mu.Unlock()
	file, err := regfile.OpenIn(t.root, path.Join(mir, f.Path))
	if err != nil {
		return 0, nil, err
	}
	st, err := file.Stat()
	if err != nil {
		file.Close()
		return 0, nil, err
	}
	return st.Size(), file, nil
}

func wholePaths(t tree) map[string]bool {
	if d, ok := t.(*dirTree); ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.whole
	}
	return nil
}

// verifySnapshot proves a snapshot of a mirror: its signed roots and indices,
// and the packages that are here.
func (z *Freezer) verifySnapshot(ctx context.Context, snap *meta.Snapshot, o VerifyOptions) (*api.VerifyResult, error) {
	pl := &plan{
		req: &api.FreezeRequest{Name: snap.Mirror}, sources: map[string][]*source{}, whole: map[string]bool{snap.Mirror: true},
		picks: map[string][]*pick{}, proof: map[string][]carried{},
	}
	pl.use(snap)
	d, err := z.docMirror(ctx, pl, snap.Mirror)
	if err != nil {
		return nil, err
	}
	v := newVerifier(&heldTree{ownTree{z: z}, snap}, o)
	v.res.Ref = snap.ID()
	f := v.formats[d.Type]
	kr := o.Upstream
	if kr == nil {
		batch := z.blobs.NewBatch()
		defer batch.Discard()
		dg, err := z.joinCerts(ctx, pl, snap.Mirror, batch)
		if err != nil {
			return nil, err
		}
		if !dg.IsZero() {
			if err := z.e.Flush(ctx, batch); err != nil {
				return nil, err
			}
			data, err := cas.ReadAll(ctx, z.blobs, dg, 16<<20)
			if err != nil {
				return nil, err
			}
			if kr, err = sign.ParseKeyring(data); err != nil {
				return nil, err
			}
		}
	}
	proof := v.newMirrorProof(f, d)
	proof.keys = kr
	for i := range d.Suites {
		if err := proof.suite(ctx, &d.Suites[i]); err != nil {
			return nil, err
		}
	}
	v.res.Bytes, v.res.Files = v.bytes.Load(), int(v.files.Load())
	if len(v.res.Faults) > 0 {
		v.res.Exit = api.ExitVerify
	}
	return v.res, nil
}

// heldTree is a snapshot of an on-demand mirror: packages that nobody asked for
// yet are no fault.
type heldTree struct {
	ownTree
	snap *meta.Snapshot
}

func (t *heldTree) pool(ctx context.Context, mir string, f repo.File) (int64, io.ReadCloser, error) {
	size, r, err := t.ownTree.pool(ctx, mir, f)
	if errors.Is(err, cas.ErrNotFound) {
		return f.Size, nil, nil
	}
	return size, r, err
}

package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
)

// The signature of a freeze manifest shows who wrote it, but not that it is true: the
// owner of the key can write anything. So each field is recomputed from data that the
// distribution signed, or compared with the frozen repository. TestManifestFields covers
// all fields.

// Tree is the files of a freeze: tree.Stored, tree.Held or tree.Dir.
type Tree interface {
	tree.Opener
	Each(ctx context.Context, mirror meta.MirrorName, f func(meta.Node) error) error
	Proof(ctx context.Context, mirror meta.MirrorName, f repo.File) (io.ReadCloser, error)
	// HasProof reports whether an upstream file is in the tree, so that it need not be
	// made.
	HasProof(ctx context.Context, mirror meta.MirrorName, d cas.Digest) bool
	Key(ctx context.Context) ([]byte, error)
	Certificates(ctx context.Context, mirror meta.MirrorName) ([]byte, error)
	Provenance(ctx context.Context) (data, sig []byte, err error)
	Package(ctx context.Context, mirror meta.MirrorName, f repo.File) (size int64, r io.ReadCloser, err error)
}

// Format reads the signed documents and indices of a repository type.
type Format interface {
	tree.Format
	SourceArch() string
	DocumentRank(suite repo.SuiteName, path string) (rank int, ok bool)
	HashName(path string, d cas.Digest) string
}

// check verifies one freeze.
type check struct {
	t   Tree
	dir *tree.Dir // t, if that is a directory
	o   Options
	doc *freeze.Document // nil for a snapshot, which has no manifest
	res *api.VerifyResult

	images   []freeze.Statement    // about images; their signatures were verified
	attested []*attest.Attestation // beside the manifest; their signatures were not verified
	links    []*attest.Link        // beside the manifest; their signatures were not verified
	binaries map[string]binary     // by name, version and architecture; nil if the request names no rebuilders

	mu      sync.Mutex
	unread  []unread                 // files to read when all indices have been read
	proven  map[string]repo.File     // for a directory: files that may be imported
	plain   map[cas.Digest]repo.File // plain indices that were read for variants that are not here
	damaged map[cas.Digest]string    // blobs that cannot be read or have a wrong digest, and why
	unasked error                    // error of a blob store that did not answer, which is no fault of the freeze
	blind   bool                     // a root that this server should have signed could not be read
	buffers sync.Pool                // of *[256 << 10]byte, for hashing
	bytes   atomic.Int64
	files   atomic.Int64
}

func newCheck(t Tree, o Options) *check {
	c := &check{
		t: t, o: o, proven: map[string]repo.File{}, plain: map[cas.Digest]repo.File{}, damaged: map[cas.Digest]string{},
		res: &api.VerifyResult{Deep: o.Deep, Relied: []api.Relied{}, Faults: []api.VerifyFault{}},
	}
	c.dir, _ = t.(*tree.Dir)
	if o.Rebuilders != nil {
		c.binaries = map[string]binary{}
	}
	if c.o.Progress == nil {
		c.o.Progress = &acquire.Progress{}
	}
	return c
}

func (c *check) fault(object, expected, found, format string, args ...any) {
	c.fieldFault("", object, expected, found, format, args...)
}

// fieldFault reports a fault of a field of the manifest, such as
// "mirrors.packages.version".
func (c *check) fieldFault(field, object, expected, found, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range args {
		if err, ok := a.(error); ok && c.unasked == nil && errors.Is(err, cas.ErrUnavailable) {
			c.unasked = err
		}
	}
	c.res.Faults = append(c.res.Faults, api.VerifyFault{Object: object, Field: field, Expected: expected, Found: found, Message: fmt.Sprintf(format, args...)})
}

func (c *check) note(text string) { c.res.Notes = append(c.res.Notes, text) }

// damage records a blob that cannot be read or has a wrong digest.
func (c *check) damage(d cas.Digest, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.damaged[d]; !ok && !d.IsZero() {
		c.damaged[d] = why
	}
}

// prove records a file that may be imported unchanged.
func (c *check) prove(path string, data []byte) {
	c.proveFile(path, int64(len(data)), cas.Sum(data))
}

// disprove removes files from the proven ones, so that an import leaves them out.
func (c *check) disprove(paths ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range paths {
		delete(c.proven, p)
	}
}

func (c *check) proveFile(path string, size int64, d cas.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven[path] = repo.File{Path: path, Size: size, SHA256: d}
}

// run verifies the freeze of a manifest and its signature.
func (c *check) run(ctx context.Context, data, sig []byte) error {
	c.o.Progress.SetPhase("reading indices") // they show how much there is to verify
	doc, err := freeze.ParseDocument(data)
	if err != nil {
		field := ""
		if errors.Is(err, freeze.ErrFormat) {
			field = "format"
		}
		c.fieldFault(field, freeze.ManifestFile, "", "", "%v", err)
		c.finish()
		return nil
	}
	c.doc, c.res.Ref = doc, string(doc.Name)
	statements, err := c.readStatements(ctx)
	if err != nil {
		return err
	}
	c.checkSignature(ctx, data, sig, statements)
	c.checkStatements(statements, cas.Sum(data))
	c.checkBuilders()
	c.documentFields()
	c.checkProvenance(ctx, cas.Sum(data))
	names := map[string]bool{}
	for i := range doc.Mirrors {
		name := doc.Mirrors[i].Name
		if names[string(name)] || !config.MirrorName(name).Valid() {
			c.fieldFault("mirrors.name", freeze.ManifestFile, "", string(name), "mirror %q: the name is invalid, or that of another mirror or of a file", name)
			continue
		}
		names[string(name)] = true
		if err := c.mirror(ctx, &doc.Mirrors[i]); err != nil {
			return err
		}
	}
	c.checkRebuilders()
	if err := c.readFiles(ctx); err != nil {
		return err
	}
	if c.dir != nil {
		if err := c.unexpectedFiles(ctx); err != nil {
			return err
		}
	}
	c.finish()
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.unasked // invariant 8
}

// finish completes the result. It sorts the faults, so that their order does not depend
// on which was found first.
func (c *check) finish() *api.VerifyResult {
	c.res.Bytes, c.res.Files = c.bytes.Load(), int(c.files.Load())
	// First the faults on which others depend.
	rank := func(f api.VerifyFault) int {
		if strings.HasPrefix(f.Object, freeze.ManifestFile) {
			return 0
		}
		return 1
	}
	slices.SortFunc(c.res.Faults, func(a, b api.VerifyFault) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Message, b.Message), cmp.Compare(a.Expected, b.Expected), cmp.Compare(a.Found, b.Found))
	})
	if len(c.res.Faults) > 0 {
		c.res.Exit = api.ExitVerify
	}
	return c.res
}

// checkSignature verifies the signature of the manifest. Keys are judged at the time of
// the signature: a key that has expired since was valid then. If the user gives a later
// key, a statement signed by that key can vouch for the earlier one.
func (c *check) checkSignature(ctx context.Context, data, sig []byte, statements map[string][]byte) {
	s, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: c.o.Ours})
	if errors.Is(err, sign.ErrUnknownKey) {
		if both := c.vouched(ctx, cas.Sum(data), statements); both != nil {
			c.o.Ours = both
			c.note("the manifest is signed by an earlier key; a statement signed by the given key vouches for it")
			s, err = sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: both})
		}
	}
	if err != nil {
		c.fault(freeze.ManifestSignature, "a signature by "+c.o.Ours.Names(), "", "signature of the freeze manifest: %v", err)
		return
	}
	g := s.Good[0]
	c.res.Signature = &api.Signer{Fingerprint: string(g.Fingerprint), UserID: g.UserID, SignedAt: g.Created}
}

// documentFields checks the fields of the manifest that are about the whole freeze.
func (c *check) documentFields() {
	const object = freeze.ManifestFile
	doc := c.doc
	if !config.ValidName(string(doc.Name)) {
		c.fieldFault("name", object, "letters, digits and .+~_-", string(doc.Name), "name of the freeze")
	}
	if c.o.Name != "" && doc.Name != c.o.Name {
		c.fieldFault("name", object, string(c.o.Name), string(doc.Name), "name of the freeze")
	}
	if want := doc.Version(); doc.Format != want {
		c.fieldFault("format", object, fmt.Sprint(want), fmt.Sprint(doc.Format), "format version of a manifest with these contents")
	}
	if !isSorted(doc.Mirrors, freeze.DocMirror.Compare) {
		c.fieldFault("mirrors", object, "", "", "the mirrors are not sorted by name, or one is listed twice")
	}
	if !isSorted(doc.Missing, freeze.Missing.Compare) {
		c.fieldFault("missing", object, "", "", "the missing entries are not sorted, or one is listed twice")
	}
	for _, m := range doc.Missing {
		if m.Name == "" {
			c.fieldFault("missing.name", object, "", "", "a missing entry has no name")
		}
	}
}

// isSorted reports whether each element is before the next.
func isSorted[T any](list []T, compare func(a, b T) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

// unexpectedFiles finds files that do not belong in an exported directory: files that
// nothing refers to, and anything that is neither a file nor a directory. The files of
// frozen repositories were checked before.
func (c *check) unexpectedFiles(ctx context.Context) error {
	known := map[string]bool{
		freeze.ManifestFile: true, freeze.ManifestSignature: true, freeze.ProvenanceFile: true, freeze.ProvenanceSignature: true,
		freeze.KeyFile: true, freeze.SumsFile: true, freeze.ProofDir: true, freeze.StatementDir: true, manifestProof: true, tlog.VKeyFile: true,
	}
	for i := range c.doc.Mirrors {
		m := &c.doc.Mirrors[i]
		dir := freeze.ProofDir + "/" + string(m.Name)
		known[string(m.Name)], known[dir], known[string(dir)+"/"+freeze.CertificatesFile] = true, true, true
		for _, f := range m.ProofFiles() {
			if plain, ok := c.plain[f.SHA256]; ok {
				f = plain
			}
			known[string(dir)+"/"+f.SHA256.String()] = true
		}
		for _, s := range m.Suites {
			if len(s.Documents) > 0 {
				known[SnapshotProof(m.Name, s.Documents[0].SHA256)] = true
			}
		}
	}
	const message = "a file that is not part of the export"
	names := map[string]bool{}
	err := fs.WalkDir(c.dir.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if t := e.Type(); !t.IsDir() && !t.IsRegular() {
			c.fault(name, "a regular file", regfile.Kind(t), message)
			return nil
		}
		if !e.IsDir() {
			names[name] = true
		}
		top, _, below := strings.Cut(name, "/")
		if known[name] || below && top != freeze.ProofDir {
			return nil
		}
		c.fault(name, "", "", message)
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err == nil && names[freeze.SumsFile] && len(c.res.Faults) == 0 {
		delete(names, freeze.SumsFile)
		c.checkSums(names)
	}
	return err
}

// checkSums checks that SHA256SUMS lists the files of the export. The list proves nothing:
// clients use it to find the files on a server without directory listings. So it is read
// only if everything else is correct, and only its first fault is reported.
func (c *check) checkSums(names map[string]bool) {
	const object = freeze.SumsFile
	size := int64(0) // size of a list of these files
	for name := range names {
		size += int64(len(name) + sumsLine)
	}
	data, err := c.dir.Read(object, size)
	if err != nil {
		c.fault(object, "", "", "%v", err)
		return
	}
	sums, err := stream.ParseSums(data)
	if err != nil {
		c.fault(object, "", "", "%v", err)
		return
	}
	for _, s := range sums {
		if !names[s.Name] {
			c.fault(object, "", s.Name, "it lists a file that is not part of the export")
			return
		}
		delete(names, s.Name)
		if f, ok := c.proven[s.Name]; ok && f.SHA256 != s.Digest {
			c.fault(object, f.SHA256.String(), s.Digest.String(), "SHA-256 of %s", s.Name)
			return
		}
	}
	if len(names) > 0 {
		c.fault(object, slices.Min(slices.Collect(maps.Keys(names))), "", "it does not list this file")
	}
}

// sumsLine is the length of a line of SHA256SUMS without the name, in bytes.
const sumsLine = 64 + len("  ") + len("\n")

package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// The signature of a freeze manifest says who wrote it, not that it is true:
// whoever has the key can write anything. So each field is recomputed from what
// the distribution signed, or compared with the frozen repository.
// TestManifestFields walks them all.

// Tree has the files of a freeze: tree.Stored, tree.Held or tree.Dir.
type Tree interface {
	tree.Opener
	Each(ctx context.Context, mirror string, f func(meta.Node) error) error
	Proof(ctx context.Context, mirror string, f repo.File) (io.ReadCloser, error)
	Key(ctx context.Context) ([]byte, error)
	Certificates(ctx context.Context, mirror string) ([]byte, error)
	Provenance(ctx context.Context) (data, sig []byte, err error)
	Package(ctx context.Context, mirror string, f repo.File) (size int64, r io.ReadCloser, err error)
}

// Format reads the signed documents and indices of a type of mirror.
type Format interface {
	tree.Format
	Type() string
	SourceArch() string
	DocumentRank(suite repo.SuiteName, path string) (rank int, ok bool)
	HashName(path string, d cas.Digest) string
}

// check checks one frozen snapshot.
type check struct {
	t       Tree
	dir     *tree.Dir // t, if that is a directory
	o       Options
	formats map[string]Format
	doc     *freeze.Document // nil for a snapshot, which has no manifest
	res     *api.VerifyResult

	mu      sync.Mutex
	proven  map[string]repo.File  // of a directory: what may be imported
	damaged map[cas.Digest]string // why blobs cannot be read, or not with their digest
	blind   bool                  // a root that we should have signed could not be read
	buffers sync.Pool             // of *[256 << 10]byte, for hashing
	bytes   atomic.Int64
	files   atomic.Int64
}

func newCheck(t Tree, o Options) *check {
	c := &check{
		t: t, o: o, formats: map[string]Format{}, proven: map[string]repo.File{}, damaged: map[cas.Digest]string{},
		res: &api.VerifyResult{Deep: o.Deep, Relied: []api.Relied{}, Faults: []api.VerifyFault{}},
	}
	c.dir, _ = t.(*tree.Dir)
	for _, f := range o.Formats {
		c.formats[f.Type()] = f
	}
	if c.o.Progress == nil {
		c.o.Progress = &acquire.Progress{}
	}
	return c
}

func (c *check) fault(object, expected, found, format string, args ...any) {
	c.fieldFault("", object, expected, found, format, args...)
}

// fieldFault is a fault of one field of the manifest, such as
// "mirrors.packages.version".
func (c *check) fieldFault(field, object, expected, found, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.res.Faults = append(c.res.Faults, api.VerifyFault{Object: object, Field: field, Expected: expected, Found: found, Message: fmt.Sprintf(format, args...)})
}

func (c *check) note(text string) { c.res.Notes = append(c.res.Notes, text) }

// damage notes that a blob cannot be read, or not with its digest.
func (c *check) damage(d cas.Digest, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.damaged[d]; !ok && !d.IsZero() {
		c.damaged[d] = why
	}
}

// prove notes a file that an import may take as it is.
func (c *check) prove(path string, data []byte) {
	c.proveFile(path, int64(len(data)), cas.Sum(data))
}

func (c *check) proveFile(path string, size int64, d cas.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven[path] = repo.File{Path: path, Size: size, SHA256: d}
}

// run checks the freeze of a manifest and its signature.
func (c *check) run(ctx context.Context, data, sig []byte) error {
	c.o.Progress.SetPhase("verifying")
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
	c.doc, c.res.Ref = doc, doc.Name
	statements, err := c.readStatements(ctx)
	if err != nil {
		return err
	}
	c.checkSignature(ctx, data, sig, statements)
	c.checkStatements(statements, cas.Sum(data))
	c.documentFields()
	c.checkProvenance(ctx, cas.Sum(data))
	names := map[string]bool{}
	for i := range doc.Mirrors {
		name := doc.Mirrors[i].Name
		if names[name] || !config.ValidMirrorName(name) {
			c.fieldFault("mirrors.name", freeze.ManifestFile, "", name, "mirror %q: its name is another mirror's, a file's or no name at all", name)
			continue
		}
		names[name] = true
		if err := c.mirror(ctx, &doc.Mirrors[i]); err != nil {
			return err
		}
	}
	if c.dir != nil {
		if err := c.unexpectedFiles(ctx); err != nil {
			return err
		}
	}
	c.finish()
	return ctx.Err()
}

// finish completes the result. Its faults are in an order that does not depend on
// which was found first.
func (c *check) finish() *api.VerifyResult {
	c.res.Bytes, c.res.Files = c.bytes.Load(), int(c.files.Load())
	// What all else rests on comes first.
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

// checkSignature checks the signature of the manifest. Keys are judged at the
// signature's own time: one that has expired since was good then, and whoever gives a
// later one vouches for it.
func (c *check) checkSignature(ctx context.Context, data, sig []byte, statements map[string][]byte) {
	s, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: c.o.Ours})
	if errors.Is(err, sign.ErrUnknownKey) {
		if both := c.vouched(ctx, cas.Sum(data), statements); both != nil {
			c.o.Ours = both
			c.note("the manifest is signed by an earlier key, for which a statement by the given one vouches")
			s, err = sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: both})
		}
	}
	if err != nil {
		c.fault(freeze.ManifestSignature, "a signature by "+strings.Join(c.o.Ours.Fingerprints(), ", "), "", "signature of the frozen manifest: %v", err)
		return
	}
	g := s.Good[0]
	c.res.Signature = &api.Signer{Fingerprint: g.Fingerprint, UserID: g.UserID, SignedAt: g.Created}
}

// documentFields checks what the manifest says of the freeze as a whole.
func (c *check) documentFields() {
	const object = freeze.ManifestFile
	doc := c.doc
	if !config.NameRE.MatchString(doc.Name) {
		c.fieldFault("name", object, "letters, digits and .+~_-", doc.Name, "name of the frozen snapshot")
	}
	if c.o.Name != "" && doc.Name != c.o.Name {
		c.fieldFault("name", object, c.o.Name, doc.Name, "name of the frozen snapshot")
	}
	if want := doc.Version(); doc.Format != want {
		c.fieldFault("format", object, fmt.Sprint(want), fmt.Sprint(doc.Format), "version of the format, with what the manifest holds")
	}
	if !isSorted(doc.Mirrors, freeze.DocMirror.Compare) {
		c.fieldFault("mirrors", object, "", "", "the mirrors are not sorted by name, or one is there twice")
	}
	if !isSorted(doc.Missing, freeze.Missing.Compare) {
		c.fieldFault("missing", object, "", "", "the missing entries are not sorted, or one is there twice")
	}
	for _, m := range doc.Missing {
		if m.Name == "" {
			c.fieldFault("missing.name", object, "", "", "a missing entry has no name")
		}
	}
}

// isSorted reports whether each element comes before the next.
func isSorted[T any](list []T, compare func(a, b T) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

// unexpectedFiles finds what is no part of an exported directory: files that nothing
// names, and whatever is neither a file nor a directory. What is in frozen
// repositories was looked at already.
func (c *check) unexpectedFiles(ctx context.Context) error {
	known := map[string]bool{
		freeze.ManifestFile: true, freeze.ManifestSignature: true, freeze.ProvenanceFile: true, freeze.ProvenanceSignature: true,
		freeze.KeyFile: true, freeze.ProofDir: true, freeze.StatementDir: true,
	}
	for i := range c.doc.Mirrors {
		m := &c.doc.Mirrors[i]
		dir := freeze.ProofDir + "/" + m.Name
		known[m.Name], known[dir], known[dir+"/"+freeze.CertificatesFile] = true, true, true
		for _, f := range m.ProofFiles() {
			known[dir+"/"+f.SHA256.String()] = true
		}
	}
	const message = "a file that does not belong to the export"
	return fs.WalkDir(c.dir.FS(), ".", func(name string, e fs.DirEntry, err error) error {
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
}

package proof

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/repo"
)

// open opens an index of the manifest as upstream published it.
func (x *suiteProof) open(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
	for _, i := range x.s.Indices {
		switch l.Path {
		case i.Path:
			return x.c.proofReader(ctx, x.d.Name, repo.File{Path: i.Path, Size: i.Size, SHA256: i.SHA256})
		case i.Index: // as listed by the signed root
			return x.c.proofReader(ctx, x.d.Name, repo.File{Path: l.Path, Size: l.Size, SHA256: l.SHA256})
		}
	}
	return nil, fmt.Errorf("%s is not part of the proof: %w", l.Path, freeze.ErrMissing)
}

// read reads the indices and compares each package in them.
func (x *suiteProof) read(ctx context.Context, groups []repo.Group) error {
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for _, g := range groups {
		eg.Go(func() error {
			var err error
			switch {
			case g.Packages:
				err = x.readPackages(egctx, g)
			case x.d.Kind == freeze.Whole || x.c.o.Deep:
				err = drain(egctx, x.open, x.variant(egctx, g))
			}
			if err != nil && egctx.Err() == nil {
				x.unreadable("indices", repo.File{Path: g.Variants[0].Path, SHA256: g.Variants[0].SHA256}, err)
				err = nil
			}
			return err
		})
	}
	return eg.Wait()
}

// variant returns the variant of an index to read: the one that the manifest names or, if
// the generation no longer keeps that, the plain one that the same root lists.
func (x *suiteProof) variant(ctx context.Context, g repo.Group) repo.Listed {
	named := g.Variants[0]
	if len(g.Variants) == 1 || g.Variants[1].SHA256.IsZero() || x.c.t.HasProof(ctx, x.d.Name, named.SHA256) {
		return named
	}
	plain := repo.File{Path: g.Variants[1].Path, Size: g.Variants[1].Size, SHA256: g.Variants[1].SHA256}
	r, err := x.c.t.Proof(ctx, x.d.Name, plain)
	if err != nil {
		return named
	}
	r.Close()
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	x.c.plain[named.SHA256] = plain
	return g.Variants[1]
}

func (x *suiteProof) readPackages(ctx context.Context, g repo.Group) error {
	count := 0
	err := x.f.Read(ctx, x.root, g, x.variant(ctx, g), x.open, func(r *repo.Record) error {
		if r.Kind == repo.KindUnusable {
			x.unusable(g, r)
			return nil
		}
		count++
		if count%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if x.d.Kind == freeze.Whole {
			for _, file := range r.Files {
				x.packageFile(ctx, r, file)
			}
			if r.Kind != repo.KindSource && len(r.Files) > 0 {
				x.c.binary(x.d.Name, r.Name, r.Version, r.Arch, r.Files[0].SHA256)
			}
			return nil
		}
		x.compare(g, r)
		return nil
	})
	if x.d.Kind == freeze.Whole {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.c.res.Places += count
		if g.Arch == x.f.SourceArch() {
			x.c.res.Sources += count
		} else {
			x.c.res.Packages += count
		}
	}
	return err
}

// unusable checks that the manifest of a whole mirror lists a stanza that no client can
// install as missing.
func (x *suiteProof) unusable(g repo.Group, r *repo.Record) {
	e := freeze.MissingStanza(r, x.f.SourceArch())
	if x.c.doc != nil && x.d.Kind == freeze.Whole && !x.c.mayMiss(e) {
		x.c.fieldFault("missing", x.packageObject(r.Name, r.Version, r.Arch), e.Text(), "",
			"no client can install a package in index %s (%s), but the manifest does not list it as missing", g.Index, r.Reason)
	}
}

// mayMiss reports whether the manifest, if there is one, lists an entry as missing.
func (c *check) mayMiss(m freeze.Missing) bool {
	if c.doc == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(c.doc.Missing, m, freeze.Missing.Compare)
	return ok
}

// paragraphOf returns the identifier of a stanza in manifests, the field "paragraph".
func paragraphOf(r *repo.Record) string {
	sum := cas.Sum(r.Bytes)
	return hex.EncodeToString(sum[:16])
}

// compare compares the manifest's entry for a package with its stanza in the signed
// index.
func (x *suiteProof) compare(g repo.Group, r *repo.Record) {
	k := spot{x.s.Suite, g.Index, paragraphOf(r)}
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.want[k]
	if l == nil {
		if first, ok := x.found[k.stanza]; ok && (first == spot{} || k.compare(first) < 0) {
			x.found[k.stanza] = k
		}
		return
	}
	l.proven = true
	for _, d := range l.differences(g, r) {
		x.c.fieldFault(l.field+d.field, x.packageObject(l.name, l.version, l.arch), d.expected, d.found, "%s", d.message())
	}
}

// difference is a field in which a manifest and a signed index differ.
type difference struct{ field, expected, found string }

func (d *difference) message() string {
	switch d.field {
	case ".component", ".source", ".source_version":
		return "component and source differ from the signed index"
	case ".path", ".size", ".sha256", ".sha512", ".files", ".files.path", ".files.size", ".files.sha256", ".files.sha512":
		return "the files differ from those in the signed index"
	}
	return "the signed index lists another package with this stanza"
}

// differences compares every field of a listing with a record.
func (l *listing) differences(g repo.Group, r *repo.Record) (out []difference) {
	differ := func(field, expected, found string) {
		if expected != found {
			out = append(out, difference{field, expected, found})
		}
	}
	differ(".name", r.Name, l.name)
	differ(".version", r.Version, l.version)
	differ(".component", g.Component, l.component)
	prefix := ".files."
	if l.field == "mirrors.packages" {
		prefix = "."
		differ(".architecture", r.Arch, l.arch)
		var is repo.Ref
		if len(r.Sources) > 0 {
			is = r.Sources[0]
		}
		differ(".source", is.Name, l.source)
		differ(".source_version", is.Version, l.sourceVersion)
	}
	if isSource := r.Kind == repo.KindSource; isSource != (l.field == "mirrors.sources") {
		differ("", fmt.Sprintf("source: %t", isSource), fmt.Sprintf("source: %t", !isSource))
	}
	if len(r.Files) != len(l.files) {
		differ(".files", fmt.Sprint(len(r.Files)), fmt.Sprint(len(l.files)))
		return out
	}
	for i, f := range r.Files {
		differ(prefix+"path", f.Path, l.files[i].Path)
		differ(prefix+"size", fmt.Sprint(f.Size), fmt.Sprint(l.files[i].Size))
		if !f.SHA256.IsZero() {
			differ(prefix+"sha256", f.SHA256.String(), l.files[i].SHA256.String())
		}
		differ(prefix+"sha512", f.SHA512, l.files[i].SHA512)
	}
	return out
}

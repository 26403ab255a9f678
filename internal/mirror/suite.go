package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// suiteSync syncs one suite of the new snapshot.
type suiteSync struct {
	*attempt
	suite repo.SuiteName
	root  *repo.Root // nil: unchanged
	url   remote.URL // URL of the root
	gen   meta.Generation

	dir     string // of the files in the root
	groups  []repo.Group
	stored  []*repo.Listed // the stored variant of each group; nil: none
	stage   meta.Stage
	last    *meta.Generation // sealed last; if absent, an empty one
	files   []repo.File      // files listed by the root
	aliases []meta.Alias     // SHA-512 of files that are also listed by SHA-256
	changed int              // number of stanzas that changed
}

// run downloads and stages the files that the configuration selects from the root.
func (s *suiteSync) run(ctx context.Context) error {
	if err := s.plan(ctx); err != nil {
		return err
	}
	if err := s.keepDocuments(ctx); err != nil {
		return err
	}
	if err := s.keepProof(ctx); err != nil {
		return err
	}
	if err := s.fetchGroups(ctx); err != nil {
		return err
	}
	if err := s.readGroups(ctx); err != nil {
		return err
	}
	if err := s.fetchExpanded(ctx); err != nil {
		return err
	}
	if err := s.endIndices(ctx); err != nil {
		return err
	}
	s.listFiles()
	return nil
}

// plan starts the generation of the groups that were selected from the root.
func (s *suiteSync) plan(ctx context.Context) (err error) {
	root := s.root
	s.dir = s.f.SuiteDir(s.suite)
	if s.stage, err = s.e.cfg.Meta.NewStage(ctx, s.m.Name, s.suite); err != nil {
		return err
	}
	s.last, err = s.e.cfg.Meta.LastGeneration(ctx, s.m.Name, s.suite)
	if errors.Is(err, meta.ErrNotFound) {
		s.last = &meta.Generation{}
	} else if err != nil {
		return err
	}
	s.gen = meta.Generation{
		Mirror: s.m.Name, Suite: s.suite, Gen: s.stage.Gen(), Date: root.Date, ValidUntil: root.ValidUntil,
		Selection: selection(s.m), Revision: root.Revision, Trust: root.Trust, Signers: root.Signers, ByHash: root.ByHash,
		Undated: root.Undated, Warnings: slices.Clone(root.Warnings),
	}
	for _, g := range s.groups {
		if g.Err != nil {
			return g.Err
		}
		s.gen.Warnings = append(s.gen.Warnings, g.Warnings...)
	}
	return nil
}

// keepDocuments stores the signed documents of the root, and the documents that are
// served beside them.
func (s *suiteSync) keepDocuments(ctx context.Context) (err error) {
	if s.gen.Docs, err = s.putDocuments(ctx, s.root.Docs); err != nil {
		return err
	}
	if c, ok := s.f.(repo.CompanionFetcher); ok {
		docs := c.FetchCompanions(ctx, s.upstream.Documents(s.url), s.root, repo.VerifyParams{Keyring: s.kr, Now: s.now})
		s.gen.Companions, err = s.putDocuments(ctx, docs)
	}
	return err
}

func (s *suiteSync) putDocuments(ctx context.Context, docs []repo.Doc) (out []meta.Doc, err error) {
	for _, d := range docs {
		info, err := cas.PutBatch(ctx, s.batch, d.Data, d.LastModified)
		if err != nil {
			return nil, err
		}
		doc := meta.Doc{
			File:         repo.File{Path: d.Path, Size: info.Size, SHA256: info.Digest},
			LastModified: d.LastModified.UTC(), ETag: d.ETag, URL: d.URL,
		}
		s.date(&doc)
		out = append(out, doc)
	}
	return out, ctx.Err()
}

// date dates a document later than the one that it replaces. Upstream's date may be
// earlier, if it comes from another mirror, or always the same. A client that asks for
// the newest snapshot with the date of an earlier one would then not see the new document.
func (s *suiteSync) date(doc *meta.Doc) {
	docs := slices.Concat(s.last.Docs, s.last.Companions)
	i := slices.IndexFunc(docs, func(d meta.Doc) bool { return d.Path == doc.Path })
	if i < 0 {
		return
	}
	before, date := s.last.DocDate(&docs[i]), doc.LastModified
	if date.Unix() <= 0 {
		date = s.now
	}
	switch {
	case date.After(before):
	case doc.SHA256 == docs[i].SHA256:
		doc.Dated = before
	default:
		doc.Dated = before.Truncate(time.Second).Add(time.Second)
	}
}

// keepProof stores the certificates that verified the root (the whole keyring if it also
// verifies packages), and the metalink that named the root.
func (s *suiteSync) keepProof(ctx context.Context) (err error) {
	kr := s.kr
	if f, ok := s.f.(repo.PackageSigner); kr != nil && !(ok && f.SignsPackages() && s.m.CheckPackages()) {
		var fprs []sign.Fingerprint
		for _, k := range s.root.Signers {
			fprs = append(fprs, k.Fingerprint)
		}
		if kr, err = kr.Filter(fprs...); err != nil {
			return err
		}
	}
	if kr != nil && kr.Len() > 0 {
		info, err := cas.PutBatch(ctx, s.batch, kr.ExportArmored(), time.Time{})
		if err != nil {
			return err
		}
		s.gen.Certificates = info.Digest
	}
	if len(s.root.Metalink) > 0 {
		info, err := cas.PutBatch(ctx, s.batch, s.root.Metalink, time.Time{})
		if err != nil {
			return err
		}
		s.gen.Metalink = info.Digest
	}
	return nil
}

// readGroups stages the package indices, and adds all groups to the generation.
func (s *suiteSync) readGroups(ctx context.Context) error {
	s.p.SetPhase("reading indices of " + string(s.suite))
	ctx, cancel := context.WithCancel(ctx)
	checks := s.checkGroups(ctx)
	defer checks.wait()
	defer cancel()
	for i, g := range s.groups {
		if s.stored[i] == nil {
			continue
		}
		kept := meta.Group{Index: g.Index, Component: g.Component, Arch: g.Arch, Packages: g.Packages, Variant: *s.stored[i], Plain: plainOf(g), Also: g.Also}
		if g.Packages {
			if err := s.stageIndex(ctx, g, &kept); err != nil {
				return err
			}
		}
		s.gen.Groups = append(s.gen.Groups, kept)
	}
	warnings, err := checks.wait()
	s.gen.Warnings = append(s.gen.Warnings, warnings...)
	return err
}

// stageIndex stages one index and counts its stanzas, unless it is unchanged.
func (s *suiteSync) stageIndex(ctx context.Context, g repo.Group, kept *meta.Group) error {
	dirty, err := s.stage.Dirty(ctx, g.Index)
	if err != nil {
		return err
	}
	if old := groupOf(s.last, g.Index); old != nil && old.Packages && !dirty && sameContent(old, kept) && !s.alsoChanged(g) {
		kept.Count, kept.Sources, kept.Unusable, kept.FirstUnusable = old.Count, old.Sources, old.Unusable, old.FirstUnusable
		for _, base := range s.last.AlternateBases {
			if !slices.Contains(s.gen.AlternateBases, base) {
				s.gen.AlternateBases = append(s.gen.AlternateBases, base)
			}
		}
	} else if err := s.readIndex(ctx, g, kept); err != nil {
		return err
	}
	s.gen.Sources += kept.Sources
	s.gen.Packages += kept.Count - kept.Sources - kept.Unusable
	if w := unusableWarning(kept); w != "" {
		s.gen.Warnings = append(s.gen.Warnings, w)
	}
	return nil
}

// readIndex stages every record of an index.
func (s *suiteSync) readIndex(ctx context.Context, g repo.Group, kept *meta.Group) error {
	if err := s.stage.Begin(ctx, g.Index); err != nil {
		return err
	}
	err := stageRecords(ctx, s.stage, func(ctx context.Context, put func(context.Context, *repo.Record) error) error {
		return s.readRecords(ctx, g, kept, put)
	})
	if err != nil {
		return fmt.Errorf("index %s%s: %w", s.dir, kept.Variant.Path, err)
	}
	records, changed, err := s.stage.End(ctx)
	if err != nil {
		return err
	}
	kept.Count = records
	s.changed += changed
	return nil
}

// readRecords passes every record of an index to put.
func (s *suiteSync) readRecords(ctx context.Context, g repo.Group, kept *meta.Group, put func(context.Context, *repo.Record) error) error {
	known := &sha512Files{s: s, add: func(ctx context.Context, r *repo.Record) error {
		noteRecord(kept, r)
		return put(ctx, r)
	}}
	err := s.f.Read(ctx, s.root, g, kept.Variant, s.openStored, func(r *repo.Record) error {
		if err := s.addAlternateBase(r.AlternateBases); err != nil {
			return err
		}
		return known.put(ctx, r)
	})
	if err != nil {
		return err
	}
	return known.flush(ctx)
}

// openStored opens the stored variant of a group, given the name of any variant.
func (s *suiteSync) openStored(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
	for i, g := range s.groups {
		if s.stored[i] != nil && slices.ContainsFunc(g.Variants, func(v repo.Listed) bool { return v.Path == l.Path }) {
			return s.e.cfg.Blobs.Open(ctx, s.stored[i].SHA256)
		}
	}
	return nil, fmt.Errorf("%s: %w", l.Path, repo.ErrMissing)
}

// addAlternateBase records an alternate base URL of packages.
func (s *suiteSync) addAlternateBase(base string) error {
	base = strings.TrimRight(base, "/")
	if base == "" || slices.Contains(s.gen.AlternateBases, base) {
		return nil
	}
	if len(s.gen.AlternateBases) == acquire.MaxAlternateBases {
		return fmt.Errorf("%w: packages have more than %d alternate base URLs, the last is %s", repo.ErrMalformed, acquire.MaxAlternateBases, base)
	}
	s.gen.AlternateBases = append(s.gen.AlternateBases, base)
	return nil
}

// endIndices ends the indices that the root no longer has.
func (s *suiteSync) endIndices(ctx context.Context) error {
	left, err := s.stage.Indices(ctx)
	if err != nil {
		return err
	}
	for _, index := range left {
		if g := groupOf(&s.gen, index); g != nil && g.Packages {
			continue
		}
		if err := s.stage.Begin(ctx, index); err != nil {
			return err
		}
		if _, _, err := s.stage.End(ctx); err != nil {
			return err
		}
	}
	return nil
}

// listFiles returns the files that the root lists, by SHA-256.
func (s *suiteSync) listFiles() {
	stored := map[string]*repo.Listed{}
	for _, l := range s.stored {
		if l != nil {
			stored[l.Path] = l
		}
	}
	for _, l := range s.root.Files {
		if t := stored[l.Path]; t != nil && l.SHA256.IsZero() {
			l.SHA256 = t.SHA256
		}
		if l.SHA256.IsZero() {
			continue
		}
		s.files = append(s.files, repo.File{Path: s.dir + l.Path, Size: l.Size, SHA256: l.SHA256})
		if l.SHA512 != "" {
			s.aliases = append(s.aliases, meta.Alias{Algo: meta.AliasSHA512, Other: []byte(l.SHA512), SHA256: l.SHA256})
		}
	}
}

// noteRecord counts a record of an index.
func noteRecord(g *meta.Group, r *repo.Record) {
	switch r.Kind {
	case repo.KindSource:
		g.Sources++
	case repo.KindUnusable:
		if g.Unusable++; g.Unusable == 1 {
			g.FirstUnusable = strings.Join(strings.Fields(r.Name+" "+r.Version+" "+r.Arch), " ") + ": " + r.Reason
		}
	}
}

// unusableWarning returns a warning about the stanzas of an index that are left
// out, or "".
func unusableWarning(g *meta.Group) string {
	switch g.Unusable {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s: 1 stanza that no client can install is left out (%s)", g.Index, g.FirstUnusable)
	}
	return fmt.Sprintf("%s: %d stanzas that no client can install are left out (the first: %s)", g.Index, g.Unusable, g.FirstUnusable)
}

// groupOf returns a group of a generation, or nil if it has none.
func groupOf(g *meta.Generation, index string) *meta.Group {
	for i := range g.Groups {
		if g.Groups[i].Index == index {
			return &g.Groups[i]
		}
	}
	return nil
}

// plainOf returns the plain variant of a group, if the root lists one.
func plainOf(g repo.Group) repo.Listed {
	for _, f := range g.Variants {
		if f.Path == g.Index {
			f.Alternates = nil
			return f
		}
	}
	return repo.Listed{}
}

// sameContent compares two generations of an index. If both list the digest of the
// uncompressed variant, it compares these, because the compression may differ.
func sameContent(a, b *meta.Group) bool {
	if !a.Plain.SHA256.IsZero() && !b.Plain.SHA256.IsZero() {
		return a.Plain.SHA256 == b.Plain.SHA256
	}
	return a.Variant.SHA256 == b.Variant.SHA256
}

// alsoChanged reports whether a group that is read together with g has changed.
func (s *suiteSync) alsoChanged(g repo.Group) bool {
	for i := range s.groups {
		if s.stored[i] == nil || !slices.Contains(g.Also, s.groups[i].Index) {
			continue
		}
		if old := groupOf(s.last, s.groups[i].Index); old == nil || old.Variant.SHA256 != s.stored[i].SHA256 {
			return true
		}
	}
	return false
}

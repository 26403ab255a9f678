package history

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// The answers of the machine interface of snapshot.debian.org. Files are identified by
// their SHA-1 if it is known, otherwise by their SHA-256.

// Comment is a field of each answer.
const Comment = "Metadata of snapd; files are named by SHA-1 where it is known, else by SHA-256."

// FileInfo says where and when a snapshot contained a file.
type FileInfo struct {
	Name      string `json:"name"`
	Archive   string `json:"archive_name"`
	Path      string `json:"path"` // of its directory
	Size      int64  `json:"size"`
	FirstSeen string `json:"first_seen"`
	// Suite, Component and Ranges are extensions of fepitre's server.
	Suite     string      `json:"suite_name"`
	Component string      `json:"component_name,omitempty"`
	Ranges    [][2]string `json:"timestamp_ranges"`
}

// Name is one element of PackageNames.
type Name struct {
	Package string `json:"package"`
}

// PackageNames answers /mr/package/.
type PackageNames struct {
	Comment string `json:"_comment"`
	Result  []Name `json:"result"`
}

// Version is one element of PackageVersions.
type Version struct {
	Version string `json:"version"`
}

// PackageVersions answers /mr/package/NAME/.
type PackageVersions struct {
	Comment string    `json:"_comment"`
	Package string    `json:"package"`
	Result  []Version `json:"result"`
}

// Hash identifies a file, and contains the architecture of a binary package.
type Hash struct {
	Arch string `json:"architecture,omitempty"`
	Hash string `json:"hash"`
}

// SourceFiles answers /mr/package/NAME/VERSION/srcfiles.
type SourceFiles struct {
	Comment  string                `json:"_comment"`
	Package  string                `json:"package"`
	Version  string                `json:"version"`
	Result   []Hash                `json:"result"`
	FileInfo map[string][]FileInfo `json:"fileinfo,omitempty"`
}

// Binary is a binary package with its files.
type Binary struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Files   []Hash `json:"files,omitempty"`
}

// BinaryPackages answers /mr/package/NAME/VERSION/binpackages.
type BinaryPackages struct {
	Comment string   `json:"_comment"`
	Package string   `json:"package"`
	Version string   `json:"version"`
	Result  []Binary `json:"result"`
}

// AllFiles answers /mr/package/NAME/VERSION/allfiles.
type AllFiles struct {
	Comment string `json:"_comment"`
	Package string `json:"package"`
	Version string `json:"version"`
	Result  struct {
		Source   []Hash   `json:"source"`
		Binaries []Binary `json:"binaries"`
	} `json:"result"`
	FileInfo map[string][]FileInfo `json:"fileinfo,omitempty"`
}

// BinaryFiles answers …/binfiles below /mr/package/ and /mr/binary/.
type BinaryFiles struct {
	Comment       string                `json:"_comment"`
	Binary        string                `json:"binary"`
	BinaryVersion string                `json:"binary_version"`
	Package       string                `json:"package,omitempty"`
	Version       string                `json:"version,omitempty"`
	Result        []Hash                `json:"result"`
	FileInfo      map[string][]FileInfo `json:"fileinfo,omitempty"`
}

// BinaryVersion is one element of BinaryVersions.
type BinaryVersion struct {
	Name          string `json:"name"`
	BinaryVersion string `json:"binary_version"`
	Source        string `json:"source"`
	Version       string `json:"version"`
}

// BinaryVersions answers /mr/binary/NAME/.
type BinaryVersions struct {
	Comment string          `json:"_comment"`
	Binary  string          `json:"binary"`
	Result  []BinaryVersion `json:"result"`
}

// FileAnswer answers /mr/file/HASH/info.
type FileAnswer struct {
	Comment string     `json:"_comment"`
	Hash    string     `json:"hash"`
	Result  []FileInfo `json:"result"`
}

func notFound(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, meta.ErrNotFound)...)
}

func isNotFound(err error) bool { return errors.Is(err, meta.ErrNotFound) }

// namePage is the number of names that are read at once.
const namePage = 5000

// SourceNames answers /mr/package/.
func (h *History) SourceNames(ctx context.Context) (*PackageNames, error) {
	mirrors, err := h.mirrors(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, m := range mirrors {
		for after := ""; ; {
			page, err := h.meta.SourceNames(ctx, m, after, namePage)
			if err != nil {
				return nil, err
			}
			all = append(all, page...)
			if len(page) < namePage {
				break
			}
			after = page[len(page)-1]
		}
	}
	slices.Sort(all)
	out := &PackageNames{Comment: Comment, Result: []Name{}}
	for _, n := range slices.Compact(all) {
		out.Result = append(out.Result, Name{n})
	}
	return out, nil
}

// Versions answers /mr/package/SOURCE/. ErrNotFound.
func (h *History) Versions(ctx context.Context, source string) (*PackageVersions, error) {
	all, err := h.bySource(ctx, source)
	if err != nil {
		return nil, err
	}
	var versions []version
	seen := map[version]bool{}
	for i := range all {
		if v := (version{all[i].typ, all[i].Source().Version}); !seen[v] {
			seen[v] = true
			versions = append(versions, v)
		}
	}
	if len(versions) == 0 {
		return nil, notFound("source package %q", source)
	}
	slices.SortFunc(versions, h.newestFirst)
	out := &PackageVersions{Comment: Comment, Package: source}
	for _, v := range versions {
		out.Result = append(out.Result, Version{v.version})
	}
	return out, nil
}

// ofVersion lists the stanzas of a version of a source package. ErrNotFound.
func (h *History) ofVersion(ctx context.Context, source, version string) (sources, binaries []Package, err error) {
	all, err := h.bySource(ctx, source)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range all {
		switch {
		case p.Source().Version != version:
		case p.Kind == repo.KindSource:
			sources = append(sources, p)
		default:
			binaries = append(binaries, p)
		}
	}
	if len(sources)+len(binaries) == 0 {
		return nil, nil, notFound("version %q of source package %q", version, source)
	}
	return sources, binaries, nil
}

// SourceFiles answers /mr/package/SOURCE/VERSION/srcfiles. ErrNotFound.
func (h *History) SourceFiles(ctx context.Context, source, version string, info bool) (*SourceFiles, error) {
	sources, _, err := h.ofVersion(ctx, source, version)
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return nil, notFound("files of version %q of source package %q", version, source)
	}
	f, err := h.files(ctx, sources)
	if err != nil {
		return nil, err
	}
	out := &SourceFiles{Comment: Comment, Package: source, Version: version, Result: f.hashes(sources, false)}
	if info {
		out.FileInfo = f.info(sources)
	}
	return out, nil
}

// BinaryPackages answers /mr/package/SOURCE/VERSION/binpackages. ErrNotFound.
func (h *History) BinaryPackages(ctx context.Context, source, version string) (*BinaryPackages, error) {
	_, binaries, err := h.ofVersion(ctx, source, version)
	if err != nil {
		return nil, err
	}
	out := &BinaryPackages{Comment: Comment, Package: source, Version: version, Result: []Binary{}}
	for _, g := range byNameVersion(binaries) {
		out.Result = append(out.Result, Binary{Name: g[0].Name, Version: g[0].Version})
	}
	return out, nil
}

// byNameVersion groups packages with the same name and version, and sorts the groups by
// both.
func byNameVersion(all []Package) (groups [][]Package) {
	all = slices.Clone(all)
	order := func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	}
	slices.SortStableFunc(all, order)
	for i, p := range all {
		if i == 0 || order(all[i-1], p) != 0 {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], p)
	}
	return groups
}

// AllFiles answers /mr/package/SOURCE/VERSION/allfiles. ErrNotFound.
func (h *History) AllFiles(ctx context.Context, source, version string, info bool) (*AllFiles, error) {
	sources, binaries, err := h.ofVersion(ctx, source, version)
	if err != nil {
		return nil, err
	}
	both := slices.Concat(sources, binaries)
	f, err := h.files(ctx, both)
	if err != nil {
		return nil, err
	}
	out := &AllFiles{Comment: Comment, Package: source, Version: version}
	out.Result.Source, out.Result.Binaries = f.hashes(sources, false), []Binary{}
	for _, g := range byNameVersion(binaries) {
		out.Result.Binaries = append(out.Result.Binaries, Binary{Name: g[0].Name, Version: g[0].Version, Files: f.hashes(g, true)})
	}
	if info {
		out.FileInfo = f.info(both)
	}
	return out, nil
}

// BinaryVersions answers /mr/binary/NAME/. ErrNotFound.
func (h *History) BinaryVersions(ctx context.Context, name string) (*BinaryVersions, error) {
	all, err := h.binaries(ctx, name)
	if err != nil {
		return nil, err
	}
	type row struct {
		version
		BinaryVersion
	}
	var rows []row
	seen := map[row]bool{}
	for i := range all {
		p, src := &all[i], all[i].Source()
		r := row{version{p.typ, p.Version}, BinaryVersion{Name: name, BinaryVersion: p.Version, Source: src.Name, Version: src.Version}}
		if !seen[r] {
			seen[r] = true
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil, notFound("binary package %q", name)
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(h.newestFirst(a.version, b.version), strings.Compare(a.Source, b.Source), strings.Compare(a.BinaryVersion.Version, b.BinaryVersion.Version))
	})
	out := &BinaryVersions{Comment: Comment, Binary: name}
	for _, r := range rows {
		out.Result = append(out.Result, r.BinaryVersion)
	}
	return out, nil
}

// BinaryFiles answers /mr/package/SOURCE/VERSION/binfiles/NAME/BINVERSION, and with
// an empty source /mr/binary/NAME/BINVERSION/binfiles. ErrNotFound.
func (h *History) BinaryFiles(ctx context.Context, source repo.Ref, name, binVersion string, info bool) (*BinaryFiles, error) {
	all, err := h.binaries(ctx, name)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p Package) bool {
		return p.Version != binVersion || source != repo.Ref{} && p.Source() != source
	})
	if len(all) == 0 {
		return nil, notFound("version %q of binary package %q", binVersion, name)
	}
	f, err := h.files(ctx, all)
	if err != nil {
		return nil, err
	}
	out := &BinaryFiles{Comment: Comment, Binary: name, BinaryVersion: binVersion, Package: source.Name, Version: source.Version, Result: f.hashes(all, true)}
	if info {
		out.FileInfo = f.info(all)
	}
	return out, nil
}

// Digest finds the SHA-256 of a file by a SHA-1 or SHA-256 in hexadecimal.
// ErrNotFound.
func (h *History) Digest(ctx context.Context, hash string) (cas.Digest, error) {
	raw, err := hex.DecodeString(hash)
	switch {
	case err == nil && len(raw) == 20:
		return h.meta.Alias(ctx, meta.AliasSHA1, raw)
	case err == nil && len(raw) == len(cas.Digest{}):
		return cas.Digest(raw), nil
	}
	return cas.Digest{}, notFound("file %q", hash)
}

// File answers /mr/file/HASH/info. ErrNotFound.
func (h *History) File(ctx context.Context, hash string) (*FileAnswer, error) {
	d, err := h.Digest(ctx, hash)
	if err != nil {
		return nil, err
	}
	all, err := h.byDigest(ctx, d)
	if err != nil {
		return nil, err
	}
	f, err := h.files(ctx, all)
	if err != nil {
		return nil, err
	}
	out := &FileAnswer{Comment: Comment, Hash: hash, Result: f.infos(all)[d]}
	if len(out.Result) == 0 {
		return nil, notFound("file %s", hash)
	}
	return out, nil
}

// Timestamps lists the timestamps of the snapshots of a mirror, oldest first, from after
// to before (zero: no limit).
func (h *History) Timestamps(ctx context.Context, mirror meta.MirrorName, after, before time.Time) ([]string, error) {
	times, err := h.Times(ctx, mirror, after, before)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, t := range times {
		out = append(out, meta.FormatTimestamp(t))
	}
	return out, nil
}

// files names the files of packages.
type files struct {
	h   *History
	ids map[cas.Digest]string
}

// files finds the identifiers of the files of packages, with one query.
func (h *History) files(ctx context.Context, all []Package) (*files, error) {
	f := &files{h: h, ids: map[cas.Digest]string{}}
	var digests []cas.Digest
	for i := range all {
		for _, file := range all[i].Files {
			if _, asked := f.ids[file.SHA256]; !asked && !file.SHA256.IsZero() {
				f.ids[file.SHA256] = file.SHA256.String()
				digests = append(digests, file.SHA256)
			}
		}
	}
	others, err := h.meta.OtherDigests(ctx, meta.AliasSHA1, digests)
	if err != nil {
		return nil, err
	}
	for i, o := range others {
		if o != nil {
			f.ids[digests[i]] = hex.EncodeToString(o)
		}
	}
	return f, nil
}

// hashes lists the files of packages, each once. It leaves out files whose SHA-256 is in
// no index.
func (f *files) hashes(all []Package, arch bool) []Hash {
	out := []Hash{}
	seen := map[Hash]bool{}
	for i := range all {
		for _, file := range all[i].Files {
			if file.SHA256.IsZero() {
				continue
			}
			hash := Hash{Hash: f.ids[file.SHA256]}
			if arch {
				hash.Arch = all[i].Arch
			}
			if !seen[hash] {
				seen[hash] = true
				out = append(out, hash)
			}
		}
	}
	slices.SortFunc(out, func(a, b Hash) int { return cmp.Or(strings.Compare(a.Arch, b.Arch), strings.Compare(a.Hash, b.Hash)) })
	return out
}

// info describes the files of packages by their ids.
func (f *files) info(all []Package) map[string][]FileInfo {
	out := map[string][]FileInfo{}
	for d, infos := range f.infos(all) {
		out[f.ids[d]] = infos
	}
	return out
}

// infos describes the files of packages, the oldest occurrences first.
func (f *files) infos(all []Package) map[cas.Digest][]FileInfo {
	type place struct {
		file             cas.Digest
		mirror           meta.MirrorName
		path             string
		suite, component string
	}
	size := map[cas.Digest]int64{}
	ranges := map[place][]Range{}
	for i := range all {
		for _, file := range all[i].Files {
			if file.SHA256.IsZero() {
				continue
			}
			size[file.SHA256] = file.Size
			for _, r := range all[i].Ranges {
				p := place{file.SHA256, all[i].Mirror, file.Path, string(r.Suite), r.Component}
				ranges[p] = append(ranges[p], r)
			}
		}
	}
	out := map[cas.Digest][]FileInfo{}
	for p, list := range ranges {
		info := FileInfo{
			Name: path.Base(p.path), Archive: f.h.cat.ArchiveOf(p.mirror), Path: path.Join("/", path.Dir(p.path)), Size: size[p.file],
			Suite: p.suite, Component: p.component,
		}
		for _, r := range union(list) {
			info.Ranges = append(info.Ranges, [2]string{meta.FormatTimestamp(r.First), meta.FormatTimestamp(r.Last)})
		}
		info.FirstSeen = info.Ranges[0][0]
		out[p.file] = append(out[p.file], info)
	}
	for _, infos := range out {
		slices.SortFunc(infos, func(a, b FileInfo) int {
			return cmp.Or(strings.Compare(a.FirstSeen, b.FirstSeen), strings.Compare(a.Archive, b.Archive), strings.Compare(a.Path, b.Path),
				strings.Compare(a.Name, b.Name), strings.Compare(a.Suite, b.Suite), strings.Compare(a.Component, b.Component))
		})
	}
	return out
}

// union merges ranges of one mirror that overlap or follow each other, oldest first.
func union(list []Range) (out []Range) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Range) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last)) })
	for _, r := range list {
		if n := len(out); n > 0 && r.first <= out[n-1].last+1 {
			if r.last > out[n-1].last {
				out[n-1].last, out[n-1].Last = r.last, r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

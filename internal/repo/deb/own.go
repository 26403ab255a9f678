package deb

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
	"example.org/snapd/internal/sign"
)

// The results of ReadOwn.
type (
	// ownBinary is a .deb or .udeb.
	ownBinary struct {
		control deb822.Stanza
		udeb    bool
	}
	// ownList is a .dsc or .changes.
	ownList struct {
		stanza  deb822.Stanza
		changes bool
		data    []byte
	}
	// ownPart is a file that counts only if a .dsc or .changes lists it.
	ownPart struct{}
)

// maxOwnList bounds a .dsc or .changes, in bytes.
const maxOwnList = 16 << 20

var (
	packageNameRE = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9+.-]*$`)
	versionRE     = lazyregexp.New(`^([0-9]+:)?[0-9A-Za-z][0-9A-Za-z.+~:-]*$`)
)

// ReadOwn reads a .deb, .udeb, .dsc or .changes, or a file that one of the last two
// lists.
func (Format) ReadOwn(_ config.Mirror, kr *sign.Keyring, name string, r io.Reader) (any, error) {
	switch path.Ext(name) {
	case ".deb", ".udeb":
		control, err := readDeb(r)
		if err != nil {
			return nil, err
		}
		b := &ownBinary{control: control, udeb: path.Ext(name) == ".udeb"}
		return b, b.check(name)
	case ".dsc", ".changes":
		data, err := io.ReadAll(io.LimitReader(r, maxOwnList+1))
		if err != nil {
			return nil, err
		}
		if len(data) > maxOwnList {
			return nil, fmt.Errorf("more than %d bytes: %w", maxOwnList, repo.ErrMalformed)
		}
		return readOwnList(kr, name, data)
	}
	_, err := io.Copy(io.Discard, r)
	return ownPart{}, err
}

// check compares a package's control file with the name of its file.
func (b *ownBinary) check(name string) error {
	if err := b.control.Check(); err != nil {
		return fmt.Errorf("control: %w: %w", repo.ErrMalformed, err)
	}
	for _, f := range []string{"Filename", "Size", "SHA256", "SHA512", "SHA1", "MD5sum", "Directory"} {
		if _, ok := b.control.Get(f); ok {
			return fmt.Errorf("control: the field %s belongs in an index only: %w", f, repo.ErrMalformed)
		}
	}
	pkg, version, arch := field0(b.control, "Package"), field0(b.control, "Version"), field0(b.control, "Architecture")
	switch {
	case !packageNameRE().MatchString(pkg):
		return fmt.Errorf("control: Package %q is not the name of a package: %w", excerpt.Of(pkg), repo.ErrMalformed)
	case !versionRE().MatchString(version):
		return fmt.Errorf("control: Version %q is not a version: %w", excerpt.Of(version), repo.ErrMalformed)
	case !config.ValidName(arch) || arch == SourceArch:
		return fmt.Errorf("control: Architecture %q is not an architecture: %w", excerpt.Of(arch), repo.ErrMalformed)
	}
	parts := strings.Split(strings.TrimSuffix(name, path.Ext(name)), "_")
	want := []string{pkg, withoutEpoch(version), arch}
	if len(parts) > 1 && (parts[1] == strings.Replace(version, ":", "%3a", 1) || parts[1] == version) {
		parts[1] = want[1] // names with the epoch, as apt downloads them
	}
	if len(parts) > len(want) || !slices.Equal(parts, want[:len(parts)]) {
		return fmt.Errorf("its control file describes package %s %s %s, expected the file name %s%s: %w", pkg, version, arch, strings.Join(want, "_"), path.Ext(name), repo.ErrMismatch)
	}
	return nil
}

func field0(s deb822.Stanza, name string) string {
	v, _ := s.Get(name)
	return strings.TrimSpace(v)
}

func withoutEpoch(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		return rest
	}
	return v
}

// readOwnList reads a .dsc or .changes, and verifies its signature if kr is not nil.
func readOwnList(kr *sign.Keyring, name string, data []byte) (*ownList, error) {
	text := data
	switch {
	case kr != nil:
		v, err := sign.VerifyClearsigned(data, sign.VerifyOptions{Keyring: kr})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", repo.ErrUntrusted, err)
		}
		text = v.Text
	case sign.IsClearsigned(data):
		var err error
		if text, err = releaseText([]repo.Doc{{Path: name, Data: data}}); err != nil {
			return nil, err
		}
	}
	all, err := deb822.ParseFile(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%d stanzas, expected 1: %w", len(all), repo.ErrMalformed)
	}
	l := &ownList{stanza: all[0], changes: path.Ext(name) == ".changes", data: data}
	if _, err := l.files(); err != nil {
		return nil, err
	}
	source, version := field0(l.stanza, "Source"), field0(l.stanza, "Version")
	if l.changes {
		source, _, _ = strings.Cut(source, " ") // "source (version)" of a binary-only upload
	}
	switch {
	case !packageNameRE().MatchString(source):
		return nil, fmt.Errorf("Source %q is not the name of a package: %w", excerpt.Of(source), repo.ErrMalformed)
	case !versionRE().MatchString(version):
		return nil, fmt.Errorf("Version %q is not a version: %w", excerpt.Of(version), repo.ErrMalformed)
	}
	if want := source + "_" + withoutEpoch(version) + ".dsc"; !l.changes && name != want {
		return nil, fmt.Errorf("it describes source package %s %s, expected the file name %s: %w", source, version, want, repo.ErrMismatch)
	}
	return l, nil
}

// listedFile is a file that a .dsc or .changes lists.
type listedFile struct {
	repo.File
	section string // of a .changes
}

// files returns the files that the list names by SHA-256.
func (l *ownList) files() (out []listedFile, err error) {
	sums, ok := l.stanza.Get("Checksums-Sha256")
	if !ok {
		return nil, fmt.Errorf("no Checksums-Sha256: %w", repo.ErrWeak)
	}
	sections := map[string]string{}
	if l.changes {
		files, _ := l.stanza.Get("Files")
		for _, line := range deb822.Lines(files) {
			if w := strings.Fields(line); len(w) == 5 {
				sections[w[4]] = w[2]
			}
		}
	}
	for _, line := range deb822.Lines(sums) {
		w := strings.Fields(line)
		if len(w) != 3 {
			return nil, fmt.Errorf("Checksums-Sha256: line %q: expected digest, size and name: %w", excerpt.Of(line), repo.ErrMalformed)
		}
		f := listedFile{section: sections[w[2]]}
		if f.SHA256, err = parseSHA256([]byte(w[0])); err == nil {
			f.Size, err = parseSize([]byte(w[1]))
		}
		if err != nil {
			return nil, fmt.Errorf("Checksums-Sha256: %w", err)
		}
		if f.Path = w[2]; !IsFileName(f.Path) {
			return nil, fmt.Errorf("Checksums-Sha256: %q is not a file name: %w", excerpt.Of(f.Path), repo.ErrHostile)
		}
		if slices.ContainsFunc(out, func(o listedFile) bool { return o.Path == f.Path }) {
			return nil, fmt.Errorf("Checksums-Sha256: %s twice: %w", f.Path, repo.ErrMalformed)
		}
		if out = append(out, f); len(out) > maxSourceFiles {
			return nil, fmt.Errorf("more than %d files: %w", maxSourceFiles, repo.ErrMalformed)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("Checksums-Sha256 lists no file: %w", repo.ErrMalformed)
	}
	return out, nil
}

// IsFileName reports whether a .dsc may refer to a file by this name.
func IsFileName(name string) bool {
	return len(name) <= 255 && !strings.HasPrefix(name, ".") && isToken([]byte(name)) && !strings.ContainsAny(name, "/\\")
}

// ListedFiles returns the names of the files that a .dsc or .changes lists, without
// checking its signature.
func ListedFiles(name string, data []byte) ([]string, error) {
	l, err := readOwnList(nil, name, data)
	if err != nil {
		return nil, err
	}
	files, err := l.files()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		out = append(out, f.Path)
	}
	return out, nil
}

// OwnComponent returns the component in the path of an index.
func (Format) OwnComponent(index string) string { return classify(index, false).component }

// OwnIndices returns a component's Packages of the architecture, or Sources. A
// package of architecture "all" is in the indices of each architecture.
func (Format) OwnIndices(m config.Mirror, component string, r *repo.Record) (out []string) {
	if !slices.Contains(m.Components, component) {
		return nil
	}
	if r.Kind == repo.KindSource {
		return []string{component + "/source/Sources"}
	}
	dir := component
	if r.Kind == repo.KindInstaller {
		dir += installerDir
	}
	for _, a := range m.Architectures {
		if r.Arch == a || r.Arch == "all" {
			out = append(out, dir+"/binary-"+a+"/Packages")
		}
	}
	return out
}

// ownGroups returns the indices of a suite of a local mirror. Indices of udebs
// exist only if the suite has udebs.
func ownGroups(p repo.OwnSuite) (out []repo.Group) {
	for _, c := range p.Mirror.Components {
		for _, a := range p.Mirror.Architectures {
			out = append(out, repo.Group{Index: c + "/binary-" + a + "/Packages", Packages: true})
		}
		for _, a := range p.Mirror.Architectures {
			if i := c + installerDir + "/binary-" + a + "/Packages"; p.Has(i) {
				out = append(out, repo.Group{Index: i, Packages: true})
			}
		}
		out = append(out, repo.Group{Index: c + "/source/Sources", Packages: true})
	}
	return out
}

// ownVariants are the variants of the indices of local mirrors: an add writes all
// indices of a suite again, and xz would take ten times as long.
var ownVariants = []string{"", ".gz"}

// DeriveOwn writes Packages and Sources, each as .gz, and InRelease, Release and
// Release.gpg. The Release file also lists the plain variants, because apt does
// not request an index without them.
func (Format) DeriveOwn(ctx context.Context, p repo.OwnSuite, sink repo.Sink) error {
	d := &deriver{
		c: repo.Choice{Suite: p.Suite, Groups: ownGroups(p), Records: p.Records}, sink: sink, dir: suiteDir(p.Suite),
		variants: ownVariants, linked: map[string]bool{},
	}
	if err := d.exact(ctx); err != nil {
		return err
	}
	rel := &Release{
		Origin: p.Mirror.Origin, Label: p.Mirror.Label, Suite: string(p.Suite), Codename: string(p.Suite),
		Architectures: slices.Clone(p.Mirror.Architectures), Components: slices.Clone(p.Mirror.Components),
	}
	return d.sign(ctx, d.release(rel, p.Date), p.Date, p.Signer)
}

// OwnPackages finds the suite and the component of each package, and makes its
// stanza.
func (Format) OwnPackages(m config.Mirror, p repo.OwnParams, files []repo.OwnFile) ([]repo.OwnPackage, error) {
	a := &adding{m: m, p: p, files: map[string]*repo.OwnFile{}, owner: map[string]*repo.OwnFile{}, section: map[string]string{}}
	return a.run(files)
}

// adding is one call of OwnPackages.
type adding struct {
	m       config.Mirror
	p       repo.OwnParams
	files   map[string]*repo.OwnFile // by name
	owner   map[string]*repo.OwnFile // the .changes that lists a file, by name
	section map[string]string        // of a file in a .changes, by name
	used    map[string]bool          // names of files that belong to a package or a .changes
	out     []repo.OwnPackage
}

func (a *adding) run(files []repo.OwnFile) ([]repo.OwnPackage, error) {
	a.used = map[string]bool{}
	for i := range files {
		f := &files[i]
		if o := a.files[f.Path]; o != nil && o.SHA256 != f.SHA256 {
			return nil, fmt.Errorf("two files %s, with SHA-256 %s and %s: %w", f.Path, o.SHA256, f.SHA256, repo.ErrNotPackage)
		}
		a.files[f.Path] = f
	}
	for i := range files {
		if l, ok := files[i].Read.(*ownList); ok && l.changes {
			if err := a.changes(&files[i], l); err != nil {
				return nil, fmt.Errorf("%s: %w", files[i].Path, err)
			}
		}
	}
	for i := range files {
		var err error
		switch x := files[i].Read.(type) {
		case *ownBinary:
			err = a.binary(&files[i], x)
		case *ownList:
			if !x.changes {
				err = a.source(&files[i], x)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", files[i].Path, err)
		}
	}
	for i := range files {
		if _, ok := files[i].Read.(ownPart); ok && !a.used[files[i].Path] {
			return nil, fmt.Errorf("%s: %w: expected .deb, .udeb, .dsc or .changes, or a file that one of these lists", files[i].Path, repo.ErrNotPackage)
		}
	}
	return a.out, nil
}

// changes checks that all files in a .changes were added with it, and records
// their section and the .changes itself.
func (a *adding) changes(f *repo.OwnFile, l *ownList) error {
	listed, err := l.files()
	if err != nil {
		return err
	}
	for _, x := range listed {
		if err := a.here(x.File, ""); err != nil {
			return err
		}
		a.owner[x.Path], a.section[x.Path], a.used[x.Path] = f, x.section, true
	}
	return nil
}

// here checks that a listed file was added too, or is already in the mirror's directory dir.
func (a *adding) here(want repo.File, dir string) error {
	got := repo.File{}
	if f := a.files[want.Path]; f != nil {
		got = f.File
	} else if dir != "" && a.p.Has != nil {
		got.SHA256, got.Size = a.p.Has(path.Join(dir, want.Path))
	}
	switch {
	case got.SHA256.IsZero():
		return fmt.Errorf("it lists %s, which was not added with it: %w", want.Path, repo.ErrNotPackage)
	case got.SHA256 != want.SHA256 || got.Size != want.Size:
		return fmt.Errorf("it lists %s with %d bytes and SHA-256 %s, found %d bytes and %s: %w", want.Path, want.Size, want.SHA256, got.Size, got.SHA256, repo.ErrMismatch)
	}
	return nil
}

// suite returns the suite of a file: the requested one, the Distribution of the
// .changes that lists the file, or the only suite of the mirror.
func (a *adding) suite(name string) (repo.SuiteName, error) {
	suite := a.p.Suite
	if suite == "" && a.owner[name] != nil {
		owner := a.owner[name]
		suite = field0(owner.Read.(*ownList).stanza, "Distribution")
		if !slices.Contains(a.m.Suites, suite) {
			return "", fmt.Errorf("the Distribution of %s is %q: %w: mirror %s has the suites %s (--suite chooses one)", owner.Path, excerpt.Of(suite), repo.ErrNotPackage, a.m.Name, words(a.m.Suites))
		}
	}
	if suite == "" && len(a.m.Suites) == 1 {
		suite = a.m.Suites[0]
	}
	switch {
	case suite == "":
		return "", fmt.Errorf("%w: no suite is given, and mirror %s has %s (--suite chooses one)", repo.ErrNotPackage, a.m.Name, words(a.m.Suites))
	case !slices.Contains(a.m.Suites, suite):
		return "", fmt.Errorf("suite %q: %w: mirror %s has %s", suite, repo.ErrNotPackage, a.m.Name, words(a.m.Suites))
	}
	return repo.SuiteName(suite), nil
}

// component returns the requested component, or the one in the first non-empty section.
func (a *adding) component(sections ...string) (string, error) {
	c := a.p.Component
	for _, s := range sections {
		if c == "" && s != "" && s != "-" {
			c = "main"
			if i := strings.LastIndexByte(s, '/'); i >= 0 {
				c = s[:i]
			}
		}
	}
	c = cmp.Or(c, "main")
	if !slices.Contains(a.m.Components, c) {
		return "", fmt.Errorf("component %q: %w: mirror %s has %s (--component chooses one)", excerpt.Of(c), repo.ErrNotPackage, a.m.Name, words(a.m.Components))
	}
	return c, nil
}

// trusted refuses an unsigned file that no signed .changes lists, if the mirror has a keyring.
func (a *adding) trusted(name string) error {
	if len(a.m.Keyring) > 0 && a.owner[name] == nil {
		return fmt.Errorf("it has no signature, and mirror %s has a keyring: add the signed .changes that lists it: %w", a.m.Name, repo.ErrUntrusted)
	}
	return nil
}

// binary adds a .deb or .udeb.
func (a *adding) binary(f *repo.OwnFile, b *ownBinary) error {
	if err := a.trusted(f.Path); err != nil {
		return err
	}
	suite, err := a.suite(f.Path)
	if err != nil {
		return err
	}
	component, err := a.component(field0(b.control, "Section"), a.section[f.Path])
	if err != nil {
		return err
	}
	pkg, version, arch := field0(b.control, "Package"), field0(b.control, "Version"), field0(b.control, "Architecture")
	source, _, _ := strings.Cut(field0(b.control, "Source"), " ")
	if source = cmp.Or(source, pkg); !packageNameRE().MatchString(source) {
		return fmt.Errorf("control: Source %q is not the name of a package: %w", excerpt.Of(source), repo.ErrMalformed)
	}
	kind := repo.KindBinary
	if b.udeb {
		kind = repo.KindInstaller
	}
	var text bytes.Buffer
	text.Write(bytes.TrimRight(b.control.Bytes(), "\n"))
	fmt.Fprintf(&text, "\nFilename: %s/%s_%s_%s%s\nSize: %d\nSHA256: %s", poolDir(component, source), pkg, withoutEpoch(version), arch, path.Ext(f.Path), f.Size, f.SHA256)
	return a.add(kind, suite, component, text.Bytes())
}

// poolDir is the directory of a source package's files.
func poolDir(component, source string) string {
	prefix := source[:1]
	if strings.HasPrefix(source, "lib") && len(source) > 3 {
		prefix = source[:4]
	}
	return path.Join("pool", component, prefix, source)
}

// add parses a stanza like a client, and adds its package.
func (a *adding) add(kind repo.Kind, suite repo.SuiteName, component string, stanza []byte) error {
	var rec repo.Record
	why, err := newParser(kind).parse(deb822.StanzaOf(stanza), &rec)
	if err == nil && why != nil {
		err = why
	}
	if err != nil {
		return err
	}
	if len((Format{}).OwnIndices(a.m, component, &rec)) == 0 {
		return fmt.Errorf("architecture %q: %w: mirror %s has %s", rec.Arch, repo.ErrNotPackage, a.m.Name, words(a.m.Architectures))
	}
	a.out = append(a.out, repo.OwnPackage{Suite: suite, Component: component, Record: rec})
	return nil
}

// source adds a source package.
func (a *adding) source(f *repo.OwnFile, l *ownList) error {
	suite, err := a.suite(f.Path)
	if err != nil {
		return err
	}
	component, err := a.component(a.section[f.Path], listedSection(l.stanza))
	if err != nil {
		return err
	}
	dir := poolDir(component, field0(l.stanza, "Source"))
	listed, err := l.files()
	if err != nil {
		return err
	}
	for _, x := range listed {
		if err := a.here(x.File, dir); err != nil {
			return err
		}
		a.used[x.Path] = true
	}
	return a.add(repo.KindSource, suite, component, sourceStanza(l, f.File, dir))
}

// listedSection returns the section of the first package in Package-List.
func listedSection(s deb822.Stanza) string {
	list, _ := s.Get("Package-List")
	for _, line := range deb822.Lines(list) {
		if w := strings.Fields(line); len(w) >= 3 {
			return w[2]
		}
	}
	return ""
}

// sourceStanza makes the stanza in Sources: the fields of the .dsc, with the .dsc
// itself added to the lists of files.
func sourceStanza(l *ownList, dsc repo.File, dir string) []byte {
	var b bytes.Buffer
	sums := map[string]string{"files": sumOf(md5.New(), l.data), "checksums-sha1": sumOf(sha1.New(), l.data), "checksums-sha256": dsc.SHA256.String()}
	for s := l.stanza.Scan(); s.Next(); {
		name, value := string(s.Name()), string(s.Value())
		switch lower := strings.ToLower(name); {
		case lower == "source":
			name = "Package"
		case lower == "directory", lower == "package", lower == "checksums-sha512":
			continue
		case sums[lower] != "":
			value = "\n " + sums[lower] + fmt.Sprintf(" %d %s", dsc.Size, dsc.Path)
			for _, line := range deb822.Lines(string(s.Value())) {
				value += "\n " + line
			}
		}
		b.WriteString(name + ":")
		if !strings.HasPrefix(value, "\n") {
			b.WriteByte(' ')
		}
		b.WriteString(value + "\n")
	}
	b.WriteString("Directory: " + dir)
	return b.Bytes()
}

// sumOf is the digest of data, in hex.
func sumOf(h interface {
	io.Writer
	Sum([]byte) []byte
}, data []byte) string {
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

var _ repo.Own = Format{}

package debtest

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/repo/deb/deb822"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// Suite is one suite of an archive. Its exported fields determine how Publish writes it.
type Suite struct {
	a    *Archive
	name string

	// Fields of the Release; empty ones are omitted. ComponentPrefix ("updates/")
	// precedes each component in the Release, but is not part of the components'
	// directories.
	Origin, Label, Suite, Codename, Version, Description string
	ComponentPrefix                                      string
	Components, Architectures                            []string
	// Fields are further fields of the Release: NotAutomatic, Changelogs …
	Fields map[string]string
	// ValidFor, when not zero, sets Valid-Until that long after the Date.
	ValidFor time.Duration
	// Digests are the Release's digest fields: MD5Sum, SHA1, SHA256, SHA512.
	Digests []string
	// SHA512 lists packages and sources by SHA-512 in place of SHA-256.
	SHA512 bool

	// Compressions are the variants of each index that are served and listed; ""
	// is the plain one.
	Compressions []string
	// ListPlain lists the plain variants although they may not be served, as
	// Debian does.
	ListPlain bool
	ByHash    bool     // Acquire-By-Hash, and the names
	Languages []string // Translation files; none leaves long descriptions in Packages
	Sources   bool     // Sources, when there are source packages
	Contents  bool     // Contents-<arch> of each component
	// BinaryAll writes a separate index for architecture "all". Its packages are
	// then only in that index, unless NoSupportForAll is set.
	BinaryAll, NoSupportForAll bool

	// InRelease writes InRelease instead of Release and Release.gpg; Both writes
	// all three.
	InRelease, Both bool
	Unsigned        bool
	// Signers sign instead of the archive's key.
	Signers []*sign.PrivateKey

	// Extra are further listed files as served, by path relative to the suite:
	// DEP-11, Commands, installer files.
	Extra map[string][]byte

	// EditIndex, if set, changes the plain content of an index before its digest is
	// computed: for hostile and malformed content with a valid signature.
	EditIndex func(path string, plain []byte) []byte
	// EditRelease, if set, changes the text of the Release before it is signed.
	EditRelease func(text string) string

	pkgs      []*binary
	srcs      []Source
	srcPaths  [][]file
	published map[string]bool // files that Publish wrote and may replace
}

type binary struct {
	Package
	size        int
	md5, sha256 string
	sha512      string
	override    map[string]string
}

func (s *Suite) flat() bool { return strings.HasSuffix(s.name, "/") }

// Name returns the name of the suite in apt's sources.
func (s *Suite) Name() string { return s.name }

// Dir returns the suite's directory within the archive; it is empty or ends with
// a slash.
func (s *Suite) Dir() string {
	if !s.flat() {
		return "dists/" + s.name + "/"
	}
	if d := strings.Trim(path.Clean(s.name), "/"); d != "." && d != "" {
		return d + "/"
	}
	return ""
}

// Add adds packages, and puts their files in the pool. A package replaces one
// with the same name, version, architecture and path, also if its bytes differ.
func (s *Suite) Add(pkgs ...Package) {
	s.a.tb.Helper()
	at := make(map[string]int)
	key := func(p Package) string { return p.Name + " " + p.Version + " " + p.Arch + " " + p.poolPath() }
	for i, b := range s.pkgs {
		at[key(b.Package)] = i
	}
	for _, p := range pkgs {
		p = p.withDefaults()
		if s.flat() && p.Filename == "" {
			p.Filename = s.Dir() + p.Name + "_" + noEpoch(p.Version) + "_" + p.Arch + p.ext()
		}
		data := p.Deb(s.a.tb)
		b := &binary{Package: p, size: len(data), md5: sum("MD5Sum", data), sha256: sum("SHA256", data), sha512: sum("SHA512", data)}
		s.a.put(path.Clean(p.poolPath()), data, epoch)
		if i, ok := at[key(p)]; ok {
			s.pkgs[i] = b
			continue
		}
		at[key(p)] = len(s.pkgs)
		s.pkgs = append(s.pkgs, b)
	}
}

// AddSource adds source packages, and puts their files in the pool.
func (s *Suite) AddSource(srcs ...Source) {
	s.a.tb.Helper()
	for _, src := range srcs {
		src.Version, src.Component = or(src.Version, "1.0-1"), or(src.Component, "main")
		if len(src.Binaries) == 0 {
			src.Binaries = []string{src.Name}
		}
		files := src.build(s.a.tb)
		for _, f := range files {
			s.a.put(s.sourceDir(src)+"/"+f.name, f.data, epoch)
		}
		s.srcs, s.srcPaths = append(s.srcs, src), append(s.srcPaths, files)
	}
}

func (s *Suite) sourceDir(src Source) string {
	if s.flat() {
		return path.Clean(s.Dir() + "src")
	}
	return poolDir(src.Component, src.Name)
}

// Remove removes the packages and sources with the name from the suite; an empty
// version matches all. Their files stay in the pool until they are deleted.
func (s *Suite) Remove(name, version string) {
	s.pkgs = slices.DeleteFunc(s.pkgs, func(b *binary) bool {
		return b.Name == name && (version == "" || b.Package.Version == version)
	})
	for i := len(s.srcs) - 1; i >= 0; i-- {
		if s.srcs[i].Name == name && (version == "" || s.srcs[i].Version == version) {
			s.srcs, s.srcPaths = slices.Delete(s.srcs, i, i+1), slices.Delete(s.srcPaths, i, i+1)
		}
	}
}

// Override sets a field of a package's stanza in the index but not in the .deb,
// like the archive's overrides of Section and Priority.
func (s *Suite) Override(name, field, value string) {
	for _, b := range s.pkgs {
		if b.Name == name {
			if b.override == nil {
				b.override = make(map[string]string)
			}
			b.override[field] = value
		}
	}
}

// PathOf returns the pool path of a package; it fails the test if the suite has
// no package with the name.
func (s *Suite) PathOf(name string) string {
	s.a.tb.Helper()
	for i := len(s.pkgs) - 1; i >= 0; i-- {
		if s.pkgs[i].Name == name {
			return path.Clean(s.pkgs[i].poolPath())
		}
	}
	s.a.tb.Fatalf("suite %s has no package %s", s.name, name)
	return ""
}

// Publish writes the suite's indices and its signed Release as of date.
func (s *Suite) Publish(date time.Time) {
	s.a.tb.Helper()
	date = date.UTC()
	dir := s.Dir()
	var list []listedFile
	serve := func(p string, data []byte) {
		s.a.put(dir+p, data, date)
		if s.ByHash {
			for _, d := range s.Digests {
				s.a.put(dir+path.Join(path.Dir(p), "by-hash", d, sum(d, data)), data, date)
			}
		}
	}
	now := make(map[string]bool)
	plain := s.indices()
	for _, p := range slices.Sorted(maps.Keys(plain)) {
		data := plain[p]
		if s.EditIndex != nil {
			data = s.EditIndex(p, data)
		}
		if s.ListPlain && !slices.Contains(s.Compressions, "") {
			list = append(list, listedFile{p, data})
		}
		for _, c := range s.Compressions {
			packed := s.a.compress(c, data)
			list = append(list, listedFile{p + c, packed})
			serve(p+c, packed)
			now[p+c] = true
		}
	}
	for _, p := range slices.Sorted(maps.Keys(s.Extra)) {
		list = append(list, listedFile{p, s.Extra[p]})
		serve(p, s.Extra[p])
		now[p] = true
	}
	for p := range s.published { // indices of architectures and components that were removed
		if !now[p] {
			s.a.Delete(dir + p)
		}
	}
	s.published = now
	text := s.releaseText(date, list)
	if s.EditRelease != nil {
		text = s.EditRelease(text)
	}
	s.sign(dir, text, date)
}

// listedFile is a file that the Release lists.
type listedFile struct {
	path string
	data []byte
}

// releaseText returns the text of the Release.
func (s *Suite) releaseText(date time.Time, list []listedFile) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	line("Origin", s.Origin)
	line("Label", s.Label)
	line("Suite", s.Suite)
	line("Version", s.Version)
	line("Codename", s.Codename)
	for _, k := range slices.Sorted(maps.Keys(s.Fields)) {
		line(k, s.Fields[k])
	}
	const rfc1123 = "Mon, 02 Jan 2006 15:04:05"
	line("Date", date.Format(rfc1123)+" UTC")
	if s.ValidFor != 0 {
		line("Valid-Until", date.Add(s.ValidFor).Format(rfc1123)+" UTC")
	}
	if s.ByHash {
		line("Acquire-By-Hash", "yes")
	}
	if s.NoSupportForAll {
		line("No-Support-for-Architecture-all", "Packages")
	}
	archs := s.Architectures
	if s.BinaryAll {
		archs = append([]string{"all"}, archs...)
	}
	line("Architectures", strings.Join(archs, " "))
	var comps []string
	for _, c := range s.Components {
		comps = append(comps, s.ComponentPrefix+c)
	}
	line("Components", strings.Join(comps, " "))
	line("Description", s.Description)
	for _, d := range s.Digests {
		b.WriteString(d + ":\n")
		for _, l := range list {
			fmt.Fprintf(&b, " %s %8d %s\n", sum(d, l.data), len(l.data), l.path)
		}
	}
	return b.String()
}

func (s *Suite) sign(dir, text string, date time.Time) {
	tb := s.a.tb
	tb.Helper()
	s.a.Delete(dir+"InRelease", dir+"Release", dir+"Release.gpg")
	keys := s.Signers
	if keys == nil {
		keys = []*sign.PrivateKey{s.a.Key}
	}
	if s.Unsigned {
		s.a.put(dir+"Release", []byte(text), date)
		return
	}
	if s.InRelease || s.Both {
		s.a.put(dir+"InRelease", clearSign(tb, keys, text, date), date)
	}
	if !s.InRelease || s.Both {
		s.a.put(dir+"Release", []byte(text), date)
		var sig []byte
		for _, k := range keys {
			sig = append(sig, signtest.Detach(tb, k, []byte(text), date)...)
		}
		s.a.put(dir+"Release.gpg", sig, date)
	}
}

// clearSign makes one message with a signature block by each key.
func clearSign(tb testing.TB, keys []*sign.PrivateKey, text string, date time.Time) []byte {
	tb.Helper()
	out := signtest.ClearSign(tb, keys[0], text, date)
	for _, k := range keys[1:] {
		more := string(signtest.ClearSign(tb, k, text, date))
		i := strings.Index(more, "-----BEGIN PGP SIGNATURE-----")
		out = append(out, more[i:]...)
	}
	return out
}

// indices returns the plain content of each index, by path relative to the suite.
func (s *Suite) indices() map[string][]byte {
	out := make(map[string][]byte)
	sorted := slices.Clone(s.pkgs)
	slices.SortStableFunc(sorted, func(a, b *binary) int {
		return strings.Compare(a.Name+" "+a.Package.Version, b.Name+" "+b.Package.Version)
	})
	if s.flat() {
		var b strings.Builder
		for _, p := range sorted {
			b.WriteString(p.stanza(true, s.SHA512))
		}
		out["Packages"] = []byte(b.String())
		if s.Sources && len(s.srcs) > 0 {
			out["Sources"] = s.sources("")
		}
		return out
	}
	archs := slices.Clone(s.Architectures)
	if s.BinaryAll {
		archs = append(archs, "all")
	}
	for _, comp := range s.Components {
		udebs := slices.ContainsFunc(sorted, func(b *binary) bool { return b.Udeb && b.Component == comp })
		for _, arch := range archs {
			var pkgs, udeb, contents strings.Builder
			for _, p := range sorted {
				in := p.Arch == arch || p.Arch == "all" && arch != "all" && (!s.BinaryAll || s.NoSupportForAll)
				if p.Component != comp || !in {
					continue
				}
				if p.Udeb {
					udeb.WriteString(p.stanza(true, s.SHA512))
					continue
				}
				pkgs.WriteString(p.stanza(len(s.Languages) == 0, s.SHA512))
				for _, f := range slices.Sorted(maps.Keys(p.Files)) {
					fmt.Fprintf(&contents, "%-60s %s/%s\n", strings.TrimPrefix(f, "/"), or(p.Fields["Section"], "misc"), p.Name)
				}
			}
			out[comp+"/binary-"+arch+"/Packages"] = []byte(pkgs.String())
			if udebs {
				out[comp+"/debian-installer/binary-"+arch+"/Packages"] = []byte(udeb.String())
			}
			if s.Contents {
				out[comp+"/Contents-"+arch] = []byte(contents.String())
			}
		}
		if s.Sources && len(s.srcs) > 0 {
			out[comp+"/source/Sources"] = s.sources(comp)
		}
		for _, lang := range s.Languages {
			var b strings.Builder
			seen := make(map[string]bool)
			for _, p := range sorted {
				id := p.Name + " " + p.descriptionMD5()
				if p.Component != comp || p.Udeb || seen[id] {
					continue
				}
				seen[id] = true
				fmt.Fprintf(&b, "Package: %s\nDescription-md5: %s\nDescription-%s: %s\n", p.Name, p.descriptionMD5(), lang, p.longDescription())
			}
			out[comp+"/i18n/Translation-"+lang] = []byte(b.String())
		}
	}
	return out
}

// stanza returns the package's stanza with the blank line after it.
func (b *binary) stanza(long, by512 bool) string {
	text := b.control(long)
	for _, k := range slices.Sorted(maps.Keys(b.override)) {
		lines := strings.SplitAfter(text, "\n")
		for i, l := range lines {
			if strings.HasPrefix(l, k+":") {
				lines[i] = k + ": " + b.override[k] + "\n"
			}
		}
		if text = strings.Join(lines, ""); !strings.Contains("\n"+text, "\n"+k+":") {
			text += k + ": " + b.override[k] + "\n"
		}
	}
	strong := "SHA256: " + b.sha256
	if by512 {
		strong = "SHA512: " + b.sha512
	}
	return text + fmt.Sprintf("Filename: %s\nSize: %d\nMD5sum: %s\n%s\n\n", b.poolPath(), b.size, b.md5, strong)
}

func (s *Suite) sources(comp string) []byte {
	var b strings.Builder
	for i, src := range s.srcs {
		if comp != "" && src.Component != comp {
			continue
		}
		b.WriteString(src.fields("Package"))
		fmt.Fprintf(&b, "Format: 1.0\nDirectory: %s\n%s\n", s.sourceDir(src), src.files(s.srcPaths[i], s.SHA512))
	}
	return []byte(b.String())
}

func fromPackages(tb testing.TB, r io.Reader, max int) []Package {
	tb.Helper()
	var out []Package
	for pr := deb822.NewReader(r, 0); max == 0 || len(out) < max; {
		par, err := pr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		p := Package{Fields: make(map[string]string)}
		sc := par.Scan()
		for sc.Next() {
			switch name, value := string(sc.Name()), string(sc.Value()); name {
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			case "Architecture":
				p.Arch = value
			case "Source":
				p.Source = value
			case "Description":
				p.Description = value
			case "Filename":
				p.Filename = value
			case "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Description-md5":
			default:
				p.Fields[name] = value
			}
		}
		if err := sc.Err(); err != nil {
			tb.Fatal(err)
		}
		p.Body = fmt.Appendf(nil, "%s %s %s\n", p.Name, p.Version, p.Arch)
		out = append(out, p)
	}
	return out
}

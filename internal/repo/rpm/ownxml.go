package rpm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmpkg"
)

// Header tags (rpmtag.h) that metadata elements are generated from.
const (
	tagSummary       = 1004
	tagDescription   = 1005
	tagBuildTime     = 1006
	tagBuildHost     = 1007
	tagSize          = 1009
	tagVendor        = 1011
	tagLicense       = 1014
	tagPackager      = 1015
	tagGroup         = 1016
	tagURL           = 1020
	tagOldFilenames  = 1027
	tagFileModes     = 1030
	tagFileFlags     = 1037
	tagChangelogTime = 1080
	tagChangelogName = 1081
	tagChangelogText = 1082
	tagDirIndexes    = 1116
	tagBasenames     = 1117
	tagDirNames      = 1118
	tagLongSize      = 5009
)

// Bits of relation flags (rpmds.h) and file flags (rpmfiles.h).
const (
	senseLess    = 1 << 1
	senseGreater = 1 << 2
	senseEqual   = 1 << 3
	sensePre     = 1<<6 | 1<<9 | 1<<10 // prereq, pre, post
	fileGhost    = 1 << 6
	modeType     = 0o170000
	modeDir      = 0o040000
)

// relationTags are the kinds of relations and their header tags, in the order in which
// createrepo_c writes them.
var relationTags = []struct {
	element              string
	name, flags, version uint32
}{
	{"provides", 1047, 1112, 1113},
	{"requires", 1049, 1048, 1050},
	{"conflicts", 1054, 1053, 1055},
	{"obsoletes", 1090, 1114, 1115},
	{"suggests", 5049, 5051, 5050},
	{"enhances", 5055, 5057, 5056},
	{"recommends", 5046, 5048, 5047},
	{"supplements", 5052, 5054, 5053},
}

// maxChangelog is the number of changelog entries in other, as with createrepo_c.
const maxChangelog = 10

// xmlText builds the text of an element.
type xmlText struct{ bytes.Buffer }

// f appends formatted text. It escapes arguments that are strings.
func (x *xmlText) f(format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = rpmmd.Escape(s)
		}
	}
	fmt.Fprintf(x, format, args...)
}

func first(i *rpmpkg.Info, tag uint32) string {
	if s := i.Strings(tag); len(s) > 0 {
		return s[0]
	}
	return ""
}

func firstNumber(i *rpmpkg.Info, tags ...uint32) uint64 {
	for _, tag := range tags {
		if n := i.Numbers(tag); len(n) > 0 {
			return n[0]
		}
	}
	return 0
}

func (x *xmlText) version(e nevra.EVR) {
	x.f("  <version epoch=\"%d\" ver=\"%s\" rel=\"%s\"/>\n", e.Epoch, e.Version, e.Release)
}

// primaryElement returns a package's element in primary. Its file time is the build time,
// which, unlike a modification time, is the same on every server.
func primaryElement(i *rpmpkg.Info, file repo.File, href string) []byte {
	var x xmlText
	built := firstNumber(i, tagBuildTime)
	x.f("<package type=\"rpm\">\n  <name>%s</name>\n  <arch>%s</arch>\n", i.Name, i.Arch)
	x.version(i.EVR)
	x.f("  <checksum type=\"sha256\" pkgid=\"YES\">%s</checksum>\n", file.SHA256.String())
	x.f("  <summary>%s</summary>\n  <description>%s</description>\n", first(i, tagSummary), first(i, tagDescription))
	x.f("  <packager>%s</packager>\n  <url>%s</url>\n", first(i, tagPackager), first(i, tagURL))
	x.f("  <time file=\"%d\" build=\"%d\"/>\n", built, built)
	x.f("  <size package=\"%d\" installed=\"%d\" archive=\"%d\"/>\n", file.Size, firstNumber(i, tagLongSize, tagSize), i.PayloadSize())
	x.f("  <location href=\"%s\"/>\n  <format>\n", rpmmd.FormatHref(href))
	x.f("    <rpm:license>%s</rpm:license>\n    <rpm:vendor>%s</rpm:vendor>\n", first(i, tagLicense), first(i, tagVendor))
	x.f("    <rpm:group>%s</rpm:group>\n    <rpm:buildhost>%s</rpm:buildhost>\n", first(i, tagGroup), first(i, tagBuildHost))
	x.f("    <rpm:sourcerpm>%s</rpm:sourcerpm>\n    <rpm:header-range start=\"%d\" end=\"%d\"/>\n", i.SourceRPM, i.HeaderStart, i.HeaderEnd)
	files := slices.DeleteFunc(packageFiles(i), func(f packageFile) bool { return !f.primary() })
	own := map[string]bool{} // entries of the package's provides
	for _, f := range files {
		own[relationEntry(f.path, 0, "")] = true
	}
	for _, r := range relationTags {
		x.relations(r.element, i.Strings(r.name), i.Numbers(r.flags), i.Strings(r.version), own)
	}
	for _, f := range files {
		x.file("    ", f)
	}
	x.WriteString("  </format>\n</package>")
	return x.Bytes()
}

// relations writes the relations of one kind, without duplicates. Like createrepo_c, it
// omits requirements that the package itself provides and those for features of rpm.
func (x *xmlText) relations(element string, names []string, flags []uint64, versions []string, own map[string]bool) {
	seen := map[string]bool{}
	for n, name := range names {
		if n >= len(flags) || n >= len(versions) {
			break
		}
		e := relationEntry(name, flags[n], versions[n])
		switch element {
		case "provides":
			own[e] = true
		case "requires":
			if own[e] || strings.HasPrefix(name, "rpmlib(") {
				continue
			}
			if flags[n]&sensePre != 0 {
				e += " pre=\"1\""
			}
		}
		if seen[e] {
			continue
		}
		if len(seen) == 0 {
			x.f("    <rpm:%s>\n", element)
		}
		seen[e] = true
		x.WriteString("      " + e + "/>\n")
	}
	if len(seen) > 0 {
		x.f("    </rpm:%s>\n", element)
	}
}

// relationEntry returns the start of a relation's entry, without the closing "/>".
func relationEntry(name string, flags uint64, version string) string {
	var e xmlText
	e.f("<rpm:entry name=\"%s\"", name)
	if op := senseName(flags); op != "" {
		e.f(" flags=\"%s\"", op)
		if evr := relationVersion(version); evr.Version != "" {
			e.f(" epoch=\"%d\" ver=\"%s\"", evr.Epoch, evr.Version)
			if evr.Release != "" {
				e.f(" rel=\"%s\"", evr.Release)
			}
		}
	}
	return e.String()
}

func senseName(flags uint64) string {
	switch flags & (senseLess | senseGreater | senseEqual) {
	case senseEqual:
		return "EQ"
	case senseLess:
		return "LT"
	case senseLess | senseEqual:
		return "LE"
	case senseGreater:
		return "GT"
	case senseGreater | senseEqual:
		return "GE"
	}
	return ""
}

// relationVersion splits "[epoch:]version[-release]".
func relationVersion(s string) (e nevra.EVR) {
	if epoch, rest, ok := strings.Cut(s, ":"); ok {
		if _, err := fmt.Sscanf(epoch, "%d", &e.Epoch); err == nil {
			s = rest
		}
	}
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		s, e.Release = s[:i], s[i+1:]
	}
	e.Version = s
	return e
}

// packageFile is a file that a package installs.
type packageFile struct{ path, kind string }

// primary reports whether primary lists the file, by createrepo_c's rule.
func (f packageFile) primary() bool {
	return strings.Contains(f.path, "bin/") || strings.HasPrefix(f.path, "/etc/") || f.path == "/usr/lib/sendmail"
}

// packageFiles lists the files of a package, in the order of its header.
func packageFiles(i *rpmpkg.Info) (out []packageFile) {
	names := i.Strings(tagOldFilenames)
	dirs, at := i.Strings(tagDirNames), i.Numbers(tagDirIndexes)
	for n, base := range i.Strings(tagBasenames) {
		if n < len(at) && at[n] < uint64(len(dirs)) {
			names = append(names, dirs[at[n]]+base)
		}
	}
	modes, flags := i.Numbers(tagFileModes), i.Numbers(tagFileFlags)
	for n, p := range names {
		f := packageFile{path: p}
		if n < len(modes) && modes[n]&modeType == modeDir {
			f.kind = "dir"
		} else if n < len(flags) && flags[n]&fileGhost != 0 {
			f.kind = "ghost"
		}
		out = append(out, f)
	}
	return out
}

func (x *xmlText) file(indent string, f packageFile) {
	if f.kind != "" {
		x.f(indent+"<file type=\"%s\">%s</file>\n", f.kind, f.path)
		return
	}
	x.f(indent+"<file>%s</file>\n", f.path)
}

// listedElement writes the start of a package's element in filelists or other.
func (x *xmlText) listedElement(i *rpmpkg.Info, pkgid string) {
	x.f("<package pkgid=\"%s\" name=\"%s\" arch=\"%s\">\n", pkgid, i.Name, i.Arch)
	x.version(i.EVR)
}

// filelistsElement returns a package's element in filelists.
func filelistsElement(i *rpmpkg.Info, pkgid string) []byte {
	var x xmlText
	x.listedElement(i, pkgid)
	for _, f := range packageFiles(i) {
		x.file("  ", f)
	}
	x.WriteString("</package>")
	return x.Bytes()
}

// otherElement returns a package's element in other, with the newest maxChangelog entries
// of its changelog, oldest first.
func otherElement(i *rpmpkg.Info, pkgid string) []byte {
	var x xmlText
	x.listedElement(i, pkgid)
	times, authors, texts := i.Numbers(tagChangelogTime), i.Strings(tagChangelogName), i.Strings(tagChangelogText)
	for n := min(len(times), len(authors), len(texts), maxChangelog) - 1; n >= 0; n-- {
		x.f("  <changelog author=\"%s\" date=\"%d\">%s</changelog>\n", authors[n], times[n], texts[n])
	}
	x.WriteString("</package>")
	return x.Bytes()
}

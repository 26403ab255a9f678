package debtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Package is one binary package. Only Name is needed.
type Package struct {
	Name      string
	Version   string // "1.0-1"
	Arch      string // "amd64"
	Component string // "main"
	// Source is the Source field, "name" or "name (version)"; empty for a
	// source named like the package.
	Source string
	// Fields are further control fields: Depends, Multi-Arch, Section …
	Fields map[string]string
	// Description is the synopsis and, after the first newline, the long
	// description.
	Description string
	// Files are the files that the package installs, by absolute path.
	Files map[string]string
	// Scripts are maintainer scripts: "postinst" and so on.
	Scripts map[string]string
	// Compression of control.tar and data.tar: ".gz" (default), ".xz", ".zst",
	// "" is written as "none".
	Compression string
	// Body, if set, is the content of the file instead of a real .deb.
	Body []byte
	// Filename overrides the pool path of the file, also in the index.
	Filename string
	Udeb     bool // listed in debian-installer/
}

// Source is one source package of format 1.0, native. Only Name is needed.
type Source struct {
	Name      string
	Version   string // "1.0-1"
	Component string // "main"
	Binaries  []string
	Fields    map[string]string
	Files     map[string]string // content of the tar file, by relative path
}

// epoch is the time of every archive member, so that packages do not depend on the clock.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (p Package) withDefaults() Package {
	p.Version = or(p.Version, "1.0-1")
	p.Arch = or(p.Arch, "amd64")
	p.Component = or(p.Component, "main")
	p.Description = or(p.Description, "test package "+p.Name+"\nIt has no use.")
	return p
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// source returns the name of the source package.
func (p Package) source() string {
	name, _, _ := strings.Cut(or(p.Source, p.Name), " ")
	return name
}

func (p Package) ext() string {
	if p.Udeb {
		return ".udeb"
	}
	return ".deb"
}

// poolPath returns the package's path in the archive.
func (p Package) poolPath() string {
	if p.Filename != "" {
		return p.Filename
	}
	return poolDir(p.Component, p.source()) + "/" + p.Name + "_" + noEpoch(p.Version) + "_" + p.Arch + p.ext()
}

func poolDir(component, source string) string {
	prefix := source[:1]
	if strings.HasPrefix(source, "lib") && len(source) > 3 {
		prefix = source[:4]
	}
	return path.Join("pool", component, prefix, source)
}

func noEpoch(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		return rest
	}
	return v
}

// control returns the fields of the package itself, in a fixed order, with the
// long description if long.
func (p Package) control(long bool) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	line("Package", p.Name)
	line("Source", p.Source)
	line("Version", p.Version)
	line("Architecture", p.Arch)
	fields := map[string]string{"Maintainer": "Nobody <nobody@example.org>", "Section": "misc", "Priority": "optional"}
	maps.Copy(fields, p.Fields)
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		line(k, fields[k])
	}
	synopsis, _, _ := strings.Cut(p.Description, "\n")
	if long {
		b.WriteString("Description: " + p.longDescription())
	} else {
		line("Description", synopsis)
		line("Description-md5", p.descriptionMD5())
	}
	return b.String()
}

// longDescription returns the value of a Description field, newline included.
func (p Package) longDescription() string {
	lines := strings.Split(p.Description, "\n")
	for i := 1; i < len(lines); i++ {
		if lines[i] = " " + lines[i]; lines[i] == " " {
			lines[i] = " ."
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func (p Package) descriptionMD5() string {
	sum := md5.Sum([]byte(p.longDescription()))
	return hex.EncodeToString(sum[:])
}

// Deb returns the bytes of the package: a real .deb (deb(5)) that dpkg installs.
// Equal packages give equal bytes.
func (p Package) Deb(tb testing.TB) []byte {
	tb.Helper()
	if p.Body != nil {
		return p.Body
	}
	p = p.withDefaults()
	data := make(map[string]member)
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		rel := strings.TrimPrefix(name, "/")
		data[rel] = member{body: p.Files[name], mode: 0o644}
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum([]byte(p.Files[name])), rel)
	}
	control := map[string]member{"control": {body: p.control(true), mode: 0o644}}
	if sums.Len() > 0 {
		control["md5sums"] = member{body: sums.String(), mode: 0o644}
	}
	for name, body := range p.Scripts {
		control[name] = member{body: body, mode: 0o755}
	}
	suffix := or(p.Compression, ".gz")
	if suffix == "none" {
		suffix = ""
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	arMember(&out, "debian-binary", []byte("2.0\n"))
	arMember(&out, "control.tar"+suffix, Compress(tb, suffix, tarOf(tb, control)))
	arMember(&out, "data.tar"+suffix, Compress(tb, suffix, tarOf(tb, data)))
	return out.Bytes()
}

func arMember(out *bytes.Buffer, name string, data []byte) {
	fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, epoch.Unix(), 0, 0, "100644", len(data))
	out.Write(data)
	if len(data)%2 == 1 {
		out.WriteByte('\n')
	}
}

type member struct {
	body string
	mode int64
}

// tarOf packs files with the directories above them, sorted.
func tarOf(tb testing.TB, files map[string]member) []byte {
	tb.Helper()
	all := map[string]member{"./": {mode: 0o755}}
	for name, f := range files {
		all["./"+name] = f
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			all["./"+dir+"/"] = member{mode: 0o755}
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		h := &tar.Header{Name: name, Mode: f.mode, Size: int64(len(f.body)), ModTime: epoch, Typeflag: tar.TypeReg, Uname: "root", Gname: "root", Format: tar.FormatGNU}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// file is one file of a source package.
type file struct {
	name string
	data []byte
}

// build returns the .dsc and the tar file.
func (s Source) build(tb testing.TB) []file {
	tb.Helper()
	stem := s.Name + "_" + noEpoch(s.Version)
	members := map[string]member{
		"debian/changelog": {mode: 0o644, body: fmt.Sprintf("%s (%s) unstable; urgency=low\n\n  * A test.\n\n -- Nobody <nobody@example.org>  Wed, 01 Jan 2020 00:00:00 +0000\n", s.Name, s.Version)},
		"debian/control":   {mode: 0o644, body: "Source: " + s.Name + "\nMaintainer: Nobody <nobody@example.org>\n\nPackage: " + s.Binaries[0] + "\nArchitecture: any\nDescription: test\n"},
	}
	for name, body := range s.Files {
		members[name] = member{mode: 0o644, body: body}
	}
	top := make(map[string]member, len(members))
	for name, m := range members {
		top[s.Name+"/"+name] = m
	}
	tarball := file{stem + ".tar.gz", Compress(tb, ".gz", tarOf(tb, top))}
	dsc := file{stem + ".dsc", []byte("Format: 1.0\n" + s.fields("Source") + s.files([]file{tarball}, false))}
	return []file{dsc, tarball}
}

func (s Source) fields(first string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\nBinary: %s\nVersion: %s\nMaintainer: Nobody <nobody@example.org>\nArchitecture: any\n", first, s.Name, strings.Join(s.Binaries, ", "), s.Version)
	for _, k := range slices.Sorted(maps.Keys(s.Fields)) {
		fmt.Fprintf(&b, "%s: %s\n", k, s.Fields[k])
	}
	return b.String()
}

func (s Source) files(files []file, by512 bool) string {
	var b strings.Builder
	b.WriteString("Files:\n")
	for _, f := range files {
		fmt.Fprintf(&b, " %x %d %s\n", md5.Sum(f.data), len(f.data), f.name)
	}
	field := "SHA256"
	if by512 {
		field = "SHA512"
	}
	b.WriteString("Checksums-Sha" + strings.TrimPrefix(field, "SHA") + ":\n")
	for _, f := range files {
		fmt.Fprintf(&b, " %s %d %s\n", sum(field, f.data), len(f.data), f.name)
	}
	return b.String()
}

// Compress returns data in the compression that belongs to a suffix of file
// names: "", ".gz", ".xz", ".zst". Equal data give equal bytes.
func Compress(tb testing.TB, suffix string, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	var err error
	switch suffix {
	case "":
		return data
	case ".gz":
		w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		_, err = w.Write(data)
		if err == nil {
			err = w.Close()
		}
	case ".xz":
		var w *xz.Writer
		if w, err = (xz.WriterConfig{DictCap: 1 << 20}).NewWriter(&out); err == nil {
			if _, err = w.Write(data); err == nil {
				err = w.Close()
			}
		}
	case ".zst":
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1)); err == nil {
			if _, err = w.Write(data); err == nil {
				err = w.Close()
			}
		}
	default:
		// bz2, lz4 and lzma are written by the tools of that name.
		return compressByTool(tb, suffix, data)
	}
	if err != nil {
		tb.Fatalf("compress %s: %v", suffix, err)
	}
	return out.Bytes()
}

// Decompress undoes Compress for "", ".gz", ".xz" and ".zst".
func Decompress(tb testing.TB, suffix string, data []byte) []byte {
	tb.Helper()
	var r io.Reader = bytes.NewReader(data)
	var err error
	switch suffix {
	case "":
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".xz":
		r, err = xz.NewReader(r)
	case ".zst":
		r, err = zstd.NewReader(r)
	default:
		tb.Fatalf("decompress %q: unknown", suffix)
	}
	if err == nil {
		data, err = io.ReadAll(r)
	}
	if err != nil {
		tb.Fatalf("decompress %s: %v", suffix, err)
	}
	return data
}

// Digest returns the hexadecimal digest of data by a Release's name for it:
// MD5Sum, SHA1, SHA256, SHA512.
func Digest(field string, data []byte) string { return sum(field, data) }

package rpmtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"example.org/snapd/internal/sign"
)

// Options configures a repository. The zero value gives an unsigned repository like that
// of createrepo_c.
type Options struct {
	Signer        *sign.Signer // signs repomd.xml; nil: no signature
	PackageSigner *sign.Signer // signs packages; nil: Signer; if both are nil, packages are unsigned
	Compress      string       // ".gz" (the default), ".zst", ".xz" or "none"
	SimpleNames   bool         // "primary.xml.gz" without a digest
	Checksum      string       // of metadata and packages: "sha256" (the default), "sha512", "sha384" or "sha1"
	// PackageChecksum is the checksum of packages, if it is not Checksum.
	PackageChecksum string
	XMLBase         string // xml:base of all locations
	// KeepOld keeps files of earlier generations, as mirrors with hash-named metadata
	// do for a while.
	KeepOld bool
}

// Repo is an rpm-md repository that can change over time. It is an http.Handler. It is
// safe for concurrent use.
type Repo struct {
	Options
	// Edit, if not nil, changes a document before it is compressed: "primary",
	// "filelists", "other", or a type passed to SetData. EditRepoMD changes
	// repomd.xml before it is signed.
	Edit       func(typ string, doc []byte) []byte
	EditRepoMD func(doc []byte) []byte
	// Fault, if not nil, is called for each request first. If it returns true, it has
	// answered the request.
	Fault func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	pkgs     []*Built
	data     []extraData
	tags     string
	at       time.Time
	files    map[string]file
	requests []string
	metalink []byte
	old      []string // alternates in the metalink: <mm0:alternate> elements for older repomd.xml
}

type file struct {
	data []byte
	at   time.Time
}

type extraData struct {
	typ, name string
	doc       []byte
}

// New makes an empty repository. It is served after the first Publish.
func New(opts Options) *Repo {
	if opts.Compress == "" {
		opts.Compress = ".gz"
	}
	if opts.Compress == "none" {
		opts.Compress = ""
	}
	if opts.Checksum == "" {
		opts.Checksum = "sha256"
	}
	return &Repo{Options: opts, files: map[string]file{}}
}

// Add builds and signs packages and adds them to the next generation.
func (r *Repo) Add(pkgs ...Package) []*Built {
	var out []*Built
	signer := r.PackageSigner
	if signer == nil {
		signer = r.Signer
	}
	for _, p := range pkgs {
		if signer == nil {
			out = append(out, p.Build())
		} else {
			out = append(out, p.Build(signer))
		}
	}
	r.AddBuilt(out...)
	return out
}

// AddBuilt adds packages to the next generation.
func (r *Repo) AddBuilt(pkgs ...*Built) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pkgs = append(r.pkgs, pkgs...)
}

// Remove removes all packages with these names from the next generation.
func (r *Repo) Remove(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pkgs = slices.DeleteFunc(r.pkgs, func(b *Built) bool { return slices.Contains(names, b.Name) })
}

// SetData sets the metadata of a type ("group", "updateinfo", "modules", or any
// other) from the next generation on. It is compressed according to the extension of
// name. A nil doc removes it.
func (r *Repo) SetData(typ, name string, doc []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = slices.DeleteFunc(r.data, func(d extraData) bool { return d.typ == typ })
	if doc != nil {
		r.data = append(r.data, extraData{typ, name, doc})
	}
}

// SetTags sets the content of <tags> in repomd.xml.
func (r *Repo) SetTags(xml string) { r.tags = xml }

// Publish atomically publishes the next generation with the date at.
func (r *Repo) Publish(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := map[string]file{}
	if r.KeepOld {
		maps.Copy(next, r.files)
	}
	r.at = at
	for _, b := range r.pkgs {
		next[b.Href()] = file{b.Bytes, b.BuildTime}
	}
	var lists [3]bytes.Buffer
	n := len(r.pkgs)
	fmt.Fprintf(&lists[0], "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"%d\">\n", n)
	fmt.Fprintf(&lists[1], "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<filelists xmlns=\"http://linux.duke.edu/metadata/filelists\" packages=\"%d\">\n", n)
	fmt.Fprintf(&lists[2], "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<otherdata xmlns=\"http://linux.duke.edu/metadata/other\" packages=\"%d\">\n", n)
	algo := r.Checksum
	if r.PackageChecksum != "" {
		algo = r.PackageChecksum
	}
	for _, b := range r.pkgs {
		id := sum(algo, b.Bytes)
		b.writePrimary(&lists[0], algo, id, r.XMLBase)
		b.writeFilelists(&lists[1], id)
		b.writeOther(&lists[2], id)
	}
	lists[0].WriteString("</metadata>\n")
	lists[1].WriteString("</filelists>\n")
	lists[2].WriteString("</otherdata>\n")

	var md bytes.Buffer
	fmt.Fprintf(&md, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n  <revision>%d</revision>\n", at.Unix())
	if r.tags != "" {
		md.WriteString("  <tags>" + r.tags + "</tags>\n")
	}
	for i, typ := range []string{"primary", "filelists", "other"} {
		r.put(next, &md, typ, typ+".xml"+r.Compress, lists[i].Bytes())
	}
	for _, d := range r.data {
		r.put(next, &md, d.typ, d.name, d.doc)
	}
	md.WriteString("</repomd>\n")
	doc := md.Bytes()
	if r.EditRepoMD != nil {
		doc = r.EditRepoMD(doc)
	}
	if prev, ok := r.files["repodata/repomd.xml"]; ok {
		r.old = append([]string{"      <mm0:alternate>\n" + metalinkFile(prev.data, prev.at) + "      </mm0:alternate>\n"}, r.old...)
	}
	next["repodata/repomd.xml"] = file{doc, at}
	delete(next, "repodata/repomd.xml.asc")
	if r.Signer != nil {
		asc, err := r.Signer.SignDetached(doc, at)
		if err != nil {
			panic(err)
		}
		next["repodata/repomd.xml.asc"] = file{asc, at}
	}
	r.files = next
}

// put compresses a document and lists it in repomd.xml.
func (r *Repo) put(next map[string]file, md *bytes.Buffer, typ, name string, doc []byte) {
	if r.Edit != nil {
		doc = r.Edit(typ, doc)
	}
	packed := Pack(name, doc)
	digest := sum(r.Checksum, packed)
	path := "repodata/" + name
	if !r.SimpleNames {
		path = "repodata/" + digest + "-" + name
	}
	next[path] = file{packed, r.at}
	fmt.Fprintf(md, "  <data type=\"%s\">\n    <checksum type=\"%s\">%s</checksum>\n", typ, r.Checksum, digest)
	if filepath.Ext(name) == ".gz" || filepath.Ext(name) == ".zst" || filepath.Ext(name) == ".xz" {
		fmt.Fprintf(md, "    <open-checksum type=\"%s\">%s</open-checksum>\n", r.Checksum, sum(r.Checksum, doc))
		fmt.Fprintf(md, "    <open-size>%d</open-size>\n", len(doc))
	}
	fmt.Fprintf(md, "    <location href=\"%s\"/>\n    <timestamp>%d</timestamp>\n    <size>%d</size>\n  </data>\n", path, r.at.Unix(), len(packed))
}

// Pack compresses a document according to the extension of its name.
func Pack(name string, doc []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch filepath.Ext(name) {
	case ".gz":
		w, err = gzip.NewWriterLevel(&b, 6)
	case ".zst":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	case ".xz":
		w, err = xz.NewWriter(&b)
	default:
		return doc
	}
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(doc); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func sum(algo string, b []byte) string {
	var h hash.Hash
	switch algo {
	case "sha512":
		h = sha512.New()
	case "sha384":
		h = sha512.New384()
	case "sha1", "sha":
		h = sha1.New()
	default:
		h = sha256.New()
	}
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// esc escapes text for XML.
var esc = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace

func (b *Built) writePrimary(w *bytes.Buffer, algo, id, base string) {
	e := b.EVR()
	if base != "" {
		base = ` xml:base="` + esc(base) + `"`
	}
	fmt.Fprintf(w, `<package type="rpm">
  <name>%s</name>
  <arch>%s</arch>
  <version epoch="%d" ver="%s" rel="%s"/>
  <checksum type="%s" pkgid="YES">%s</checksum>
  <summary>%s</summary>
  <description>Description of %s.</description>
  <packager/>
  <url>https://example.org/%s</url>
  <time file="%d" build="%d"/>
  <size package="%d" installed="%d" archive="%d"/>
  <location%s href="%s"/>
  <format>
    <rpm:license>%s</rpm:license>
    <rpm:vendor>Example</rpm:vendor>
    <rpm:group>Unspecified</rpm:group>
    <rpm:buildhost>build.example.org</rpm:buildhost>
    <rpm:sourcerpm>%s</rpm:sourcerpm>
    <rpm:header-range start="%d" end="%d"/>
`, esc(b.Name), esc(b.Arch), e.Epoch, esc(e.Version), esc(e.Release), algo, id, esc(b.Summary), esc(b.Name), esc(b.Name),
		b.BuildTime.Unix(), b.BuildTime.Unix(), len(b.Bytes), b.Installed, b.Archive, base, esc(b.Href()), esc(b.License), esc(b.SourceRPM), b.HeaderStart, b.HeaderEnd)
	writeRels(w, "provides", b.provides())
	requires := mapRels(b.Requires)
	for i := range b.FakeRequires {
		requires = append(requires, rel{name: fmt.Sprintf("lib%s-needs-%d.so.1()(64bit)", b.Name, i)})
	}
	writeRels(w, "requires", requires)
	writeRels(w, "conflicts", mapRels(b.Conflicts))
	writeRels(w, "obsoletes", mapRels(b.Obsoletes))
	for _, f := range b.Files {
		if strings.HasPrefix(f.Path, "/etc/") || strings.Contains(f.Path, "bin/") {
			fmt.Fprintf(w, "    <file>%s</file>\n", esc(f.Path))
		}
	}
	w.WriteString("  </format>\n</package>\n")
}

func writeRels(w *bytes.Buffer, name string, rels []rel) {
	if len(rels) == 0 {
		return
	}
	fmt.Fprintf(w, "    <rpm:%s>\n", name)
	for _, r := range rels {
		fmt.Fprintf(w, `      <rpm:entry name="%s"`, esc(r.name))
		if r.version != "" {
			flag := map[uint32]string{relLess: "LT", relGreater: "GT", relEqual: "EQ", relLess | relEqual: "LE", relGreater | relEqual: "GE"}[r.flags&14]
			epoch, ver, ok := strings.Cut(r.version, ":")
			if !ok {
				epoch, ver = "0", r.version
			}
			ver, release, ok := strings.Cut(ver, "-")
			fmt.Fprintf(w, ` flags="%s" epoch="%s" ver="%s"`, flag, epoch, esc(ver))
			if ok {
				fmt.Fprintf(w, ` rel="%s"`, esc(release))
			}
		}
		w.WriteString("/>\n")
	}
	fmt.Fprintf(w, "    </rpm:%s>\n", name)
}

func (b *Built) listHead(w *bytes.Buffer, id string) {
	e := b.EVR()
	fmt.Fprintf(w, "<package pkgid=\"%s\" name=\"%s\" arch=\"%s\">\n  <version epoch=\"%d\" ver=\"%s\" rel=\"%s\"/>\n",
		id, esc(b.Name), esc(b.Arch), e.Epoch, esc(e.Version), esc(e.Release))
}

func (b *Built) writeFilelists(w *bytes.Buffer, id string) {
	b.listHead(w, id)
	for _, f := range b.Files {
		fmt.Fprintf(w, "  <file>%s</file>\n", esc(f.Path))
	}
	for i := range b.FakeFiles {
		fmt.Fprintf(w, "  <file>/usr/share/%s/some/directory/with/a/name/of-usual-length-%d.py</file>\n", esc(b.Name), i)
	}
	w.WriteString("</package>\n")
}

func (b *Built) writeOther(w *bytes.Buffer, id string) {
	b.listHead(w, id)
	fmt.Fprintf(w, "  <changelog author=\"Packager &lt;packager@example.org&gt; - %s\" date=\"%d\">- Built.</changelog>\n</package>\n", esc(b.EVR().String()), b.BuildTime.Unix())
}

// File returns the bytes of a published file, or nil if it does not exist.
func (r *Repo) File(path string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files[path].data
}

// Paths lists the published files, sorted.
func (r *Repo) Paths() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.files))
}

// Find returns the first published path that ends with suffix.
func (r *Repo) Find(suffix string) string {
	for _, p := range r.Paths() {
		if strings.HasSuffix(p, suffix) {
			return p
		}
	}
	return ""
}

// SetFile replaces or adds a published file. A nil data removes it.
func (r *Repo) SetFile(path string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if data == nil {
		delete(r.files, path)
		return
	}
	r.files[path] = file{data, r.at}
}

// WriteDir writes the published files below dir.
func (r *Repo) WriteDir(dir string) error {
	for _, p := range r.Paths() {
		name := filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, r.File(p), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Metalink returns a metalink for the published repomd.xml and earlier ones at the
// given base URLs, most preferred first. It is also served at /metalink.
func (r *Repo) Metalink(bases ...string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b bytes.Buffer
	f := r.files["repodata/repomd.xml"]
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" xmlns:mm0="http://fedorahosted.org/mirrormanager">
  <files>
    <file name="repomd.xml">
`)
	b.WriteString(metalinkFile(f.data, f.at))
	if len(r.old) > 0 {
		b.WriteString("      <mm0:alternates>\n" + strings.Join(r.old, "") + "      </mm0:alternates>\n")
	}
	b.WriteString("      <resources maxconnections=\"1\">\n        <url protocol=\"rsync\" type=\"rsync\" preference=\"100\">rsync://mirror.example.org/repodata/repomd.xml</url>\n")
	for i, base := range bases {
		fmt.Fprintf(&b, "        <url protocol=\"https\" type=\"https\" location=\"DE\" preference=\"%d\">%s/repodata/repomd.xml</url>\n", 100-i, esc(base))
	}
	b.WriteString("      </resources>\n    </file>\n  </files>\n</metalink>\n")
	r.metalink = b.Bytes()
	return r.metalink
}

func metalinkFile(data []byte, at time.Time) string {
	return fmt.Sprintf(`      <mm0:timestamp>%d</mm0:timestamp>
      <size>%d</size>
      <verification>
        <hash type="sha1">%s</hash>
        <hash type="sha256">%s</hash>
        <hash type="sha512">%s</hash>
      </verification>
`, at.Unix(), len(data), sum("sha1", data), sum("sha256", data), sum("sha512", data))
}

// Requests returns the requests since its last call, as "GET /path" or "GET /path 304".
func (r *Repo) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = nil
	return out
}

// ServeHTTP serves the published files, with conditional requests and ranges.
func (r *Repo) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		line := req.Method + " " + req.URL.Path
		if rec.status != http.StatusOK {
			line += fmt.Sprintf(" %d", rec.status)
		}
		r.mu.Lock()
		r.requests = append(r.requests, line)
		r.mu.Unlock()
	}()
	if r.Fault != nil && r.Fault(rec, req) {
		return
	}
	r.mu.Lock()
	f, ok := r.files[strings.TrimPrefix(req.URL.Path, "/")]
	if !ok && req.URL.Path == "/metalink" && r.metalink != nil {
		f, ok = file{r.metalink, r.at}, true
	}
	r.mu.Unlock()
	if !ok {
		http.NotFound(rec, req)
		return
	}
	rec.Header().Set("Content-Type", "application/octet-stream")
	rec.Header().Set("ETag", `"`+sum("sha256", f.data)[:32]+`"`)
	http.ServeContent(rec, req, "", f.at, bytes.NewReader(f.data))
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets a Fault hijack the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Packages lists the packages of the next generation.
func (r *Repo) Packages() []*Built {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pkgs)
}

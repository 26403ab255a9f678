package rpmtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/sign"
)

// Large is a repository like Fedora's for measurements. It has many packages with tiny
// bodies, and about 2.5 kB of primary and 8.4 kB of filelists for each. Packages are
// built on request, so that only the compressed metadata need memory.
type Large struct {
	signer *sign.Signer
	n      int
	at     time.Time
	// changed are packages with a different release, by number.
	changed map[int]int
	files   map[string][]byte
}

// NewLarge makes a repository of n packages that is published at the time at. compress
// is the compression of the metadata (".gz" or ".zst"). Package i has release
// 1+changed[i].
func NewLarge(n int, signer *sign.Signer, compress string, at time.Time, changed map[int]int) (*Large, error) {
	l := &Large{signer: signer, n: n, at: at, changed: changed, files: map[string][]byte{}}
	heads := []string{
		"<metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"%d\">\n",
		"<filelists xmlns=\"http://linux.duke.edu/metadata/filelists\" packages=\"%d\">\n",
		"<otherdata xmlns=\"http://linux.duke.edu/metadata/other\" packages=\"%d\">\n",
	}
	tails := []string{"</metadata>\n", "</filelists>\n", "</otherdata>\n"}
	var out [3]*packing
	for i := range out {
		var err error
		if out[i], err = newPacking(compress); err != nil {
			return nil, err
		}
		fmt.Fprintf(out[i], "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"+heads[i], n)
	}
	for i := range n {
		p := l.Package(i)
		b := p.Build(signer)
		var doc [3]bytes.Buffer
		b.writePrimary(&doc[0], "sha256", b.SHA256, "")
		b.writeFilelists(&doc[1], b.SHA256)
		b.writeOther(&doc[2], b.SHA256)
		for k := range out {
			if _, err := out[k].Write(doc[k].Bytes()); err != nil {
				return nil, err
			}
		}
	}
	var md bytes.Buffer
	fmt.Fprintf(&md, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n  <revision>%d</revision>\n", at.Unix())
	for i, typ := range []string{"primary", "filelists", "other"} {
		if _, err := io.WriteString(out[i], tails[i]); err != nil {
			return nil, err
		}
		if err := out[i].z.Close(); err != nil {
			return nil, err
		}
		data := out[i].packed.Bytes()
		sum := sha256.Sum256(data)
		path := "repodata/" + hex.EncodeToString(sum[:]) + "-" + typ + ".xml" + compress
		l.files[path] = data
		fmt.Fprintf(&md, "  <data type=\"%s\">\n    <checksum type=\"sha256\">%x</checksum>\n    <open-checksum type=\"sha256\">%x</open-checksum>\n    <location href=\"%s\"/>\n    <timestamp>%d</timestamp>\n    <size>%d</size>\n    <open-size>%d</open-size>\n  </data>\n",
			typ, sum, out[i].h.Sum(nil), path, at.Unix(), len(data), out[i].n)
	}
	md.WriteString("</repomd>\n")
	asc, err := signer.SignDetached(md.Bytes(), at)
	if err != nil {
		return nil, err
	}
	l.files["repodata/repomd.xml"], l.files["repodata/repomd.xml.asc"] = md.Bytes(), asc
	return l, nil
}

// packing compresses, counts and hashes a document.
type packing struct {
	packed bytes.Buffer
	z      io.WriteCloser
	h      hash.Hash
	n      int64
}

func newPacking(compress string) (*packing, error) {
	p := &packing{h: sha256.New()}
	var err error
	switch compress {
	case ".gz":
		p.z, err = gzip.NewWriterLevel(&p.packed, 6)
	case ".zst":
		p.z, err = zstd.NewWriter(&p.packed, zstd.WithEncoderConcurrency(1))
	default:
		return nil, fmt.Errorf("compress %q: expected .gz or .zst", compress)
	}
	return p, err
}

func (p *packing) Write(b []byte) (int, error) {
	p.h.Write(b)
	p.n += int64(len(b))
	return p.z.Write(b)
}

// Package describes package i.
func (l *Large) Package(i int) Package {
	return Package{Name: fmt.Sprintf("package%06d", i), Version: fmt.Sprintf("%d.%d", 1+i%7, i%50), Release: strconv.Itoa(1 + l.changed[i]), Arch: "x86_64",
		BuildTime: Epoch.Add(time.Duration(i) * time.Minute), FakeFiles: 104, FakeRequires: 22}
}

// Len returns the number of packages.
func (l *Large) Len() int { return l.n }

// File returns the bytes of a file, or nil if it does not exist.
func (l *Large) File(path string) []byte {
	if b, ok := l.files[path]; ok {
		return b
	}
	name, ok := strings.CutPrefix(path, "Packages/p/package")
	if !ok || len(name) < 6 {
		return nil
	}
	i, err := strconv.Atoi(name[:6])
	if err != nil || i < 0 || i >= l.n {
		return nil
	}
	p := l.Package(i)
	if p.Href() != path {
		return nil
	}
	return p.Build(l.signer).Bytes
}

// ServeHTTP serves the repository.
func (l *Large) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := l.File(strings.TrimPrefix(r.URL.Path, "/"))
	if data == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", l.at, bytes.NewReader(data))
}

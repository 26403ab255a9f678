package httpd

import (
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
)

// entity is what a URL serves. It is immutable.
type entity struct {
	found  *catalog.Found
	data   []byte // the body, if it is not a blob
	frozen bool   // part of a freeze: its blobs must be stored

	// Header values, ready for the map.
	etag, modified, ctype, control, length []string
	mod                                    time.Time              // zero: conditions on dates are never true
	head                                   atomic.Pointer[[]byte] // see fastHead
}

var (
	acceptRanges   = []string{"bytes"}
	noSniff        = []string{"nosniff"}
	cacheImmutable = []string{"public, max-age=31536000, immutable"}
	cacheNone      = []string{"no-cache"}
)

// newEntity describes a file of the catalog that is served under a name ending in
// p.
func newEntity(f *catalog.Found, p string, immutable bool) *entity {
	e := &entity{found: f, ctype: contentType(p), control: cacheNone, mod: f.Modified.UTC().Truncate(time.Second)}
	if immutable {
		e.control = cacheImmutable
	}
	if !f.Digest.IsZero() {
		e.etag = []string{`"` + f.Digest.String() + `"`}
	}
	if f.Size >= 0 {
		e.length = []string{strconv.FormatInt(f.Size, 10)}
	}
	if e.mod.Unix() >= 0 {
		e.modified = []string{e.mod.Format(http.TimeFormat)}
	}
	if e.mod.Unix() <= 0 {
		e.mod = time.Time{}
	}
	return e
}

// newBytes describes a generated body.
func newBytes(data []byte, ctype string, modified time.Time) *entity {
	e := newEntity(&catalog.Found{Size: int64(len(data)), Digest: cas.Sum(data), Modified: modified}, "", false)
	e.ctype = []string{ctype}
	e.data = data
	if e.data == nil {
		e.data = []byte{}
	}
	return e
}

const (
	textPlain = "text/plain; charset=utf-8"
	textHTML  = "text/html; charset=utf-8"
	keyType   = "application/pgp-keys"
)

var contentTypes = map[string][]string{
	".deb": {"application/vnd.debian.binary-package"}, ".udeb": {"application/vnd.debian.binary-package"},
	".rpm": {"application/x-rpm"}, ".drpm": {"application/x-rpm"},
	".xz": {"application/x-xz"}, ".gz": {"application/gzip"}, ".bz2": {"application/x-bzip2"},
	".zst": {"application/zstd"}, ".lz4": {"application/x-lz4"}, ".zck": {"application/octet-stream"},
	".xml": {"text/xml"}, ".json": {"application/json"}, ".asc": {"application/pgp-signature"},
	".gpg": {"application/pgp-signature"}, ".sig": {"application/pgp-signature"}, ".pgp": {"application/pgp-signature"},
	".dsc": {textPlain}, ".changes": {textPlain}, ".txt": {textPlain}, ".yml": {"application/yaml"}, ".yaml": {"application/yaml"},
	".iso": {"application/x-iso9660-image"}, ".sqlite": {"application/vnd.sqlite3"}, ".png": {"image/png"}, ".svg": {"text/plain"},
}

var (
	octets = []string{"application/octet-stream"}
	plain  = []string{textPlain}
)

// isPackage reports whether a Content-Type is that of a binary package.
func isPackage(ctype []string) bool {
	return len(ctype) == 1 && (ctype[0] == contentTypes[".deb"][0] || ctype[0] == contentTypes[".rpm"][0])
}

func contentType(p string) []string {
	base := path.Base(p)
	if t, ok := contentTypes[path.Ext(base)]; ok {
		return t
	}
	switch base {
	case "InRelease", "Release", "Packages", "Sources", "Index", "SHA256SUMS", "MD5SUMS", ".treeinfo", "treeinfo":
		return plain
	}
	if strings.HasPrefix(base, "Translation-") || strings.HasPrefix(base, "Contents-") {
		return plain
	}
	return octets
}

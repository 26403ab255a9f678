package compare

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/rpm/rpmpkg"
)

// rpmTree is an rpm package: each tag of its two headers as a file, and the payload.
type rpmTree struct {
	info    *rpmpkg.Info
	src     blob
	list    []*node
	headers []byte // as stored in the file, to compare bytes that are in no tag
}

// rpmTags names tags of the header (rpmtag.h).
var rpmTags = map[uint32]string{
	1000: "NAME", 1001: "VERSION", 1002: "RELEASE", 1004: "SUMMARY", 1005: "DESCRIPTION", 1006: "BUILDTIME", 1007: "BUILDHOST", 1009: "SIZE", 1022: "ARCH",
	1028: "FILESIZES", 1030: "FILEMODES", 1034: "FILEMTIMES", 1035: "FILEDIGESTS", 1036: "FILELINKTOS", 1044: "SOURCERPM", 1047: "PROVIDENAME",
	1049: "REQUIRENAME", 1064: "RPMVERSION", 1080: "CHANGELOGTIME", 1094: "COOKIE", 1095: "FILEDEVICES", 1096: "FILEINODES", 1116: "DIRINDEXES",
	1117: "BASENAMES", 1118: "DIRNAMES", 1122: "OPTFLAGS", 1124: "PAYLOADFORMAT", 1125: "PAYLOADCOMPRESSOR", 1126: "PAYLOADFLAGS", 5008: "LONGFILESIZES",
	5009: "LONGSIZE", 5092: "PAYLOADDIGEST", 5097: "PAYLOADDIGESTALT",
}

var rpmSignatureTags = map[uint32]string{
	267: "DSA", 268: "RSA", 269: "SHA1", 270: "LONGSIZE", 271: "LONGARCHIVESIZE", 273: "SHA256", 278: "OPENPGP", 1000: "SIZE", 1002: "PGP", 1004: "MD5",
	1005: "GPG", 1007: "PAYLOADSIZE", 1008: "RESERVEDSPACE",
}

// rpmTag is the source of a node of an rpmTree.
type rpmTag struct {
	value     rpmpkg.Value
	signature bool
}

func (c *comparer) openRPM(_ context.Context, b blob, _ int) (tree, error) {
	r, err := b.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	t := &rpmTree{src: b}
	if t.info, err = rpmpkg.Read(r); err != nil {
		return nil, err
	}
	if t.headers, err = b.head(int(t.info.HeaderEnd)); err != nil {
		return nil, err
	}
	built := int64(0)
	if n := t.info.Numbers(1006); len(n) > 0 {
		built = int64(n[0])
	}
	add := func(dir string, names map[uint32]string, values []rpmpkg.Value, signature bool) {
		for _, v := range values {
			name := names[v.Tag]
			if name == "" {
				name = "TAG"
			}
			t.list = append(t.list, &node{
				name: fmt.Sprintf("/%s/%s-%d", dir, name, v.Tag), typ: typeFile, size: int64(len(v.Data)), near: built, frame: fmt.Sprintf("type %d", v.Type),
				inner: rpmTag{v, signature},
			})
		}
	}
	signature, head := t.info.Values()
	add("header", rpmTags, head, false)
	add("signature", rpmSignatureTags, signature, true)
	t.list = append(t.list, &node{name: "/payload", typ: typeFile, size: b.size - t.info.HeaderEnd, near: built})
	slices.SortFunc(t.list, func(a, b *node) int { return comparePaths(a.name, b.name) })
	return t, nil
}

func (t *rpmTree) timeCode() string { return codeMtime }

func (t *rpmTree) nodes(context.Context) iter.Seq2[*node, error] {
	return func(yield func(*node, error) bool) {
		for _, n := range t.list {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func (t *rpmTree) find(name string) (*node, error) {
	for _, n := range t.list {
		if n.name == name {
			return n, nil
		}
	}
	return nil, nil
}

func (t *rpmTree) content(n *node) blob {
	if tag, ok := n.inner.(rpmTag); ok {
		if tag.value.Type >= 6 && tag.value.Type != 7 { // strings, one a line
			return memBlob(bytes.ReplaceAll(tag.value.Data, []byte{0}, []byte{'\n'}))
		}
		return memBlob(tag.value.Data)
	}
	if t.src.at != nil {
		b := from(t.src, t.info.HeaderEnd)
		return b
	}
	return blob{size: n.size, open: func() (io.ReadCloser, error) {
		r, err := t.src.open()
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, r, t.info.HeaderEnd); err != nil {
			r.Close()
			return nil, err
		}
		return r, nil
	}}
}

// rpmFollows reports whether a tag is derived from the payload and its files, and
// whether from the header.
func rpmFollows(t rpmTag) (payload, header bool) {
	switch t.value.Tag {
	case 1000, 270, 271, 1007, 1004, 1002, 1005:
		return t.signature, t.signature
	case 267, 268, 269, 273, 278, 279:
		return false, t.signature
	case 1009, 1028, 1035, 5008, 5009, 5092, 5097, 5121, 5123:
		return !t.signature, false
	}
	return false, false
}

// rpmCause explains a tag of the header by its meaning.
func (c *comparer) rpmCause(p *pairing) *api.CompareCause {
	if p.nx == nil || p.ny == nil {
		return nil
	}
	x, ok := p.nx.inner.(rpmTag)
	if !ok {
		return nil
	}
	y, ok := p.ny.inner.(rpmTag)
	if !ok || x.value.Type != y.value.Type {
		return nil
	}
	payload, header := rpmFollows(x)
	var k api.CompareCause
	switch tag := x.value.Tag; {
	case payload && c.payloads || header && c.headers:
		k = cause(codeDigest, "", "", "follows from the other differences")
	case x.signature:
		return nil
	case tag == 1006:
		k = cause(codeDate, timeText(p.nx.near, 0), timeText(p.ny.near, 0), "")
	case tag == 1007:
		k = cause(codeHostName, clip(string(x.value.Data)), clip(string(y.value.Data)), "")
	case tag == 1034 && x.value.Count == y.value.Count:
		k = cause(codeMtime, "", "", "of files")
	default:
		return nil
	}
	return &k
}

// rpmRest reports that the headers differ although no tag does.
func rpmRest(a, b *rpmTree) []api.CompareCause {
	if string(a.headers) != string(b.headers) && slices.EqualFunc(a.list, b.list, sameTag) {
		return []api.CompareCause{cause(codeLayout, "", "", "other bytes in the headers, with the same tags")}
	}
	if string(a.headers[:min(96, len(a.headers))]) != string(b.headers[:min(96, len(b.headers))]) {
		return []api.CompareCause{cause(codeLayout, "", "", "other bytes in the lead")}
	}
	return nil
}

func sameTag(x, y *node) bool {
	s, ok := x.inner.(rpmTag)
	t, ok2 := y.inner.(rpmTag)
	if ok != ok2 || x.name != y.name {
		return false
	}
	return !ok || s.value.Type == t.value.Type && s.value.Count == t.value.Count && string(s.value.Data) == string(t.value.Data)
}

// Package rpmpkg reads rpm package files and verifies their signatures and digests,
// and that the header of a package agrees with the repository's metadata.
//
// The format is described in rpm's manual ("RPM v4 Package format", "RPM v6 Package
// format"). A package consists of a lead of 96 bytes, the signature header, padding to
// a multiple of 8 bytes, the header, and the payload. Integers are big-endian.
package rpmpkg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo/rpm/nevra"
)

// ErrMalformed means that a file is not an rpm package, or a malformed one.
var ErrMalformed = errors.New("malformed rpm package")

// Limits of headers. Packages with 100,000 files have headers of some 20 MB.
const (
	leadSize   = 96
	introSize  = 16       // magic, reserved, number of entries, bytes of data
	maxEntries = 0xffff   // rpm's own limit
	maxHeader  = 64 << 20 // bytes of one header
)

// Tags of the two headers (rpmtag.h).
const (
	tagHeaderSignatures = 62
	tagHeaderImmutable  = 63

	sigDSA             = 267  // binary: OpenPGP signature over the header
	sigRSA             = 268  // binary: the same
	sigSHA1            = 269  // string: hex digest of the header
	sigLongSize        = 270  // int64: bytes of header and payload
	sigLongArchiveSize = 271  // int64: bytes of the unpacked payload
	sigPayloadSize     = 1007 // int32: the same
	sigSHA256          = 273  // string: hex digest of the header
	sigOpenPGP         = 278  // string array: Base64 OpenPGP signatures over the header
	sigSHA3_256        = 279  // string: hex digest of the header
	sigSize            = 1000 // int32: bytes of header and payload
	sigPGP             = 1002 // binary: OpenPGP signature over header and payload
	sigGPG             = 1005 // binary: the same

	tagName              = 1000
	tagVersion           = 1001
	tagRelease           = 1002
	tagEpoch             = 1003
	tagArch              = 1022
	tagSourceRPM         = 1044
	tagNoSource          = 1051
	tagNoPatch           = 1052
	tagPayloadDigest     = 5092 // string array: hex digest of the payload as stored
	tagPayloadDigestAlgo = 5093 // int32: OpenPGP's number of its algorithm
	tagRPMFormat         = 5114 // int32: 6 in v6 packages
	tagPayloadSHA512     = 5121 // string
	tagPayloadSHA3_256   = 5123 // string
)

// Types of entries.
const (
	typeChar        = 1
	typeInt8        = 2
	typeInt16       = 3
	typeInt32       = 4
	typeInt64       = 5
	typeString      = 6
	typeBin         = 7
	typeStringArray = 8
	typeI18NString  = 9
)

var headerMagic = []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}

// entry is one element of a header's index.
type entry struct {
	typ, count uint32
	off        uint32 // offset of its value in the header's data
}

// header is a parsed header.
type header struct {
	entries map[uint32]entry
	data    []byte
}

// introLen reads the intro of a header and returns the length of the whole header in
// bytes.
func introLen(b []byte, what string) (int64, error) {
	if !bytes.Equal(b[:8], headerMagic) {
		return 0, fmt.Errorf("%w: %s begins with %x, expected %x", ErrMalformed, what, b[:8], headerMagic)
	}
	il, dl := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	n := introSize + 16*int64(il) + int64(dl)
	if il == 0 || il > maxEntries || n > maxHeader {
		return 0, fmt.Errorf("%w: %s has %d entries and %d bytes, at most %d and %d are accepted", ErrMalformed, what, il, dl, maxEntries, maxHeader)
	}
	return n, nil
}

// parseHeader parses a header with its intro. region is the tag that must come first.
// With whole, the region must cover the whole header, as it does in all packages that
// rpm 4 and later build.
func parseHeader(b []byte, what string, region uint32, whole bool) (*header, error) {
	bad := func(format string, args ...any) (*header, error) {
		return nil, fmt.Errorf("%w: %s: %s", ErrMalformed, what, fmt.Sprintf(format, args...))
	}
	il := int(binary.BigEndian.Uint32(b[8:]))
	index, data := b[introSize:introSize+16*il], b[introSize+16*il:]
	h := &header{entries: make(map[uint32]entry, il), data: data}
	for i := range il {
		e := index[16*i:]
		tag := binary.BigEndian.Uint32(e)
		v := entry{binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[12:]), binary.BigEndian.Uint32(e[8:])}
		if i == 0 && tag == region {
			if err := checkRegion(v, region, il, data, whole); err != "" {
				return bad("%s", err)
			}
			continue
		}
		if i == 0 && whole {
			return bad("the first tag is %d, expected the region %d", tag, region)
		}
		if v.typ < typeChar || v.typ > typeI18NString {
			return bad("tag %d has type %d", tag, v.typ)
		}
		if int64(v.off) > int64(len(data)) || v.count == 0 || int64(v.count) > int64(len(data)) {
			return bad("tag %d has %d values at %d of %d bytes", tag, v.count, v.off, len(data))
		}
		if size, ok := fixedSize(v.typ); ok {
			if int64(v.off)+size*int64(v.count) > int64(len(data)) {
				return bad("tag %d has %d values at %d of %d bytes", tag, v.count, v.off, len(data))
			}
		} else if v.typ == typeString && v.count != 1 {
			return bad("tag %d is a string of count %d", tag, v.count)
		}
		if _, ok := h.entries[tag]; ok {
			return bad("tag %d occurs twice", tag)
		}
		h.entries[tag] = v
	}
	return h, nil
}

// checkRegion checks the region's entry and trailer, and returns what is wrong with them.
func checkRegion(v entry, region uint32, il int, data []byte, whole bool) string {
	if v.typ != typeBin || v.count != 16 || int64(v.off)+16 > int64(len(data)) {
		return fmt.Sprintf("region %d has type %d, count %d, offset %d", region, v.typ, v.count, v.off)
	}
	t := data[v.off:]
	ril := -int64(int32(binary.BigEndian.Uint32(t[8:]))) / 16
	if tag := binary.BigEndian.Uint32(t); tag != region && !(region == tagHeaderSignatures && tag == 61) ||
		ril < 1 || ril > int64(il) {
		return fmt.Sprintf("region %d ends in tag %d for %d of %d entries", region, binary.BigEndian.Uint32(t), ril, il)
	}
	if whole && (ril != int64(il) || int(v.off)+16 != len(data)) {
		return fmt.Sprintf("region %d covers %d of %d entries and %d of %d bytes", region, ril, il, int(v.off)+16, len(data))
	}
	return ""
}

func fixedSize(typ uint32) (int64, bool) {
	switch typ {
	case typeChar, typeInt8, typeBin:
		return 1, true
	case typeInt16:
		return 2, true
	case typeInt32:
		return 4, true
	case typeInt64:
		return 8, true
	}
	return 0, false
}

func (h *header) has(tag uint32) bool { _, ok := h.entries[tag]; return ok }

// str returns a string, or the first one of an array; "" if absent.
func (h *header) str(tag uint32) string {
	if s := h.strs(tag, 1); len(s) > 0 {
		return s[0]
	}
	return ""
}

// strs returns up to max strings.
func (h *header) strs(tag uint32, max int) []string {
	e, ok := h.entries[tag]
	if !ok || e.typ != typeString && e.typ != typeStringArray && e.typ != typeI18NString {
		return nil
	}
	var out []string
	rest := h.data[e.off:]
	for range min(int(e.count), max) {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			return out
		}
		out = append(out, string(rest[:i]))
		rest = rest[i+1:]
	}
	return out
}

// bin returns a binary value; nil if absent.
func (h *header) bin(tag uint32) []byte {
	e, ok := h.entries[tag]
	if !ok || e.typ != typeBin {
		return nil
	}
	return h.data[e.off : e.off+e.count]
}

// num returns the first number of an int32 or int64 value.
func (h *header) num(tag uint32) (uint64, bool) {
	e, ok := h.entries[tag]
	switch {
	case ok && e.typ == typeInt32:
		return uint64(binary.BigEndian.Uint32(h.data[e.off:])), true
	case ok && e.typ == typeInt64:
		return binary.BigEndian.Uint64(h.data[e.off:]), true
	}
	return 0, false
}

// Info contains the headers of a package.
type Info struct {
	nevra.NEVRA
	SourceRPM string // file name of the source package; "" in source packages
	Format    int    // 4 or 6
	// The range of the header in the file, in bytes, as in metadata.
	HeaderStart, HeaderEnd int64

	sig, head *header
}

// Source reports whether the package is a source package.
func (i *Info) Source() bool { return i.SourceRPM == "" }

// info returns the Info of two headers.
func info(sig, head *header, start, end int64) (*Info, error) {
	i := &Info{sig: sig, head: head, HeaderStart: start, HeaderEnd: end, Format: 4}
	i.Name, i.Version, i.Release, i.Arch = head.str(tagName), head.str(tagVersion), head.str(tagRelease), head.str(tagArch)
	if n, ok := head.num(tagEpoch); ok {
		i.Epoch = uint32(n)
	}
	i.SourceRPM = head.str(tagSourceRPM)
	if i.SourceRPM == "" {
		i.Arch = "src"
		if head.has(tagNoSource) || head.has(tagNoPatch) {
			i.Arch = "nosrc"
		}
	}
	if n, ok := head.num(tagRPMFormat); ok && n > 4 {
		if n != 6 {
			return nil, fmt.Errorf("%w: package format %d, expected 4 or 6", ErrMalformed, n)
		}
		i.Format = 6
	}
	for _, f := range [...]struct{ what, v string }{{"name", i.Name}, {"version", i.Version}, {"release", i.Release}, {"architecture", i.Arch}} {
		if f.v == "" || strings.ContainsAny(f.v, "/\x00\n") {
			return nil, fmt.Errorf("%w: the header has the %s %q", ErrMalformed, f.what, excerpt.Of(f.v))
		}
	}
	return i, nil
}

// Strings returns the strings of a tag in the header; nil if the tag is absent.
func (i *Info) Strings(tag uint32) []string { return i.head.strs(tag, len(i.head.data)) }

// Numbers returns the integers of a tag in the header; nil if the tag is absent.
func (i *Info) Numbers(tag uint32) []uint64 { return i.head.nums(tag) }

// PayloadSize returns the size of the uncompressed payload as stated in the package, in
// bytes; 0 if it is absent.
func (i *Info) PayloadSize() uint64 {
	for _, tag := range []uint32{sigLongArchiveSize, sigPayloadSize} {
		if n, ok := i.sig.num(tag); ok {
			return n
		}
	}
	return 0
}

// nums returns the integers of a value.
func (h *header) nums(tag uint32) []uint64 {
	e, ok := h.entries[tag]
	if !ok {
		return nil
	}
	out := make([]uint64, 0, e.count)
	for b := h.data[e.off:]; len(out) < int(e.count); {
		switch e.typ {
		case typeInt16:
			out, b = append(out, uint64(binary.BigEndian.Uint16(b))), b[2:]
		case typeInt32:
			out, b = append(out, uint64(binary.BigEndian.Uint32(b))), b[4:]
		case typeInt64:
			out, b = append(out, binary.BigEndian.Uint64(b)), b[8:]
		default:
			return nil
		}
	}
	return out
}

// A Value is one tag of a header.
type Value struct {
	Tag, Type, Count uint32
	Data             []byte // as stored; the caller must not modify it
}

// Values returns the tags of the signature header and of the header, sorted.
func (i *Info) Values() (signature, head []Value) { return i.sig.values(), i.head.values() }

func (h *header) values() []Value {
	var out []Value
	for _, tag := range slices.Sorted(maps.Keys(h.entries)) {
		e := h.entries[tag]
		data := h.data[e.off:]
		if size, ok := fixedSize(e.typ); ok {
			data = data[:size*int64(e.count)]
		} else {
			end := 0
			for range e.count {
				k := bytes.IndexByte(data[end:], 0)
				if k < 0 {
					end = len(data)
					break
				}
				end += k + 1
			}
			data = data[:end]
		}
		out = append(out, Value{Tag: tag, Type: e.typ, Count: e.count, Data: data})
	}
	return out
}

// Package rpmtest makes rpm packages and rpm-md repositories for tests: tiny signed
// packages that rpm and dnf accept, their metadata, an HTTP server that can inject
// faults, and repositories as large as Fedora's.
//
// The output is deterministic: times are parameters, and equal inputs give equal bytes
// (with keys whose signatures are deterministic).
package rpmtest

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/sign"
)

// Epoch is the default time at which packages are built.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Package describes an rpm package to build. Name and Version are required. Release
// defaults to "1", and Arch to "noarch".
type Package struct {
	Name    string
	Epoch   uint32
	Version string
	Release string
	Arch    string // "src" makes a source package

	Summary   string
	License   string
	SourceRPM string // default <name>-<version>-<release>.src.rpm
	BuildTime time.Time
	Module    string // modularity label: "name:stream:version:context"

	// Relations: "name", "name = 1.0-1", "name >= 2:1.0".
	Requires, Provides, Conflicts, Obsoletes []string

	Files []File // default: one text file, /usr/share/doc/<name>/README
	// FakeFiles and FakeRequires add entries only to the metadata, for repositories of
	// realistic size with tiny packages.
	FakeFiles, FakeRequires int

	// V6 writes the package format of rpm 6.
	V6 bool
	// Signatures. By default, the header is signed (with the RSA or DSA tag, depending
	// on the kind of key), as rpm 4.14 and later do.
	Legacy bool // also sign header and payload, as rpm before 4.14 did; with LegacyOnly, only those
	// Sign, if not nil, adds another signature. It is called with the header and
	// returns a binary signature packet.
	Sign func(signed []byte) []byte
	// Weaknesses and faults.
	LegacyOnly      bool
	NoPayloadDigest bool // like rpm before 4.14
	BadHeaderDigest bool
	BadPayload      bool // the payload does not match its digest
	BadSignature    bool // the signature is over other bytes

	Location string // href; default Packages/<first letter>/<file name>
}

// File is a file or symbolic link of a package.
type File struct {
	Path string
	Body string
	Mode uint32 // default 0644
	Link string // target: makes a symbolic link
}

func (p *Package) defaults() Package {
	d := *p
	if d.Release == "" {
		d.Release = "1"
	}
	if d.Arch == "" {
		d.Arch = "noarch"
	}
	if d.Summary == "" {
		d.Summary = "The package " + d.Name
	}
	if d.License == "" {
		d.License = "MIT"
	}
	if d.SourceRPM == "" && d.Arch != "src" {
		d.SourceRPM = fmt.Sprintf("%s-%s-%s.src.rpm", d.Name, d.Version, d.Release)
	}
	if d.BuildTime.IsZero() {
		d.BuildTime = Epoch
	}
	if d.Files == nil && d.Arch != "src" {
		d.Files = []File{{Path: "/usr/share/doc/" + d.Name + "/README", Body: d.Name + " " + d.EVR().String() + "\n"}}
	}
	if d.Arch == "src" && d.Files == nil {
		d.Files = []File{{Path: d.Name + ".spec", Body: "Name: " + d.Name + "\n"}}
	}
	return d
}

// EVR returns the epoch, version and release of the package.
func (p *Package) EVR() nevra.EVR {
	r := p.Release
	if r == "" {
		r = "1"
	}
	return nevra.EVR{Epoch: p.Epoch, Version: p.Version, Release: r}
}

// NEVRA returns the NEVRA of the package.
func (p *Package) NEVRA() nevra.NEVRA {
	a := p.Arch
	if a == "" {
		a = "noarch"
	}
	return nevra.NEVRA{Name: p.Name, EVR: p.EVR(), Arch: a}
}

// FileName returns the usual name of the package file.
func (p *Package) FileName() string { return p.NEVRA().NVRA() + ".rpm" }

// Href returns the path of the package in its repository.
func (p *Package) Href() string {
	if p.Location != "" {
		return p.Location
	}
	return "Packages/" + strings.ToLower(p.Name[:1]) + "/" + p.FileName()
}

// Built is a package file and the values that metadata contain about it.
type Built struct {
	Package
	Bytes                  []byte
	HeaderStart, HeaderEnd int64
	Installed, Archive     int64
	SHA256                 string
}

// rel is a parsed relation.
type rel struct {
	name, version string
	flags         uint32
}

const (
	relLess, relGreater, relEqual = 2, 4, 8
	relRPMLib                     = 1 << 24
)

func parseRel(s string) rel {
	f := strings.Fields(s)
	r := rel{name: f[0]}
	if len(f) == 3 {
		r.version = f[2]
		for _, c := range f[1] {
			r.flags |= map[rune]uint32{'<': relLess, '>': relGreater, '=': relEqual}[c]
		}
	}
	return r
}

// Build builds the package, signed by each of the signers.
func (p *Package) Build(signers ...*sign.Signer) *Built {
	d := p.defaults()
	payload, archive, installed := d.payload()
	head := d.header(payload, archive, installed)
	if d.BadPayload {
		payload = bytes.Clone(payload)
		payload[len(payload)-9] ^= 1
	}
	sig := d.signatures(head, payload, archive, signers)

	var out bytes.Buffer
	lead := make([]byte, 96)
	copy(lead, []byte{0xed, 0xab, 0xee, 0xdb, 3, 0})
	if d.Arch == "src" {
		lead[7] = 1
	}
	lead[9] = 1
	copy(lead[10:75], d.Name+"-"+d.Version+"-"+d.Release)
	lead[77], lead[79] = 1, 5
	out.Write(lead)
	out.Write(sig)
	for out.Len()%8 != 0 {
		out.WriteByte(0)
	}
	b := &Built{Package: d, HeaderStart: int64(out.Len()), Installed: installed, Archive: archive}
	out.Write(head)
	b.HeaderEnd = int64(out.Len())
	out.Write(payload)
	b.Bytes = out.Bytes()
	sum := sha256.Sum256(b.Bytes)
	b.SHA256 = hex.EncodeToString(sum[:])
	return b
}

// payload returns the gzipped cpio archive (newc), and the sizes of the archive and of the
// installed files in bytes.
func (p *Package) payload() (packed []byte, archive, installed int64) {
	var cpio bytes.Buffer
	entry := func(ino int, name string, mode uint32, body string) {
		fmt.Fprintf(&cpio, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			ino, mode, 0, 0, 1, uint32(p.BuildTime.Unix()), len(body), 0, 0, 0, 0, len(name)+1, 0, name)
		for cpio.Len()%4 != 0 {
			cpio.WriteByte(0)
		}
		cpio.WriteString(body)
		for cpio.Len()%4 != 0 {
			cpio.WriteByte(0)
		}
	}
	for i, f := range p.Files {
		name := f.Path
		if p.Arch != "src" {
			name = "." + name
		}
		body := f.Body
		if f.Link != "" {
			body = f.Link
		}
		installed += int64(len(body))
		entry(i+1, name, f.mode(), body)
	}
	entry(0, "TRAILER!!!", 0, "")
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, 9)
	w.Write(cpio.Bytes())
	w.Close()
	return z.Bytes(), int64(cpio.Len()), installed
}

func (f *File) mode() uint32 {
	switch {
	case f.Link != "":
		return 0o120777
	case f.Mode != 0:
		return 0o100000 | f.Mode
	}
	return 0o100644
}

// header writes the main header.
func (p *Package) header(payload []byte, archive, installed int64) []byte {
	var h headerWriter
	h.strings(100, "C") // i18n table
	h.str(1000, p.Name)
	h.str(1001, p.Version)
	h.str(1002, p.Release)
	if p.Epoch > 0 {
		h.int32(1003, p.Epoch)
	}
	h.i18n(1004, p.Summary)
	h.i18n(1005, "Description of "+p.Name+".")
	h.int32(1006, uint32(p.BuildTime.Unix()))
	h.str(1007, "build.example.org")
	h.int32(1009, uint32(installed))
	h.str(1011, "Example")
	h.str(1014, p.License)
	h.i18n(1016, "Unspecified")
	h.str(1020, "https://example.org/"+p.Name)
	h.str(1021, "linux")
	arch := p.Arch
	if arch == "src" {
		arch = "noarch"
		h.int32(1106, 1)
	}
	h.str(1022, arch)
	if p.SourceRPM != "" && p.Arch != "src" {
		h.str(1044, p.SourceRPM)
	}
	h.rels(1047, 1112, 1113, p.provides())
	h.rels(1049, 1048, 1050, append(mapRels(p.Requires),
		rel{"rpmlib(CompressedFileNames)", "3.0.4-1", relRPMLib | relLess | relEqual},
		rel{"rpmlib(PayloadFilesHavePrefix)", "4.0-1", relRPMLib | relLess | relEqual}))
	h.rels(1054, 1053, 1055, mapRels(p.Conflicts))
	h.rels(1090, 1114, 1115, mapRels(p.Obsoletes))
	h.str(1064, "4.18.0")
	h.int32(1080, uint32(p.BuildTime.Unix()))
	h.strings(1081, "Packager <packager@example.org> - "+p.EVR().String())
	h.strings(1082, "- Built.")
	p.files(&h)
	h.str(1124, "cpio")
	h.str(1125, "gzip")
	h.str(1126, "9")
	h.str(1132, p.Arch+"-linux")
	h.str(5062, "utf-8")
	if p.Module != "" {
		h.str(5096, p.Module)
	}
	if !p.NoPayloadDigest {
		sum := sha256.Sum256(payload)
		h.strings(5092, hex.EncodeToString(sum[:]))
		if p.V6 {
			s512, s3 := sha512.Sum512(payload), sha3.Sum256(payload)
			h.str(5121, hex.EncodeToString(s512[:]))
			h.str(5123, hex.EncodeToString(s3[:]))
		} else {
			h.int32(5093, 8)
		}
	}
	if p.V6 {
		h.int64(5112, uint64(len(payload)))
		h.int64(5113, uint64(archive))
		h.int32(5114, 6)
	}
	return h.finish(63)
}

func mapRels(list []string) []rel {
	var out []rel
	for _, s := range list {
		out = append(out, parseRel(s))
	}
	return out
}

// provides returns the given provides and the package itself.
func (p *Package) provides() []rel {
	if p.Arch == "src" {
		return mapRels(p.Provides)
	}
	return append(mapRels(p.Provides), rel{p.Name, p.EVR().String(), relEqual})
}

func (p *Package) files(h *headerWriter) {
	if len(p.Files) == 0 {
		return
	}
	var sizes, mtimes, flags, vflags, devices, inodes, dirIdx []uint32
	var modes, rdevs []uint16
	var digests, links, users, groups, langs, bases, dirs []string
	for i, f := range p.Files {
		dir, base := path.Split(f.Path)
		j := slices.Index(dirs, dir)
		if j < 0 {
			j = len(dirs)
			dirs = append(dirs, dir)
		}
		body, digest := f.Body, ""
		if f.Link != "" {
			body = f.Link
		} else {
			s := sha256.Sum256([]byte(body))
			digest = hex.EncodeToString(s[:])
		}
		sizes = append(sizes, uint32(len(body)))
		mtimes = append(mtimes, uint32(p.BuildTime.Unix()))
		flags = append(flags, map[bool]uint32{true: 32}[p.Arch == "src" && strings.HasSuffix(base, ".spec")])
		vflags = append(vflags, ^uint32(0))
		devices, inodes = append(devices, 1), append(inodes, uint32(i+1))
		dirIdx = append(dirIdx, uint32(j))
		modes, rdevs = append(modes, uint16(f.mode())), append(rdevs, 0)
		digests, links = append(digests, digest), append(links, f.Link)
		users, groups, langs = append(users, "root"), append(groups, "root"), append(langs, "")
		bases = append(bases, base)
	}
	h.int32(1028, sizes...)
	h.int16(1030, modes...)
	h.int16(1033, rdevs...)
	h.int32(1034, mtimes...)
	h.strings(1035, digests...)
	h.strings(1036, links...)
	h.int32(1037, flags...)
	h.strings(1039, users...)
	h.strings(1040, groups...)
	h.int32(1045, vflags...)
	h.int32(1095, devices...)
	h.int32(1096, inodes...)
	h.strings(1097, langs...)
	h.int32(1116, dirIdx...)
	h.strings(1117, bases...)
	h.strings(1118, dirs...)
	h.int32(5011, 8)
}

// signatures writes the signature header.
func (p *Package) signatures(head, payload []byte, archive int64, signers []*sign.Signer) []byte {
	var h headerWriter
	over := head
	full := slices.Concat(head, payload)
	if p.BadSignature {
		over = append([]byte("other"), head...)
		full = append([]byte("other"), full...)
	}
	var v6 []string
	seen := map[uint32]bool{}
	for _, s := range signers {
		tag, legacy := uint32(268), uint32(1002)
		headSig := packet(s, over, p.BuildTime)
		if !rsaPacket(headSig) {
			tag, legacy = 267, 1005
		}
		switch {
		case p.V6:
			v6 = append(v6, base64.StdEncoding.EncodeToString(headSig))
			continue
		case seen[tag]:
			continue // each kind has a tag for only one signature
		}
		seen[tag] = true
		if !p.LegacyOnly {
			h.bin(tag, headSig)
		}
		if p.Legacy || p.LegacyOnly {
			h.bin(legacy, packet(s, full, p.BuildTime))
		}
	}
	if p.Sign != nil {
		switch sig := p.Sign(over); {
		case p.V6:
			v6 = append(v6, base64.StdEncoding.EncodeToString(sig))
		case rsaPacket(sig):
			h.bin(268, sig)
		default:
			h.bin(267, sig)
		}
	}
	if v6 != nil {
		h.strings(278, v6...)
	}
	s1, s256, s3 := sha1.Sum(head), sha256.Sum256(head), sha3.Sum256(head)
	if p.BadHeaderDigest {
		s256[0] ^= 1
	}
	h.str(273, hex.EncodeToString(s256[:]))
	if p.V6 {
		h.str(279, hex.EncodeToString(s3[:]))
	} else {
		h.str(269, hex.EncodeToString(s1[:]))
		h.int32(1000, uint32(len(head)+len(payload)))
		m := md5.Sum(slices.Concat(head, payload))
		h.bin(1004, m[:])
		h.int32(1007, uint32(archive))
	}
	return h.finish(62)
}

// packet returns a binary signature packet.
func packet(s *sign.Signer, data []byte, at time.Time) []byte {
	armored, err := s.SignDetached(data, at)
	if err != nil {
		panic(err)
	}
	_, rest, _ := strings.Cut(string(armored), "\n\n")
	body, _, _ := strings.Cut(rest, "\n=")
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// rsaPacket reports whether a version 4 signature packet is of an RSA key.
func rsaPacket(b []byte) bool {
	head := 2
	if b[0]&0x40 == 0 {
		head = 1 + 1<<(b[0]&3)
	} else if b[1] >= 192 {
		head = 3
	}
	return b[head+2] == 1
}

// headerWriter writes a header (rpm's manual, "Header").
type headerWriter struct {
	entries []headerEntry
}

type headerEntry struct {
	tag, typ, count uint32
	align           int
	data            []byte
}

func (h *headerWriter) add(tag, typ uint32, count, align int, data []byte) {
	h.entries = append(h.entries, headerEntry{tag, typ, uint32(count), align, data})
}

func (h *headerWriter) str(tag uint32, s string) { h.add(tag, 6, 1, 1, []byte(s+"\x00")) }

func (h *headerWriter) i18n(tag uint32, s string) { h.add(tag, 9, 1, 1, []byte(s+"\x00")) }

func (h *headerWriter) bin(tag uint32, b []byte) { h.add(tag, 7, len(b), 1, b) }

func (h *headerWriter) strings(tag uint32, s ...string) {
	h.add(tag, 8, len(s), 1, []byte(strings.Join(s, "\x00")+"\x00"))
}

func (h *headerWriter) int16(tag uint32, v ...uint16) {
	var b []byte
	for _, n := range v {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	h.add(tag, 3, len(v), 2, b)
}

func (h *headerWriter) int32(tag uint32, v ...uint32) {
	var b []byte
	for _, n := range v {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	h.add(tag, 4, len(v), 4, b)
}

func (h *headerWriter) int64(tag uint32, v ...uint64) {
	var b []byte
	for _, n := range v {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	h.add(tag, 5, len(v), 8, b)
}

func (h *headerWriter) rels(name, flags, version uint32, rels []rel) {
	if len(rels) == 0 {
		return
	}
	var n, v []string
	var f []uint32
	for _, r := range rels {
		n, v, f = append(n, r.name), append(v, r.version), append(f, r.flags)
	}
	h.strings(name, n...)
	h.int32(flags, f...)
	h.strings(version, v...)
}

// finish writes the header with its region.
func (h *headerWriter) finish(region uint32) []byte {
	slices.SortFunc(h.entries, func(a, b headerEntry) int { return int(a.tag) - int(b.tag) })
	var index, data bytes.Buffer
	put := func(w *bytes.Buffer, tag, typ uint32, off int32, count uint32) {
		binary.Write(w, binary.BigEndian, tag)
		binary.Write(w, binary.BigEndian, typ)
		binary.Write(w, binary.BigEndian, off)
		binary.Write(w, binary.BigEndian, count)
	}
	for _, e := range h.entries {
		for data.Len()%e.align != 0 {
			data.WriteByte(0)
		}
		put(&index, e.tag, e.typ, int32(data.Len()), e.count)
		data.Write(e.data)
	}
	il := len(h.entries) + 1
	var first bytes.Buffer
	put(&first, region, 7, int32(data.Len()), 16)
	put(&data, region, 7, int32(-16*il), 16)

	out := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	out = binary.BigEndian.AppendUint32(out, uint32(il))
	out = binary.BigEndian.AppendUint32(out, uint32(data.Len()))
	return slices.Concat(out, first.Bytes(), index.Bytes(), data.Bytes())
}

// Package iso9660 reads ISO 9660 images, in user space and without trusting
// them.
//
// The volume structure is ECMA-119 (4th edition). Names, modes, owners, times
// and links come from Rock Ridge (RRIP 1.12 over SUSP 1.12) where the image has
// it, else names come from Joliet, else from the plain ISO identifiers, lower
// case and without version, as Linux shows them. The system area (the first 16
// sectors) is not looked at, so hybrid images that also carry a partition table
// read like any other.
//
// [Open] reads the whole directory tree once, within fixed limits, and refuses
// what could make a reader loop: a directory that two names lead to, chains of
// continuation areas, records that run over their sector. The tree is immutable
// afterwards and safe for concurrent use; file content is read on demand.
package iso9660

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"
	"unicode/utf16"
)

var (
	// ErrFormat means that the bytes are no ISO 9660 image.
	ErrFormat = errors.New("not an ISO 9660 image")
	// ErrCorrupt means that a structure of the image contradicts the format,
	// its own size or the size of the image (a truncated file does, too).
	ErrCorrupt = errors.New("corrupt ISO 9660 image")
	// ErrUnsupported means that the image uses a feature this reader does not
	// have: interleaved files, sparse files, zisofs.
	ErrUnsupported = errors.New("unsupported ISO 9660 feature")
)

const (
	sectorSize = 2048 // bytes; ECMA-119 6.1.2 (logical sector)

	maxDescriptors = 64       // volume descriptors looked at before giving up
	maxEntries     = 1 << 20  // directory records in one image
	maxMetadata    = 64 << 20 // bytes of directories and continuation areas
	maxDepth       = 512      // levels of directories
	maxName        = 1024     // bytes of one Rock Ridge name
	maxTarget      = 4096     // bytes of a symbolic link's target
	maxContinue    = 64       // continuation areas of one directory record
	maxExtents     = 1 << 12  // extents of one file: 16 TiB
	maxLinks       = 40       // symbolic links followed in one look-up
)

// Naming says where an image's names come from.
type Naming int

// The sources of names, best first.
const (
	RockRidge Naming = iota + 1
	Joliet
	Plain
)

func (n Naming) String() string {
	switch n {
	case RockRidge:
		return "Rock Ridge"
	case Joliet:
		return "Joliet"
	case Plain:
		return "ISO 9660"
	}
	return "unknown"
}

// FS is an opened image: an [fs.FS] with [fs.ReadDirFS], [fs.StatFS] and
// [fs.ReadLinkFS]. Regular files that it opens also implement [io.ReaderAt],
// [io.Seeker] and [io.WriterTo].
//
// Paths may hold bytes that are not UTF-8, since Rock Ridge names are bytes.
// Open and Stat follow symbolic links inside the image; an absolute target
// counts from the image's root, and ".." at the root is an error.
type FS struct {
	r        io.ReaderAt
	size     int64
	root     *node
	naming   Naming
	volumeID string
}

// Stat is what [fs.FileInfo.Sys] returns: the facts of a file that
// [fs.FileInfo] has no place for. Without Rock Ridge all are zero.
type Stat struct {
	UID, GID     uint32
	Nlink        uint32
	Major, Minor uint32 // device number, for device nodes (RRIP 4.1.2, PN)
	Serial       uint32 // file serial number (RRIP 1.12, PX); 0 if absent
}

// extent is one contiguous piece of a file.
type extent struct {
	off, size int64 // bytes in the image
}

type node struct {
	name     string
	mode     fs.FileMode
	mtime    time.Time
	size     int64
	stat     Stat
	target   string
	extents  []extent
	children []*node // sorted by name
	index    map[string]*node
	err      error // why the content cannot be read
}

// volume is one hierarchy of an image while its tree is read.
type volume struct {
	*FS
	blockSize int64
	skip      int // SUSP LEN_SKP: bytes before the first entry of a system use area
	visited   map[int64]string
	entries   int
	budget    int64 // metadata bytes that may still be read
}

// Open reads the volume descriptors and the directory tree of the image of size
// bytes in r. r must stay usable as long as the FS and its files are.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	primary, joliet, err := descriptors(r, size)
	if err != nil {
		return nil, err
	}
	f := &FS{r: r, size: size, naming: Plain,
		volumeID: strings.TrimRight(string(primary[40:72]), " \x00")}

	v, root, err := f.volume(primary)
	if err != nil {
		return nil, fmt.Errorf("primary volume: %w", err)
	}
	rr, skip, err := v.detectRockRidge(root)
	if err != nil {
		return nil, fmt.Errorf("primary volume: %w", err)
	}
	switch {
	case rr:
		f.naming, v.skip = RockRidge, skip
	case joliet != nil:
		f.naming = Joliet
		if v, root, err = f.volume(joliet); err != nil {
			return nil, fmt.Errorf("joliet volume: %w", err)
		}
	}
	if err := v.readTree(root); err != nil {
		return nil, err
	}
	return f, nil
}

// Naming says where the image's names come from.
func (f *FS) Naming() Naming { return f.naming }

// VolumeID is the identifier of the primary volume, without padding.
func (f *FS) VolumeID() string { return f.volumeID }

// descriptors returns the primary volume descriptor and the Joliet one, or nil
// (ECMA-119 8; Joliet: a supplementary descriptor with the escape sequences of
// UCS-2 levels 1 to 3).
func descriptors(r io.ReaderAt, size int64) (primary, joliet []byte, err error) {
	for i := int64(0); i < maxDescriptors; i++ {
		b := make([]byte, sectorSize)
		if err := readAt(r, size, (16+i)*sectorSize, b); err != nil {
			if primary == nil {
				return nil, nil, fmt.Errorf("read volume descriptor %d: %w", i, ErrFormat)
			}
			return nil, nil, fmt.Errorf("read volume descriptor %d: %w", i, err)
		}
		if string(b[1:6]) != "CD001" {
			if primary == nil {
				return nil, nil, fmt.Errorf("volume descriptor %d: expected CD001, found %q: %w", i, b[1:6], ErrFormat)
			}
			break
		}
		switch b[0] {
		case 1:
			if primary == nil {
				primary = b
			}
		case 2:
			if s := string(b[88:91]); joliet == nil && (s == "%/@" || s == "%/C" || s == "%/E") {
				joliet = b
			}
		case 255:
			i = maxDescriptors
		}
	}
	if primary == nil {
		return nil, nil, fmt.Errorf("no primary volume descriptor: %w", ErrFormat)
	}
	// ECMA-119 8.4.8. More than that is good: partitions follow the volume.
	blocks, block := int64(binary.LittleEndian.Uint32(primary[80:])), int64(binary.LittleEndian.Uint16(primary[128:]))
	if want := blocks * block; size < want {
		return nil, nil, fmt.Errorf("the file has %d bytes, its volume %d: %w", size, want, ErrCorrupt)
	}
	return primary, joliet, nil
}

// volume prepares reading the hierarchy that descriptor d names and returns the
// record of its root directory.
func (f *FS) volume(d []byte) (*volume, record, error) {
	v := &volume{FS: f, blockSize: int64(binary.LittleEndian.Uint16(d[128:])),
		visited: make(map[int64]string), budget: maxMetadata}
	switch v.blockSize {
	case 512, 1024, 2048:
	default:
		return nil, record{}, fmt.Errorf("logical block size: expected 512, 1024 or 2048, found %d: %w", v.blockSize, ErrCorrupt)
	}
	root, err := parseRecord(d[156 : 156+34])
	if err != nil {
		return nil, record{}, fmt.Errorf("root directory: %w", err)
	}
	if root.flags&flagDirectory == 0 {
		return nil, record{}, fmt.Errorf("root directory: not a directory: %w", ErrCorrupt)
	}
	return v, root, nil
}

// Flags of a directory record, ECMA-119 9.1.6.
const (
	flagDirectory   = 0x02
	flagMultiExtent = 0x80
)

// record is a directory record, ECMA-119 9.1.
type record struct {
	xattr  int64  // blocks of extended attribute record before the data
	block  int64  // first logical block
	size   int64  // bytes of data
	date   []byte // 7 bytes, 9.1.5
	flags  byte
	unit   byte   // file unit size, not 0 if interleaved
	gap    byte   // interleave gap size
	name   []byte // identifier
	system []byte // system use area
}

// parseRecord reads the record that fills b.
func parseRecord(b []byte) (record, error) {
	if len(b) < 34 {
		return record{}, fmt.Errorf("directory record: expected at least 34 bytes, found %d: %w", len(b), ErrCorrupt)
	}
	n := int(b[32])
	if n == 0 || 33+n > len(b) {
		return record{}, fmt.Errorf("directory record of %d bytes: identifier of %d bytes: %w", len(b), n, ErrCorrupt)
	}
	r := record{
		xattr: int64(b[1]),
		block: int64(binary.LittleEndian.Uint32(b[2:])),
		size:  int64(binary.LittleEndian.Uint32(b[10:])),
		date:  b[18:25], flags: b[25], unit: b[26], gap: b[27],
		name: b[33 : 33+n],
	}
	if use := 33 + n + (n+1)%2; use < len(b) {
		r.system = b[use:]
	}
	return r, nil
}

// readAt fills b from offset off, and reports what lies outside the image as
// corruption.
func readAt(r io.ReaderAt, size, off int64, b []byte) error {
	if off < 0 || off > size || int64(len(b)) > size-off {
		return fmt.Errorf("bytes %d to %d of an image of %d: %w", off, off+int64(len(b)), size, ErrCorrupt)
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}

// metadata reads n bytes at off and charges them to the volume's budget.
func (v *volume) metadata(off, n int64) ([]byte, error) {
	if n > v.budget {
		return nil, fmt.Errorf("more than %d bytes of directories: %w", int64(maxMetadata), ErrCorrupt)
	}
	if off < 0 || off > v.size || n > v.size-off {
		return nil, fmt.Errorf("bytes %d to %d of an image of %d: %w", off, off+n, v.size, ErrCorrupt)
	}
	v.budget -= n
	b := make([]byte, n)
	return b, readAt(v.r, v.size, off, b)
}

func (v *volume) dataOffset(r record) int64 { return (r.block + r.xattr) * v.blockSize }

// detectRockRidge looks for SUSP's SP entry, which must be the first one of the
// root's own record, and for an ER entry that names Rock Ridge (SUSP 5.3, 5.5).
func (v *volume) detectRockRidge(root record) (bool, int, error) {
	self, err := v.self(v.dataOffset(root))
	if err != nil {
		return false, 0, fmt.Errorf("root directory: %w", err)
	}
	s := self.system
	if len(s) < 7 || string(s[:2]) != "SP" || s[2] < 7 || s[4] != 0xBE || s[5] != 0xEF {
		return false, 0, nil
	}
	found := false
	err = v.susp(s, 0, func(sig string, data []byte) error {
		switch sig {
		case "ER":
			if len(data) >= 4 && len(data) >= 4+int(data[0]) {
				switch string(data[4 : 4+int(data[0])]) {
				case "RRIP_1991A", "IEEE_P1282", "IEEE_1282":
					found = true
				}
			}
		case "RR", "PX": // RRIP 1.09 writers, and those that leave ER out
			found = true
		}
		return nil
	})
	if err != nil {
		return false, 0, fmt.Errorf("root directory: %w", err)
	}
	return found, int(s[6]), nil
}

// self reads the first record of the directory at off: the one for itself.
func (v *volume) self(off int64) (record, error) {
	head, err := v.metadata(off, 1)
	if err != nil {
		return record{}, err
	}
	b, err := v.metadata(off, int64(head[0]))
	if err != nil {
		return record{}, err
	}
	r, err := parseRecord(b)
	if err != nil {
		return record{}, err
	}
	if len(r.name) != 1 || r.name[0] != 0 {
		return record{}, fmt.Errorf("first record of a directory: expected the directory itself, found %q: %w", r.name, ErrCorrupt)
	}
	return r, nil
}

type pending struct {
	n     *node
	rec   record
	path  string
	depth int
}

// readTree reads all directories, breadth first. No directory is read twice, so
// the work is bounded by the image's size even where records form a loop.
func (v *volume) readTree(root record) error {
	top := &node{name: ".", mode: fs.ModeDir | 0o555, mtime: shortDate(root.date)}
	if v.naming == RockRidge {
		self, err := v.self(v.dataOffset(root))
		if err != nil {
			return fmt.Errorf("root directory: %w", err)
		}
		skip := v.skip
		v.skip = 0 // the root's own record starts with SP, without bytes to skip
		_, err = v.rockRidge(self, top)
		v.skip = skip
		if err != nil {
			return fmt.Errorf("root directory: %w", err)
		}
		top.name = "."
		if !top.mode.IsDir() {
			return fmt.Errorf("root directory: mode %v: %w", top.mode, ErrCorrupt)
		}
	}
	v.root = top
	queue := []pending{{top, root, ".", 0}}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		sub, err := v.readDir(p)
		if err != nil {
			return fmt.Errorf("directory %q: %w", p.path, err)
		}
		queue = append(queue, sub...)
	}
	return nil
}

// readDir fills in the children of one directory and returns those that are
// directories themselves.
func (v *volume) readDir(p pending) ([]pending, error) {
	if p.depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels: %w", maxDepth, ErrCorrupt)
	}
	off := v.dataOffset(p.rec)
	if other, ok := v.visited[off]; ok {
		return nil, fmt.Errorf("its extent is also that of %q: %w", other, ErrCorrupt)
	}
	v.visited[off] = p.path
	if p.rec.flags&flagMultiExtent != 0 || p.rec.unit != 0 || p.rec.gap != 0 {
		return nil, fmt.Errorf("directory in several pieces: %w", ErrUnsupported)
	}
	data, err := v.metadata(off, p.rec.size)
	if err != nil {
		return nil, err
	}
	p.n.index = make(map[string]*node)
	var (
		sub  []pending
		open *node // file whose next extent follows
		name []byte
	)
	for pos := 0; pos < len(data); {
		n := int(data[pos])
		if n == 0 { // rest of the sector is unused: records do not cross sectors
			pos = (pos/sectorSize + 1) * sectorSize
			continue
		}
		if n > len(data)-pos || pos/sectorSize != (pos+n-1)/sectorSize {
			return nil, fmt.Errorf("record of %d bytes at %d crosses a sector or the end: %w", n, pos, ErrCorrupt)
		}
		rec, err := parseRecord(data[pos : pos+n])
		pos += n
		if err != nil {
			return nil, err
		}
		if len(rec.name) == 1 && rec.name[0] <= 1 { // itself and its parent
			continue
		}
		if v.entries++; v.entries > maxEntries {
			return nil, fmt.Errorf("more than %d directory records: %w", maxEntries, ErrCorrupt)
		}

		if open != nil { // a further extent: same identifier, ECMA-119 9.1.6
			if !bytes.Equal(name, rec.name) || rec.flags&flagDirectory != 0 {
				return nil, fmt.Errorf("expected another extent of %q, found %q: %w", name, rec.name, ErrCorrupt)
			}
			if err := v.addExtent(open, rec); err != nil {
				return nil, err
			}
			if rec.flags&flagMultiExtent == 0 {
				open = nil
			}
			continue
		}

		c := &node{mtime: shortDate(rec.date), mode: 0o444}
		if rec.flags&flagDirectory != 0 {
			c.mode = fs.ModeDir | 0o555
		}
		hidden := false
		var child int64
		switch v.naming {
		case RockRidge:
			link, err := v.rockRidge(rec, c)
			if err != nil {
				return nil, fmt.Errorf("record %q: %w", rec.name, err)
			}
			child, hidden = link.child, link.relocated
			if c.name == "" { // a record without NM keeps its ISO name
				c.name = plainName(rec.name)
			}
		case Joliet:
			if c.name, err = jolietName(rec.name); err != nil {
				return nil, err
			}
		default:
			c.name = plainName(rec.name)
		}
		if hidden { // RRIP 4.1.5.3: listed where its CL entry is
			continue
		}
		if err := checkName(c.name); err != nil {
			return nil, err
		}

		full := path.Join(p.path, c.name)
		switch {
		case child != 0:
			// RRIP 4.1.5.1: a directory that was moved up; its own first
			// record says how long it is.
			self, err := v.self(child * v.blockSize)
			if err != nil {
				return nil, fmt.Errorf("moved directory %q: %w", c.name, err)
			}
			moved := *c
			if _, err := v.rockRidge(self, &moved); err != nil {
				return nil, fmt.Errorf("moved directory %q: %w", c.name, err)
			}
			name := c.name
			*c = moved
			c.name = name
			c.mode = c.mode.Perm() | c.mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) | fs.ModeDir
			self.block = child - self.xattr
			sub = append(sub, pending{c, self, full, p.depth + 1})
		case c.mode.IsDir() != (rec.flags&flagDirectory != 0):
			return nil, fmt.Errorf("%q: record and mode %v disagree about its type: %w", c.name, c.mode, ErrCorrupt)
		case c.mode.IsDir():
			sub = append(sub, pending{c, rec, full, p.depth + 1})
		case c.mode.IsRegular():
			if err := v.addExtent(c, rec); err != nil {
				return nil, err
			}
			if rec.flags&flagMultiExtent != 0 {
				open, name = c, rec.name
			}
		}
		if _, ok := p.n.index[c.name]; ok {
			if v.naming == Plain { // an older version of the file: the newest comes first
				if open == c {
					return nil, fmt.Errorf("%q: older version in several extents: %w", c.name, ErrUnsupported)
				}
				continue
			}
			return nil, fmt.Errorf("%q is listed twice: %w", c.name, ErrCorrupt)
		}
		p.n.index[c.name] = c
		p.n.children = append(p.n.children, c)
	}
	if open != nil {
		return nil, fmt.Errorf("last extent of %q is missing: %w", open.name, ErrCorrupt)
	}
	sort.Slice(p.n.children, func(i, j int) bool { return p.n.children[i].name < p.n.children[j].name })
	return sub, nil
}

// addExtent appends a record's data to the file n. An extent outside the image
// makes the file unreadable, not the image.
func (v *volume) addExtent(n *node, rec record) error {
	n.size += rec.size
	if rec.unit != 0 || rec.gap != 0 {
		n.err = fmt.Errorf("interleaved file: %w", ErrUnsupported)
		return nil
	}
	if rec.size == 0 { // its block number means nothing
		return nil
	}
	off := v.dataOffset(rec)
	if off > v.size || rec.size > v.size-off {
		n.err = fmt.Errorf("content at bytes %d to %d of an image of %d: %w", off, off+rec.size, v.size, ErrCorrupt)
		return nil
	}
	if k := len(n.extents); k > 0 && n.extents[k-1].off+n.extents[k-1].size == off {
		n.extents[k-1].size += rec.size
		return nil
	}
	if len(n.extents) == maxExtents {
		return fmt.Errorf("%q has more than %d extents: %w", n.name, maxExtents, ErrCorrupt)
	}
	n.extents = append(n.extents, extent{off, rec.size})
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("file name %q: %w", name, ErrCorrupt)
	}
	return nil
}

// plainName makes a name of an ISO identifier as Linux does by default: lower
// case, no version, no empty extension.
func plainName(id []byte) string {
	s := string(id)
	if i := strings.LastIndexByte(s, ';'); i > 0 {
		s = s[:i]
	}
	if len(s) > 1 {
		s = strings.TrimSuffix(s, ".")
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// jolietName decodes a big-endian UCS-2 identifier and drops its version.
func jolietName(id []byte) (string, error) {
	if len(id)%2 != 0 {
		return "", fmt.Errorf("joliet name %q of %d bytes: %w", id, len(id), ErrCorrupt)
	}
	u := make([]uint16, len(id)/2)
	for i := range u {
		u[i] = binary.BigEndian.Uint16(id[2*i:])
	}
	s := string(utf16.Decode(u))
	if i := strings.LastIndexByte(s, ';'); i > 0 && strings.Trim(s[i+1:], "0123456789") == "" {
		s = s[:i]
	}
	return s, nil
}

// shortDate reads the 7-byte form of ECMA-119 9.1.5: years since 1900, month,
// day, hour, minute, second, offset from UTC in quarters of an hour. All zero
// means not specified.
func shortDate(b []byte) time.Time {
	if bytes.Equal(b, make([]byte, 7)) {
		return time.Time{}
	}
	t := time.Date(1900+int(b[0]), time.Month(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]), 0, time.UTC)
	return t.Add(-time.Duration(int8(b[6])) * 15 * time.Minute)
}

// longDate reads the 17-byte form of ECMA-119 8.4.26.1: sixteen digits, of
// which the last two are hundredths of a second, and the same offset.
func longDate(b []byte) time.Time {
	t, err := time.Parse("20060102150405", string(b[:14]))
	if err != nil {
		return time.Time{}
	}
	return t.Add(-time.Duration(int8(b[16])) * 15 * time.Minute)
}

// Package iso9660 reads ISO 9660 images in user space. Images are untrusted.
//
// The volume structure is ECMA-119 (4th edition). Names, modes, owners, times and
// links come from Rock Ridge (RRIP 1.12 over SUSP 1.12) if the image has it;
// otherwise names come from Joliet, or from the plain ISO identifiers, converted to
// lower case and without version, as Linux shows them. The system area (the first
// 16 sectors) is ignored, so hybrid images with a partition table are read like any
// other.
//
// [Open] reads the whole directory tree once, within fixed limits. It rejects
// images that could make a reader loop: directories with two names, chains of
// continuation areas, records that cross their sector; and images that are shorter
// than their volume. The tree is immutable and safe for concurrent use; content of
// files is read on demand.
package iso9660

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

var (
	// ErrFormat means that the input is not an ISO 9660 image.
	ErrFormat = errors.New("not an ISO 9660 image")
	// ErrCorrupt means that the image contradicts the format or its own size,
	// for example because it was truncated.
	ErrCorrupt = errors.New("corrupt ISO 9660 image")
	// ErrUnsupported means that the image uses a feature that this package lacks:
	// interleaved files, sparse files, zisofs.
	ErrUnsupported = errors.New("unsupported ISO 9660 feature")
)

const (
	sectorSize = 2048 // bytes; ECMA-119 6.1.2 (logical sector)

	maxDescriptors = 64       // volume descriptors
	maxEntries     = 1 << 20  // directory records in one image
	maxMetadata    = 64 << 20 // bytes of directories and continuation areas
	maxDepth       = 512      // levels of directories
	maxName        = 1024     // bytes of one Rock Ridge name
	maxTarget      = 4096     // bytes of a symbolic link's target
	maxContinue    = 64       // continuation areas of one directory record
	maxExtents     = 1 << 12  // extents of one file: 16 TiB
	maxLinks       = 40       // symbolic links followed in one look-up
)

// Naming is the source of an image's names.
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

// FS is an opened image: an [fs.FS] that implements [fs.ReadDirFS], [fs.StatFS] and
// [fs.ReadLinkFS]. Its regular files also implement [io.ReaderAt], [io.Seeker] and
// [io.WriterTo].
//
// Rock Ridge names are bytes, so paths may be invalid UTF-8. Open and Stat follow
// symbolic links within the image; an absolute target starts at the root of the
// image, and ".." at the root is an error.
type FS struct {
	r        io.ReaderAt
	size     int64
	root     *node
	naming   Naming
	volumeID string
}

// Stat is what [fs.FileInfo.Sys] returns: attributes that [fs.FileInfo] lacks. They
// are zero without Rock Ridge.
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
	err      error // the reason why the content cannot be read, or nil
}

// volume is one directory hierarchy of an image while it is read.
type volume struct {
	*FS
	blockSize int64
	skip      int // SUSP LEN_SKP: bytes before the first entry of a system use area
	visited   map[int64]string
	entries   int
	budget    int64 // bytes of metadata that may still be read
}

// Open reads the volume descriptors and the directory tree of the image in the first
// size bytes of r. r must stay usable as long as the FS and its files are in use.
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

// Naming returns the source of the image's names.
func (f *FS) Naming() Naming { return f.naming }

// VolumeID returns the identifier of the primary volume, without padding.
func (f *FS) VolumeID() string { return f.volumeID }

// descriptors returns the primary volume descriptor and the Joliet descriptor or nil
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
	// ECMA-119 8.4.8. The file may be longer: partitions follow the volume.
	blocks, block := int64(binary.LittleEndian.Uint32(primary[80:])), int64(binary.LittleEndian.Uint16(primary[128:]))
	if want := blocks * block; size < want {
		return nil, nil, fmt.Errorf("the file has %d bytes, its volume %d: %w", size, want, ErrCorrupt)
	}
	return primary, joliet, nil
}

// volume prepares to read the hierarchy of descriptor d, and returns the record of
// its root directory.
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

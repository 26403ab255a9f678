package compare

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/squashfs"
)

// from is a blob without its first bytes.
func from(b blob, off int64) blob {
	return blob{size: max(b.size-off, 0), open: func() (io.ReadCloser, error) {
		at, closer, err := b.at()
		if err != nil {
			return nil, err
		}
		r := io.NewSectionReader(at, off, max(b.size-off, 0))
		return both{r, closer, io.NopCloser(nil)}, nil
	}}
}

// squashRest compares the parts of two SquashFS images that are not in files: options
// of the writer, padding, unused bytes. If no file differs, it names the first section
// that differs.
func (c *comparer) squashRest(a, b *squashTree, p *pairing, sameFiles bool) (list []api.CompareCause, err error) {
	x, y := squashOptions(a.r), squashOptions(b.r)
	for i := range x {
		if x[i][1] == y[i][1] {
			continue
		}
		code := codeLayout
		switch x[i][0] {
		case "superblock: modification time":
			code = codeMtime
		case "superblock: compressor", "compressor options":
			code = codeCompression
		}
		list = append(list, cause(code, x[i][1], y[i][1], x[i][0]))
	}
	if !sameFiles {
		more, err := c.squashLoose(a.r, b.r, p)
		return append(list, more...), err
	}
	const superblock = 96
	at, err := c.firstDifference(from(p.a, superblock), from(p.b, superblock))
	if err != nil {
		return nil, err
	}
	if at < 0 {
		if len(list) == 0 {
			list = append(list, cause(codeLayout, "", "", "first section that differs: "+squashSection(a.r, p.at)))
		}
		return list, nil
	}
	at += superblock
	s, t := squashSection(a.r, at), squashSection(b.r, at)
	where := fmt.Sprintf("first section that differs: %s, at byte %d", s, at)
	if s != t {
		where = fmt.Sprintf("the sections differ from byte %d: %s, %s", at, s, t)
	}
	if s == "data" && t == "data" {
		nameA, startA, err := a.owner(c.ctx, uint64(at))
		if err != nil {
			return nil, err
		}
		nameB, startB, err := b.owner(c.ctx, uint64(at))
		if err != nil {
			return nil, err
		}
		switch {
		case nameA == "" || nameB == "":
			where += ", in a block of fragments"
		case nameA == nameB && startA == startB:
			return append(list, cause(codeCompression, "", "", fmt.Sprintf("%s, in a block of %s, with the same contents", where, shown(nameA)))), nil
		default:
			where += fmt.Sprintf(": the order of the data; A has a block of %s there, B one of %s", shown(nameA), shown(nameB))
		}
	}
	return append(list, cause(codeLayout, "", "", where)), nil
}

// squashLoose compares the bytes of two images that belong to no file.
func (c *comparer) squashLoose(a, b *squashfs.Reader, p *pairing) (list []api.CompareCause, err error) {
	at, err := c.firstDifference(from(p.a, int64(a.Superblock().BytesUsed)), from(p.b, int64(b.Superblock().BytesUsed)))
	if err != nil {
		return nil, err
	}
	tail := func(b blob, r *squashfs.Reader) int64 { return b.size - int64(r.Superblock().BytesUsed) }
	if at >= 0 && (tail(p.a, a) > 4096 || tail(p.b, b) > 4096 || !c.zeros(p, a, b)) {
		list = append(list, cause(codeLayout, "", "", "other bytes after the image"))
	}
	for i, r := range []*squashfs.Reader{a, b} {
		if err := r.CheckLayout(c.ctx); err != nil {
			if c.ctx.Err() != nil {
				return nil, err
			}
			list = append(list, cause(codeLayout, "", "", fmt.Sprintf("bytes in %s that no file has: %v", "AB"[i:i+1], err)))
			break
		}
	}
	return list, nil
}

// zeros reports whether the padding of both images is zero.
func (c *comparer) zeros(p *pairing, a, b *squashfs.Reader) bool {
	for _, s := range []struct {
		b blob
		r *squashfs.Reader
	}{{p.a, a}, {p.b, b}} {
		data, ok, err := from(s.b, int64(s.r.Superblock().BytesUsed)).load(4096)
		if err != nil || !ok || len(bytes.Trim(data, "\x00")) > 0 {
			return false
		}
	}
	return true
}

const isoSector = 2048

// isoFields are fields of the primary volume descriptor (ECMA-119 8.4).
var isoFields = []struct {
	name     string
	from, to int
	date     bool
}{
	{"system identifier", 8, 40, false}, {"volume identifier", 40, 72, false}, {"volume set identifier", 190, 318, false}, {"publisher", 318, 446, false},
	{"data preparer", 446, 574, false}, {"application", 574, 702, false}, {"copyright file", 702, 739, false}, {"abstract file", 739, 776, false},
	{"bibliographic file", 776, 813, false}, {"creation date", 813, 830, true}, {"modification date", 830, 847, true}, {"expiration date", 847, 864, true},
	{"effective date", 864, 881, true}, {"application use", 883, 1395, false},
}

// isoRest compares the parts of two ISO images that are not in files: the system area
// with the boot code and the partition table, the descriptors, the boot images, and the
// bytes after the volume.
func (c *comparer) isoRest(p *pairing, sameFiles bool) (list []api.CompareCause, err error) {
	var at [2]io.ReaderAt
	blobs := [2]blob{p.a, p.b}
	for i := range blobs {
		var closer io.Closer
		if at[i], closer, err = blobs[i].at(); err != nil {
			return nil, err
		}
		defer closer.Close()
	}
	var area, pvd [2][]byte
	for i := range at {
		area[i], pvd[i] = make([]byte, 16*isoSector), make([]byte, isoSector)
		if _, err := at[i].ReadAt(area[i], 0); err != nil {
			return nil, err
		}
		if _, err := at[i].ReadAt(pvd[i], 16*isoSector); err != nil {
			return nil, err
		}
	}
	if k := differs(area[0], area[1]); k >= 0 {
		list = append(list, cause(codeLayout, "", "", fmt.Sprintf("system area, with boot code and partition tables: differs from byte %d", k)))
	}
	for _, f := range isoFields {
		a, b := pvd[0][f.from:f.to], pvd[1][f.from:f.to]
		if bytes.Equal(a, b) {
			continue
		}
		code := codeLayout
		if f.date {
			code = codeMtime
		}
		list = append(list, cause(code, clip(strings.TrimRight(string(a), " \x00")), clip(strings.TrimRight(string(b), " \x00")), "volume descriptor: "+f.name))
	}
	more, err := c.isoBoot(blobs, at, pvd)
	if err != nil {
		return nil, err
	}
	if list = append(list, more...); len(list) > 0 || !sameFiles {
		return list, nil
	}
	where := "directories, path tables or places of files"
	if p.at < 16*isoSector {
		where = "system area"
	} else if p.at < 17*isoSector {
		where = "primary volume descriptor"
	}
	return append(list, cause(codeLayout, "", "", fmt.Sprintf("first section that differs: %s, at byte %d", where, p.at))), nil
}

// maxBoot bounds the boot images of an ISO image.
const maxBoot = 64

// isoBoot compares the boot catalogs, the boot images (El Torito 1.0), and the bytes
// after the volumes.
func (c *comparer) isoBoot(blobs [2]blob, at [2]io.ReaderAt, pvd [2][]byte) (list []api.CompareCause, err error) {
	var images [2][]span
	for i := range at {
		if images[i], err = bootImages(at[i], blobs[i].size); err != nil {
			return nil, err
		}
	}
	if len(images[0]) != len(images[1]) {
		return []api.CompareCause{cause(codeLayout, fmt.Sprint(len(images[0])), fmt.Sprint(len(images[1])), "number of boot images")}, nil
	}
	part := func(b blob, s span) blob {
		cut := b
		cut.size = min(b.size, s.to)
		return from(cut, s.from)
	}
	for k := range images[0] {
		off, err := c.firstDifference(part(blobs[0], images[0][k]), part(blobs[1], images[1][k]))
		if err != nil {
			return nil, err
		}
		if off >= 0 {
			list = append(list, cause(codeContents, "", "", fmt.Sprintf("boot image %d differs from byte %d", k+1, off)))
		}
	}
	end := func(i int) int64 { return int64(binary.LittleEndian.Uint32(pvd[i][80:])) * isoSector }
	off, err := c.firstDifference(from(blobs[0], end(0)), from(blobs[1], end(1)))
	if err != nil {
		return nil, err
	}
	if off >= 0 {
		list = append(list, cause(codeContents, "", "", fmt.Sprintf("what follows the volume differs from its byte %d", off)))
	}
	return list, nil
}

// bootImages returns the ranges of the boot images.
func bootImages(at io.ReaderAt, size int64) (out []span, err error) {
	b := make([]byte, isoSector)
	for i := int64(17); i < 32; i++ {
		if _, err := at.ReadAt(b, i*isoSector); err != nil || string(b[1:6]) != "CD001" || b[0] == 255 {
			return nil, nil
		}
		if b[0] == 0 && strings.HasPrefix(string(b[7:]), "EL TORITO SPECIFICATION") {
			break
		}
		if i == 31 {
			return nil, nil
		}
	}
	catalog := int64(binary.LittleEndian.Uint32(b[71:])) * isoSector
	if catalog+isoSector > size {
		return nil, nil
	}
	if _, err := at.ReadAt(b, catalog); err != nil {
		return nil, err
	}
	for e := b[32:]; len(e) >= 32 && len(out) < maxBoot; e = e[32:] {
		if e[0] != 0x88 && e[0] != 0x00 {
			continue
		}
		start, n := int64(binary.LittleEndian.Uint32(e[8:]))*isoSector, int64(binary.LittleEndian.Uint16(e[6:]))*512
		if start > 0 && n > 0 {
			out = append(out, span{start, start + n})
		}
	}
	return out, nil
}

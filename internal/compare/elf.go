package compare

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"

	"example.org/snapd/internal/api"
)

// span is a range of bytes of a file.
type span struct{ from, to int64 }

// elfSpans returns the positions of the build ID and of the link to debug symbols in an
// ELF file. The span of an absent one is empty.
func elfSpans(at io.ReaderAt, size int64) (id, link span, err error) {
	f, err := elf.NewFile(at)
	if err != nil {
		return id, link, fmt.Errorf("read ELF file: %w", err)
	}
	defer f.Close()
	for _, s := range f.Sections {
		from, n := int64(s.Offset), int64(s.FileSize)
		if from < 0 || n < 0 || n > size || from > size-n || s.Flags&elf.SHF_EXECINSTR != 0 {
			continue
		}
		switch {
		case s.Name == ".note.gnu.build-id" && s.Type == elf.SHT_NOTE && n > 16 && n <= 80:
			note := make([]byte, 16)
			if _, err := at.ReadAt(note, from); err != nil {
				return id, link, err
			}
			if f.ByteOrder.Uint32(note) == 4 && int64(f.ByteOrder.Uint32(note[4:])) == n-16 && f.ByteOrder.Uint32(note[8:]) == 3 && string(note[12:]) == "GNU\x00" {
				id = span{from + 16, from + n}
			}
		case s.Name == ".gnu_debuglink" && n >= 8 && n <= 512:
			link = span{from, from + n}
		}
	}
	return id, link, nil
}

// elfCauses explains two ELF files that differ in their build ID, in the link to their
// debug symbols, or in printable text.
func (c *comparer) elfCauses(p *pairing) ([]api.CompareCause, error) {
	var ids, links [2]span
	blobs := [2]blob{p.a, p.b}
	for i := range blobs {
		if blobs[i].at == nil {
			var err error
			if blobs[i], err = inMemory(blobs[i]); err != nil {
				return nil, err
			}
			if blobs[i].at == nil {
				return nil, nil // too large: plainCauses reports that
			}
		}
		at, closer, err := blobs[i].at()
		if err != nil {
			return nil, err
		}
		ids[i], links[i], err = elfSpans(at, blobs[i].size)
		closer.Close()
		if err != nil {
			return nil, nil // not a readable ELF file
		}
	}
	if blobs[0].size != blobs[1].size || ids[0] != ids[1] || links[0] != links[1] {
		return nil, nil
	}
	var list []api.CompareCause
	for _, m := range []struct {
		code string
		span
	}{{codeBuildID, ids[0]}, {codeDebugLink, links[0]}} {
		if m.from == m.to {
			continue
		}
		a, b, err := bothSpans(blobs, m.span)
		if err != nil {
			return nil, err
		}
		if string(a) == string(b) {
			continue
		}
		list = append(list, cause(m.code, elfText(m.code, a), elfText(m.code, b), ""))
		for i := range blobs {
			blobs[i] = masked(blobs[i], m.from, m.to)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	at, err := c.firstDifference(blobs[0], blobs[1])
	if err != nil || at < 0 {
		return list, err
	}
	x, ok, err := blobs[0].load(maxLoaded)
	if err != nil || !ok {
		return nil, err
	}
	y, ok, err := blobs[1].load(maxLoaded)
	if err != nil || !ok {
		return nil, err
	}
	if more, ok := c.binaries(p, x, y); ok {
		return addCause(list, more...), nil
	}
	return addCause(list, cause(codeContents, "", "", fmt.Sprintf("beside that differs from byte %d", at))), nil
}

// bothSpans reads one range of two files.
func bothSpans(blobs [2]blob, s span) (a, b []byte, err error) {
	var out [2][]byte
	for i := range blobs {
		r, err := blobs[i].open()
		if err != nil {
			return nil, nil, err
		}
		out[i] = make([]byte, s.to-s.from)
		_, err = io.CopyN(io.Discard, r, s.from)
		if err == nil {
			_, err = io.ReadFull(r, out[i])
		}
		r.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return out[0], out[1], nil
}

// elfText shows a build ID or a link.
func elfText(code string, b []byte) string {
	if code == codeBuildID {
		return fmt.Sprintf("%x", b)
	}
	end := 0
	for end < len(b) && b[end] != 0 {
		end++
	}
	return clip(fmt.Sprintf("%s %08x", b[:end], binary.LittleEndian.Uint32(b[len(b)-4:])))
}

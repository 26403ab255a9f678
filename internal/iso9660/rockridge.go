package iso9660

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
)

// susp calls fn with the signature and the data (what follows the 4-byte
// header) of each entry in the system use area s, and of those in its
// continuation areas (SUSP 1.12, 4 and 5). skip is the number of bytes before
// the first entry.
func (v *volume) susp(s []byte, skip int, fn func(sig string, data []byte) error) error {
	if skip > len(s) {
		return nil
	}
	s = s[skip:]
	for areas := 0; ; areas++ {
		var next []byte
		more := false
		for len(s) >= 4 {
			sig, n := string(s[:2]), int(s[2])
			if sig == "\x00\x00" { // padding
				break
			}
			if n < 4 || n > len(s) {
				return fmt.Errorf("system use entry %q of %d bytes with %d left: %w", sig, n, len(s), ErrCorrupt)
			}
			data := s[4:n]
			s = s[n:]
			switch sig {
			case "ST":
				s = nil
				continue
			case "CE": // block, offset in it, length: each in both byte orders
				if len(data) < 24 {
					return fmt.Errorf("CE entry of %d bytes: %w", n, ErrCorrupt)
				}
				if more {
					return fmt.Errorf("two CE entries in one area: %w", ErrCorrupt)
				}
				if areas == maxContinue {
					return fmt.Errorf("more than %d continuation areas: %w", maxContinue, ErrCorrupt)
				}
				block := int64(binary.LittleEndian.Uint32(data[0:]))
				off := int64(binary.LittleEndian.Uint32(data[8:]))
				size := int64(binary.LittleEndian.Uint32(data[16:]))
				var err error
				if next, err = v.metadata(block*v.blockSize+off, size); err != nil {
					return fmt.Errorf("continuation area: %w", err)
				}
				more = true
				continue
			}
			if err := fn(sig, data); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		s = next
	}
}

// relocation is what RRIP 4.1.5 says about a record of a tree deeper than the
// eight levels of ECMA-119.
type relocation struct {
	child     int64 // CL: block of the directory that belongs here; 0 if none
	relocated bool  // RE: this directory belongs elsewhere
}

// rockRidge applies the Rock Ridge entries of rec to n.
func (v *volume) rockRidge(rec record, n *node) (relocation, error) {
	var (
		rel           relocation
		name          []byte
		nameOpen      = true
		link          linkTarget
		hasPX, hasDev bool
	)
	err := v.susp(rec.system, v.skip, func(sig string, d []byte) error {
		switch sig {
		case "PX": // mode, links, uid, gid and (1.12) serial number, in both byte orders
			if len(d) < 32 {
				return fmt.Errorf("PX entry of %d bytes: %w", 4+len(d), ErrCorrupt)
			}
			mode, err := fileMode(binary.LittleEndian.Uint32(d))
			if err != nil {
				return err
			}
			hasPX = true
			n.mode = mode
			n.stat.Nlink = binary.LittleEndian.Uint32(d[8:])
			n.stat.UID = binary.LittleEndian.Uint32(d[16:])
			n.stat.GID = binary.LittleEndian.Uint32(d[24:])
			if len(d) >= 40 {
				n.stat.Serial = binary.LittleEndian.Uint32(d[32:])
			}
		case "PN": // device number, high and low half
			if len(d) < 16 {
				return fmt.Errorf("PN entry of %d bytes: %w", 4+len(d), ErrCorrupt)
			}
			hasDev = true
			hi, lo := binary.LittleEndian.Uint32(d), binary.LittleEndian.Uint32(d[8:])
			if hi == 0 { // writers that put all of a 16-bit number into the low half
				hi, lo = lo>>8, lo&0xff
			}
			n.stat.Major, n.stat.Minor = hi, lo
		case "NM": // flags (1 goes on, 2 ".", 4 ".."), piece of the name
			if len(d) < 1 {
				return fmt.Errorf("NM entry of %d bytes: %w", 4+len(d), ErrCorrupt)
			}
			if d[0]&6 != 0 || !nameOpen {
				return nil
			}
			if len(name)+len(d)-1 > maxName {
				return fmt.Errorf("name longer than %d bytes: %w", maxName, ErrCorrupt)
			}
			name = append(name, d[1:]...)
			nameOpen = d[0]&1 != 0
		case "SL":
			// genisoimage writes broken SL entries for long targets: that
			// spoils the link, not the image.
			if err := link.add(d); err != nil && n.err == nil {
				n.err = err
			}
		case "TF": // flags, then one time for each: 1 creation, 2 modification, ...
			if len(d) < 1 {
				return fmt.Errorf("TF entry of %d bytes: %w", 4+len(d), ErrCorrupt)
			}
			size := 7
			if d[0]&0x80 != 0 {
				size = 17
			}
			at := 1
			if d[0]&1 != 0 {
				at += size
			}
			if d[0]&2 != 0 {
				if at+size > len(d) {
					return fmt.Errorf("TF entry of %d bytes: %w", 4+len(d), ErrCorrupt)
				}
				if size == 7 {
					n.mtime = shortDate(d[at : at+size])
				} else {
					n.mtime = longDate(d[at : at+size])
				}
			}
		case "CL":
			if len(d) < 8 {
				return fmt.Errorf("CL entry of %d bytes: %w", 4+len(d), ErrCorrupt)
			}
			if rel.child = int64(binary.LittleEndian.Uint32(d)); rel.child == 0 {
				return fmt.Errorf("CL entry names block 0: %w", ErrCorrupt)
			}
		case "RE":
			rel.relocated = true
		case "SF":
			n.err = fmt.Errorf("sparse file: %w", ErrUnsupported)
		case "ZF":
			n.err = fmt.Errorf("zisofs file: %w", ErrUnsupported)
		}
		return nil
	})
	if err != nil {
		return rel, err
	}
	if len(name) > 0 {
		n.name = string(name)
	}
	if !hasPX && link.any {
		n.mode = fs.ModeSymlink | 0o777
	}
	if n.mode&fs.ModeSymlink != 0 {
		if n.target = link.b.String(); n.target == "" && n.err == nil {
			n.err = fmt.Errorf("symbolic link without target: %w", ErrCorrupt)
		}
	}
	if n.mode&fs.ModeDevice != 0 && !hasDev {
		return rel, fmt.Errorf("device without number: %w", ErrCorrupt)
	}
	return rel, nil
}

// linkTarget collects the SL entries of a record (RRIP 4.1.3): flags, then
// components of flags (1 goes on, 2 ".", 4 "..", 8 root), length, bytes.
type linkTarget struct {
	b    strings.Builder
	open bool // the last component goes on
	any  bool
}

func (l *linkTarget) add(d []byte) error {
	l.any = true
	if len(d) < 1 {
		return fmt.Errorf("SL entry of %d bytes: %w", 4+len(d), ErrCorrupt)
	}
	d = d[1:]
	for len(d) > 0 {
		if len(d) < 2 || len(d) < 2+int(d[1]) {
			return fmt.Errorf("SL component exceeds its entry: %w", ErrCorrupt)
		}
		flags, text := d[0], string(d[2:2+int(d[1])])
		d = d[2+int(d[1]):]
		if l.b.Len() > 0 && !l.open && !strings.HasSuffix(l.b.String(), "/") {
			l.b.WriteByte('/')
		}
		switch {
		case flags&8 != 0:
			text = "/"
		case flags&4 != 0:
			text = ".."
		case flags&2 != 0:
			text = "."
		}
		if strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("NUL in a link target: %w", ErrCorrupt)
		}
		l.b.WriteString(text)
		l.open = flags&1 != 0
		if l.b.Len() > maxTarget {
			return fmt.Errorf("link target longer than %d bytes: %w", maxTarget, ErrCorrupt)
		}
	}
	return nil
}

// fileMode translates a POSIX mode.
func fileMode(m uint32) (fs.FileMode, error) {
	mode := fs.FileMode(m & 0o777)
	switch m & 0o170000 {
	case 0o100000:
	case 0o040000:
		mode |= fs.ModeDir
	case 0o120000:
		mode |= fs.ModeSymlink
	case 0o060000:
		mode |= fs.ModeDevice
	case 0o020000:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case 0o010000:
		mode |= fs.ModeNamedPipe
	case 0o140000:
		mode |= fs.ModeSocket
	default:
		return 0, fmt.Errorf("mode %#o: %w", m, ErrCorrupt)
	}
	if m&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if m&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if m&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode, nil
}

package iso9660

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
)

// susp calls fn with the signature and the data (without the header of 4 bytes) of
// each entry in the system use area s and its continuation areas (SUSP 1.12, 4 and
// 5). skip is the number of bytes before the first entry.
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

// relocation describes a record in a tree that is deeper than the eight levels of
// ECMA-119 (RRIP 4.1.5).
type relocation struct {
	child     int64 // CL: block of the directory that belongs here; 0 if none
	relocated bool  // RE: this directory belongs elsewhere
}

// rockRidge applies the Rock Ridge entries of rec to n.
func (v *volume) rockRidge(rec record, n *node) (relocation, error) {
	r := rrReader{n: n, nameOpen: true}
	if err := v.susp(rec.system, v.skip, r.entry); err != nil {
		return r.rel, err
	}
	if len(r.name) > 0 {
		n.name = string(r.name)
	}
	if !r.hasMode && r.link.any {
		n.mode = fs.ModeSymlink | 0o777
	}
	if n.mode&fs.ModeSymlink != 0 {
		if n.target = r.link.b.String(); n.target == "" && n.err == nil {
			n.err = fmt.Errorf("symbolic link without target: %w", ErrCorrupt)
		}
	}
	if n.mode&fs.ModeDevice != 0 && !r.hasDevice {
		return r.rel, fmt.Errorf("device without number: %w", ErrCorrupt)
	}
	return r.rel, nil
}

// rrReader reads the Rock Ridge entries of one record.
type rrReader struct {
	n                  *node
	rel                relocation
	name               []byte
	nameOpen           bool // the name continues in the next NM entry
	link               linkTarget
	hasMode, hasDevice bool
}

func (r *rrReader) entry(sig string, d []byte) error {
	if need := map[string]int{"PX": 32, "PN": 16, "NM": 1, "TF": 1, "CL": 8}[sig]; len(d) < need {
		return fmt.Errorf("%s entry of %d bytes: %w", sig, 4+len(d), ErrCorrupt)
	}
	switch sig {
	case "PX":
		return r.mode(d)
	case "PN":
		r.device(d)
	case "NM":
		return r.namePart(d)
	case "SL":
		// genisoimage writes broken SL entries for long targets: they make the
		// link unusable, not the image.
		if err := r.link.add(d); err != nil && r.n.err == nil {
			r.n.err = err
		}
	case "TF":
		return r.times(d)
	case "CL":
		if r.rel.child = int64(binary.LittleEndian.Uint32(d)); r.rel.child == 0 {
			return fmt.Errorf("CL entry names block 0: %w", ErrCorrupt)
		}
	case "RE":
		r.rel.relocated = true
	case "SF":
		r.n.err = fmt.Errorf("sparse file: %w", ErrUnsupported)
	case "ZF":
		r.n.err = fmt.Errorf("zisofs file: %w", ErrUnsupported)
	}
	return nil
}

// mode reads PX: mode, links, uid, gid and (1.12) serial number, each in both byte
// orders.
func (r *rrReader) mode(d []byte) error {
	mode, err := fileMode(binary.LittleEndian.Uint32(d))
	if err != nil {
		return err
	}
	r.hasMode = true
	r.n.mode = mode
	r.n.stat.Nlink = binary.LittleEndian.Uint32(d[8:])
	r.n.stat.UID = binary.LittleEndian.Uint32(d[16:])
	r.n.stat.GID = binary.LittleEndian.Uint32(d[24:])
	if len(d) >= 40 {
		r.n.stat.Serial = binary.LittleEndian.Uint32(d[32:])
	}
	return nil
}

// device reads PN: the high and the low half of a device number.
func (r *rrReader) device(d []byte) {
	r.hasDevice = true
	hi, lo := binary.LittleEndian.Uint32(d), binary.LittleEndian.Uint32(d[8:])
	if hi == 0 { // some writers put a 16-bit number into the low half
		hi, lo = lo>>8, lo&0xff
	}
	r.n.stat.Major, r.n.stat.Minor = hi, lo
}

// namePart reads NM: flags (1 continues, 2 ".", 4 ".."), part of the name.
func (r *rrReader) namePart(d []byte) error {
	if d[0]&6 != 0 || !r.nameOpen {
		return nil
	}
	if len(r.name)+len(d)-1 > maxName {
		return fmt.Errorf("name longer than %d bytes: %w", maxName, ErrCorrupt)
	}
	r.name = append(r.name, d[1:]...)
	r.nameOpen = d[0]&1 != 0
	return nil
}

// times reads TF: flags, then one time for each flag: 1 creation, 2 modification
// and so on.
func (r *rrReader) times(d []byte) error {
	size, parse := 7, shortDate
	if d[0]&0x80 != 0 {
		size, parse = 17, longDate
	}
	at := 1
	if d[0]&1 != 0 {
		at += size
	}
	if d[0]&2 == 0 {
		return nil
	}
	if at+size > len(d) {
		return fmt.Errorf("TF entry of %d bytes: %w", 4+len(d), ErrCorrupt)
	}
	r.n.mtime = parse(d[at : at+size])
	return nil
}

// linkTarget collects the SL entries of a record (RRIP 4.1.3): flags, then
// components of flags (1 continues, 2 ".", 4 "..", 8 root), length, bytes.
type linkTarget struct {
	b    strings.Builder
	open bool // the last component continues
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

// detectRockRidge looks for SUSP's SP entry, which must be the first entry of the
// root's record for itself, and for an ER entry that names Rock Ridge (SUSP 5.3,
// 5.5).
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
		case "RR", "PX": // RRIP 1.09, and writers that omit ER
			found = true
		}
		return nil
	})
	if err != nil {
		return false, 0, fmt.Errorf("root directory: %w", err)
	}
	return found, int(s[6]), nil
}

package compare

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// Limits of archives.
const (
	maxMember = 64 << 30 // bytes of one member, holes included
	maxName   = 64 << 10 // bytes of a member's name
)

// A recorder keeps the bytes that are read through it while it is on.
type recorder struct {
	r    io.Reader
	on   bool
	data []byte
	at   int64 // bytes read so far
}

// maxRecorded bounds the headers of one member of a tar archive, in bytes.
const maxRecorded = 4 << 20

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.at += int64(n)
	if c.on {
		if len(c.data)+n > maxRecorded {
			return n, fmt.Errorf("%w: more than %d bytes of headers", ErrLimit, maxRecorded)
		}
		c.data = append(c.data, p[:n]...)
	}
	return n, err
}

// scanTar reads a tar archive: USTAR, PAX and GNU.
func scanTar(r io.Reader, fn func(*node, io.Reader) error) (string, error) {
	rec := &recorder{r: r}
	t := tar.NewReader(rec)
	for {
		rec.on, rec.data = true, rec.data[:0]
		h, err := t.Next()
		rec.on = false
		// The recorded bytes begin with the padding of the last member.
		pad := rec.data[:len(rec.data)%512]
		if err == io.EOF {
			return restDigest(io.MultiReader(bytes.NewReader(rec.data[len(pad):]), r))
		}
		if err != nil {
			return "", fmt.Errorf("read tar archive: %w", err)
		}
		if h.Size > maxMember {
			return "", fmt.Errorf("read tar archive: %s: %w: %d bytes, at most %d are read", excerpt.Of(h.Name), ErrLimit, h.Size, int64(maxMember))
		}
		n, err := tarNode(h)
		if err != nil {
			return "", err
		}
		n.frame = tarFrame(rec.data[len(pad):])
		if !sparse(h) {
			n.at = rec.at
		}
		if len(bytes.Trim(pad, "\x00")) > 0 {
			n.frame += fmt.Sprintf(" after padding %x", pad)
		}
		if err := fn(n, t); err != nil {
			return "", err
		}
		if _, err := io.Copy(io.Discard, t); err != nil {
			return "", fmt.Errorf("read tar archive: %s: %w", excerpt.Of(h.Name), err)
		}
	}
}

// sparse reports whether the content of a member is stored without its holes.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// restDigest is the digest of the bytes after the last member, without blocks of zeros,
// whose number depends on the size of the archive.
func restDigest(r io.Reader) (string, error) {
	h := sha256.New()
	block := make([]byte, 512)
	for n := 0; ; n++ {
		k, err := readPiece(r, block)
		if err != nil {
			return "", err
		}
		if len(bytes.Trim(block[:k], "\x00")) > 0 {
			fmt.Fprintf(h, "block %d: %x", n, block[:k])
		}
		if k < len(block) {
			return digestText(h), nil
		}
	}
}

func digestText(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)[:16]) }

// comparedPAX are the PAX records that nodes have as fields.
var comparedPAX = map[string]bool{"mtime": true, "path": true, "linkpath": true, "size": true, "uid": true, "gid": true, "uname": true, "gname": true, "atime": true, "ctime": true}

func tarNode(h *tar.Header) (*node, error) {
	n := &node{
		name: cleanName(h.Name), mode: uint32(h.Mode) & 0o7777, uid: int64(h.Uid), gid: int64(h.Gid), user: h.Uname, group: h.Gname,
		mtime: h.ModTime.Unix(), nanos: int32(h.ModTime.Nanosecond()),
	}
	for _, t := range []struct {
		name string
		sec  int64
		ns   int
		zero bool
	}{{"atime", h.AccessTime.Unix(), h.AccessTime.Nanosecond(), h.AccessTime.IsZero()}, {"ctime", h.ChangeTime.Unix(), h.ChangeTime.Nanosecond(), h.ChangeTime.IsZero()}} {
		if !t.zero {
			n.times += " " + t.name + " " + timeText(t.sec, int32(t.ns))
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.typ, n.size = typeFile, h.Size
	case tar.TypeLink:
		n.typ, n.link = typeFile, cleanName(h.Linkname)
	case tar.TypeSymlink:
		n.typ, n.target = typeSymlink, h.Linkname
	case tar.TypeDir:
		n.typ = typeDir
	case tar.TypeBlock:
		n.typ = typeBlock
	case tar.TypeChar:
		n.typ = typeChar
	case tar.TypeFifo:
		n.typ = typeFifo
	case tar.TypeXGlobalHeader:
		n.typ, n.name = "global header", "/(global header)"
	default:
		return nil, fmt.Errorf("read tar archive: %s: %w: type %q", excerpt.Of(h.Name), errUnsupported, h.Typeflag)
	}
	if n.typ == typeBlock || n.typ == typeChar {
		n.device = fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if !comparedPAX[k] {
			list = append(list, fmt.Sprintf("%s=%x", strings.TrimPrefix(k, "SCHILY.xattr."), h.PAXRecords[k]))
		}
	}
	n.xattrs = strings.Join(list, " ")
	return n, nil
}

// tarFrame returns a digest of the headers of a member, without the fields that its
// node has.
func tarFrame(raw []byte) string {
	h := sha256.New()
	var b [512]byte
	for len(raw) > 0 {
		k := copy(b[:], raw)
		clear(b[k:])
		raw = raw[k:]
		size, _ := strconv.ParseInt(strings.Trim(string(b[124:136]), " \x00"), 8, 64)
		flag := b[156]
		clear(b[0:156])
		clear(b[157:257])
		clear(b[265:512])
		h.Write(b[:])
		switch flag {
		case 'x', 'g', 'L', 'K':
			// The content of these is in the node.
			skip := min(int64(len(raw)), (size+511)/512*512)
			raw = raw[max(skip, 0):]
		default:
			// The rest belongs to a sparse map.
		}
	}
	return digestText(h)
}

// scanAr reads an ar archive: of packages, and static libraries of GNU and BSD.
func scanAr(r io.Reader, fn func(*node, io.Reader) error) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("read ar archive: %w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return bad("it begins with %q", magic)
	}
	var long []byte // names of GNU
	for {
		var h [60]byte
		if _, err := io.ReadFull(r, h[:]); err == io.EOF {
			return "", nil
		} else if err != nil {
			return "", fmt.Errorf("read ar archive: header of a member: %w", err)
		}
		field := func(from, to int) string { return strings.TrimRight(string(h[from:to]), " ") }
		size, err := strconv.ParseInt(field(48, 58), 10, 64)
		if err != nil || size < 0 || size > maxMember || string(h[58:]) != "`\n" {
			return bad("header %q", h[:])
		}
		name, padded := field(0, 16), size%2 == 1
		body := &io.LimitedReader{R: r, N: size}
		switch {
		case strings.HasPrefix(name, "#1/"):
			k, err := strconv.ParseInt(name[3:], 10, 64)
			if err != nil || k < 0 || k > min(size, maxName) {
				return bad("name %q", name)
			}
			raw := make([]byte, k)
			if _, err := io.ReadFull(body, raw); err != nil {
				return "", fmt.Errorf("read ar archive: name of a member: %w", err)
			}
			name, size = strings.TrimRight(string(raw), "\x00"), size-k
		case name == "//":
			if size > 16<<20 {
				return bad("a list of names of %d bytes", size)
			}
			if long, err = io.ReadAll(body); err != nil {
				return "", err
			}
			body = &io.LimitedReader{R: bytes.NewReader(long), N: size}
		case len(name) > 1 && name[0] == '/' && name[1] >= '0' && name[1] <= '9':
			at, err := strconv.Atoi(name[1:])
			if err != nil || at >= len(long) {
				return bad("name %q", name)
			}
			name, _, _ = strings.Cut(string(long[at:]), "\n")
			name = strings.TrimSuffix(name, "/")
		case len(name) > 1 && name != "/SYM64/":
			name = strings.TrimSuffix(name, "/")
		}
		n := &node{typ: typeFile, size: size}
		n.name = "/" + strings.ReplaceAll(name, "/", "|") // "/" is the index of a library
		n.mtime, _ = strconv.ParseInt(field(16, 28), 10, 64)
		n.uid, _ = strconv.ParseInt(field(28, 34), 10, 64)
		n.gid, _ = strconv.ParseInt(field(34, 40), 10, 64)
		mode, _ := strconv.ParseUint(field(40, 48), 8, 32)
		n.mode = uint32(mode) & 0o7777
		n.frame = string(h[0:16]) + fmt.Sprintf(" %o", mode&^0o7777)
		if err := fn(n, body); err != nil {
			return "", err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return "", err
		}
		if body.N > 0 {
			return "", fmt.Errorf("read ar archive: %s: %w", excerpt.Of(name), io.ErrUnexpectedEOF)
		}
		if padded {
			var pad [1]byte
			if _, err := io.ReadFull(r, pad[:]); err != nil && err != io.EOF {
				return "", err
			}
		}
	}
}

// scanCpio reads a cpio archive of the formats newc and crc: initramfs images, which
// may be several, compressed or not, one after the other; and payloads of rpm.
func scanCpio(open func([]byte, io.Reader) (io.Reader, error)) scanner {
	return func(r io.Reader, fn func(*node, io.Reader) error) (string, error) {
		rest := sha256.New()
		b := bufio.NewReaderSize(r, 64<<10)
		for part := 0; ; part++ {
			if part == 64 {
				return "", fmt.Errorf("read cpio archive: %w: more than %d archives in one file", ErrLimit, part)
			}
			magic, err := b.Peek(6)
			if err == io.EOF && len(magic) == 0 {
				return digestText(rest), nil
			}
			switch {
			case isCpio(magic):
				if err := cpioPart(b, rest, fn); err != nil {
					return "", err
				}
				if err := skipZeros(b, rest); err != nil {
					return "", err
				}
				continue
			case part == 0:
				return "", fmt.Errorf("read cpio archive: %w: it begins with %q", ErrCorrupt, magic)
			}
			head, _ := b.Peek(512)
			inner, err := open(head, b)
			if err != nil {
				return "", fmt.Errorf("read cpio archive: %w", err)
			}
			if inner == nil {
				return "", fmt.Errorf("read cpio archive: %w: after part %d comes %q", ErrCorrupt, part, excerpt.Of(string(head)))
			}
			fmt.Fprintf(rest, "compressed %x", magic[:4])
			b = bufio.NewReaderSize(inner, 64<<10)
		}
	}
}

func isCpio(magic []byte) bool {
	return bytes.HasPrefix(magic, []byte("070701")) || bytes.HasPrefix(magic, []byte("070702"))
}

// skipZeros skips the padding between two archives.
func skipZeros(b *bufio.Reader, rest io.Writer) error {
	n := int64(0)
	for {
		c, err := b.ReadByte()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if c != 0 {
			if err := b.UnreadByte(); err != nil {
				return err
			}
			break
		}
		n++
	}
	fmt.Fprintf(rest, "zeros %d", n)
	return nil
}

// cpioPart reads one archive to its trailer.
func cpioPart(b *bufio.Reader, rest io.Writer, fn func(*node, io.Reader) error) error {
	links := map[string]string{} // first names, by device and inode
	for {
		var h [110]byte
		if _, err := io.ReadFull(b, h[:]); err != nil {
			return fmt.Errorf("read cpio archive: header of a member: %w", noEOF(err))
		}
		if !isCpio(h[:]) {
			return fmt.Errorf("read cpio archive: %w: a header begins with %q", ErrCorrupt, h[:6])
		}
		var f [13]uint64 // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
		for i := range f {
			v, err := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return fmt.Errorf("read cpio archive: %w: header %q", ErrCorrupt, h[:])
			}
			f[i] = v
		}
		if f[11] == 0 || f[11] > maxName {
			return fmt.Errorf("read cpio archive: %w: a name of %d bytes", ErrCorrupt, f[11])
		}
		raw := make([]byte, (110+f[11]+3)/4*4-110)
		if _, err := io.ReadFull(b, raw); err != nil {
			return fmt.Errorf("read cpio archive: name of a member: %w", noEOF(err))
		}
		name := strings.TrimRight(string(raw[:f[11]]), "\x00")
		if name == "TRAILER!!!" {
			fmt.Fprintf(rest, "trailer %q %q", h[:], raw)
			return nil
		}
		n, err := cpioNode(name, f[:])
		if err != nil {
			return err
		}
		n.frame = string(h[:6]) + " " + string(raw[f[11]:])
		if f[4] > 1 && n.typ != typeDir {
			key := fmt.Sprint(f[0], f[7], f[8])
			if _, ok := links[key]; !ok {
				links[key] = n.name
			}
			n.link = links[key]
		}
		body := &io.LimitedReader{R: b, N: int64(f[6])}
		if n.typ == typeSymlink {
			if f[6] > maxName {
				return fmt.Errorf("read cpio archive: %s: %w: a target of %d bytes", excerpt.Of(name), ErrCorrupt, f[6])
			}
			target, err := io.ReadAll(body)
			if err != nil {
				return err
			}
			n.target = string(target)
		}
		if err := fn(n, body); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		if body.N > 0 {
			return fmt.Errorf("read cpio archive: %s: %w", excerpt.Of(name), io.ErrUnexpectedEOF)
		}
		if _, err := io.CopyN(io.Discard, b, int64((4-f[6]%4)%4)); err != nil {
			return fmt.Errorf("read cpio archive: %s: %w", excerpt.Of(name), noEOF(err))
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func cpioNode(name string, f []uint64) (*node, error) {
	n := &node{name: cleanName(name), mode: uint32(f[1]) & 0o7777, uid: int64(f[2]), gid: int64(f[3]), mtime: int64(f[5])}
	switch f[1] >> 12 {
	case 0o10:
		n.typ, n.size = typeFile, int64(f[6])
	case 0o4:
		n.typ = typeDir
	case 0o12:
		n.typ = typeSymlink
	case 0o6:
		n.typ = typeBlock
	case 0o2:
		n.typ = typeChar
	case 0o1:
		n.typ = typeFifo
	case 0o14:
		n.typ = typeSocket
	default:
		return nil, fmt.Errorf("read cpio archive: %s: %w: mode %o", excerpt.Of(name), ErrCorrupt, f[1])
	}
	if n.typ == typeBlock || n.typ == typeChar {
		n.device = fmt.Sprintf("%d:%d", f[9], f[10])
	}
	return n, nil
}

// scanDeb reads a Debian package. It omits the compression from the names of its
// archives, so that they can be compared.
func scanDeb(r io.Reader, fn func(*node, io.Reader) error) (string, error) {
	return scanAr(r, func(n *node, body io.Reader) error {
		for _, name := range []string{"/control.tar", "/data.tar"} {
			if strings.HasPrefix(n.name, name) && innerName(n.name) == name {
				n.name, n.frame = name, ""
			}
		}
		return fn(n, body)
	})
}

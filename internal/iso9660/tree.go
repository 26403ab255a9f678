package iso9660

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"sort"
)

// pending is a directory that has not been read yet.
type pending struct {
	n     *node
	rec   record
	path  string
	depth int
}

// readTree reads all directories, breadth first. It reads no directory twice, so
// that the size of the image bounds the work even if records form a loop.
func (v *volume) readTree(root record) error {
	top := &node{name: ".", mode: fs.ModeDir | 0o555, mtime: shortDate(root.date)}
	if v.naming == RockRidge {
		if err := v.rootAttributes(root, top); err != nil {
			return fmt.Errorf("root directory: %w", err)
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

// rootAttributes reads the root's attributes from its record for itself.
func (v *volume) rootAttributes(root record, top *node) error {
	self, err := v.self(v.dataOffset(root))
	if err != nil {
		return err
	}
	skip := v.skip
	v.skip = 0 // this record starts with SP, without bytes to skip
	_, err = v.rockRidge(self, top)
	v.skip = skip
	if err != nil {
		return err
	}
	top.name = "."
	if !top.mode.IsDir() {
		return fmt.Errorf("mode %v: %w", top.mode, ErrCorrupt)
	}
	return nil
}

// readDir reads the children of one directory and returns those that are
// directories.
func (v *volume) readDir(p pending) ([]pending, error) {
	data, err := v.dirData(p)
	if err != nil {
		return nil, err
	}
	p.n.index = make(map[string]*node)
	d := &dirReader{v: v, p: p}
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
		if d.open != nil {
			err = d.addExtent(rec)
		} else {
			err = d.add(rec)
		}
		if err != nil {
			return nil, err
		}
	}
	if d.open != nil {
		return nil, fmt.Errorf("last extent of %q is missing: %w", d.open.name, ErrCorrupt)
	}
	sort.Slice(p.n.children, func(i, j int) bool { return p.n.children[i].name < p.n.children[j].name })
	return d.sub, nil
}

// dirData reads the records of a directory that was not read before.
func (v *volume) dirData(p pending) ([]byte, error) {
	if p.depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels: %w", maxDepth, ErrCorrupt)
	}
	off := v.dataOffset(p.rec)
	if other, ok := v.visited[off]; ok {
		return nil, fmt.Errorf("it has the same extent as %q: %w", other, ErrCorrupt)
	}
	v.visited[off] = p.path
	if p.rec.flags&flagMultiExtent != 0 || p.rec.unit != 0 || p.rec.gap != 0 {
		return nil, fmt.Errorf("directory in several pieces: %w", ErrUnsupported)
	}
	return v.metadata(off, p.rec.size)
}

// dirReader collects the children of one directory.
type dirReader struct {
	v    *volume
	p    pending
	sub  []pending
	open *node  // a file with more extents in the next records
	name []byte // identifier of open
}

// addExtent adds a record to the open file: it has the same identifier (ECMA-119
// 9.1.6).
func (d *dirReader) addExtent(rec record) error {
	if !bytes.Equal(d.name, rec.name) || rec.flags&flagDirectory != 0 {
		return fmt.Errorf("expected another extent of %q, found %q: %w", d.name, rec.name, ErrCorrupt)
	}
	if err := d.v.addExtent(d.open, rec); err != nil {
		return err
	}
	if rec.flags&flagMultiExtent == 0 {
		d.open = nil
	}
	return nil
}

// add adds the child of a record.
func (d *dirReader) add(rec record) error {
	c := &node{mtime: shortDate(rec.date), mode: 0o444}
	if rec.flags&flagDirectory != 0 {
		c.mode = fs.ModeDir | 0o555
	}
	rel, err := d.describe(rec, c)
	if err != nil {
		return err
	}
	if rel.relocated { // RRIP 4.1.5.3: listed where its CL entry is
		return nil
	}
	if err := checkName(c.name); err != nil {
		return err
	}
	if err := d.addContent(rec, rel, c); err != nil {
		return err
	}
	dir := d.p.n
	if _, ok := dir.index[c.name]; ok {
		if d.v.naming != Plain {
			return fmt.Errorf("%q is listed twice: %w", c.name, ErrCorrupt)
		}
		// An older version of the file: the newest is listed first.
		if d.open == c {
			return fmt.Errorf("%q: older version in several extents: %w", c.name, ErrUnsupported)
		}
		return nil
	}
	dir.index[c.name] = c
	dir.children = append(dir.children, c)
	return nil
}

// describe sets the name of a child, and with Rock Ridge its attributes.
func (d *dirReader) describe(rec record, c *node) (relocation, error) {
	var rel relocation
	var err error
	switch d.v.naming {
	case RockRidge:
		if rel, err = d.v.rockRidge(rec, c); err != nil {
			return rel, fmt.Errorf("record %q: %w", rec.name, err)
		}
		if c.name == "" { // without NM
			c.name = plainName(rec.name)
		}
	case Joliet:
		c.name, err = jolietName(rec.name)
	default:
		c.name = plainName(rec.name)
	}
	return rel, err
}

// addContent adds the extents of a file, or queues a directory.
func (d *dirReader) addContent(rec record, rel relocation, c *node) error {
	full := path.Join(d.p.path, c.name)
	switch {
	case rel.child != 0:
		self, err := d.v.moved(rel.child, c)
		if err != nil {
			return fmt.Errorf("moved directory %q: %w", c.name, err)
		}
		d.sub = append(d.sub, pending{c, self, full, d.p.depth + 1})
	case c.mode.IsDir() != (rec.flags&flagDirectory != 0):
		return fmt.Errorf("%q: record and mode %v disagree about its type: %w", c.name, c.mode, ErrCorrupt)
	case c.mode.IsDir():
		d.sub = append(d.sub, pending{c, rec, full, d.p.depth + 1})
	case c.mode.IsRegular():
		if err := d.v.addExtent(c, rec); err != nil {
			return err
		}
		if rec.flags&flagMultiExtent != 0 {
			d.open, d.name = c, rec.name
		}
	}
	return nil
}

// moved reads the attributes of a directory that was moved up (RRIP 4.1.5.1). Its
// own first record has its size.
func (v *volume) moved(block int64, c *node) (record, error) {
	self, err := v.self(block * v.blockSize)
	if err != nil {
		return self, err
	}
	name := c.name
	if _, err := v.rockRidge(self, c); err != nil {
		return self, err
	}
	c.name = name
	c.mode = c.mode.Perm() | c.mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) | fs.ModeDir
	self.block = block - self.xattr
	return self, nil
}

// addExtent appends the data of a record to the file n. An extent outside the image
// makes the file unreadable, not the image.
func (v *volume) addExtent(n *node, rec record) error {
	n.size += rec.size
	if rec.unit != 0 || rec.gap != 0 {
		n.err = fmt.Errorf("interleaved file: %w", ErrUnsupported)
		return nil
	}
	if rec.size == 0 { // its block number has no meaning
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

package squashfs

import (
	"encoding/binary"
	"fmt"
)

// Exported finds an inode by its number in the export table.
func (r *Reader) Exported(number uint32) (*Inode, error) {
	if r.sb.ExportTable == noTable {
		return nil, fmt.Errorf("%w: the image has no export table", ErrUnsupported)
	}
	if number == 0 || number > r.sb.InodeCount {
		return nil, corruptf("export of inode %d of %d", number, r.sb.InodeCount)
	}
	var b [8]byte
	if err := r.lookup("export", r.sb.ExportTable, number-1, b[:]); err != nil {
		return nil, err
	}
	n, err := r.Inode(Ref(binary.LittleEndian.Uint64(b[:])))
	if err != nil {
		return nil, err
	}
	if n.Number != number {
		return nil, corruptf("export table gives inode %d for %d", n.Number, number)
	}
	return n, nil
}

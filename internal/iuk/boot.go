package iuk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// The parts of an ISO image that a system partition has. The case of their names does
// not matter: FAT32 ignores it, and plain ISO 9660 names lack it.
var (
	shippedTrees = []string{"isolinux", "EFI", "utils"}
	deleteTrees  = []string{"EFI", "isolinux", "syslinux", "tails", "utils"}
)

const maxRewrite = 16 << 20 // bytes of a file in isolinux/

// isKernel reports whether a name in live/ is that of a kernel or an initrd:
// vmlinuz, vmlinuz2, initrd.img, initrd2.img.
func isKernel(name string) bool {
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	name = strings.ToLower(name)
	if s, ok := strings.CutPrefix(name, "vmlinuz"); ok {
		return digits(s)
	}
	if s, ok := strings.CutPrefix(name, "initrd"); ok {
		s, ok = strings.CutSuffix(s, ".img")
		return ok && digits(s)
	}
	return false
}

// bootMembers returns the kit's members from the new ISO image, sorted, and the paths
// that the kit deletes. Without ISO images there are none.
func bootMembers(ctx context.Context, from, to *openInput) ([]kitMember, []string, error) {
	if to.iso == nil {
		return nil, nil, nil
	}
	b := &bootFiles{from: from, to: to}
	if err := b.addKernels(ctx); err != nil {
		return nil, nil, err
	}
	for _, tree := range shippedTrees {
		if err := b.addTree(ctx, tree); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(b.members, func(a, b kitMember) int { return strings.Compare(a.name, b.name) })
	remove, err := deletedFiles(from, to)
	if err != nil {
		return nil, nil, err
	}
	shipped := map[string]bool{}
	for _, m := range b.members {
		shipped[fold(strings.TrimPrefix(m.name, "overlay/"))] = true
	}
	remove = slices.DeleteFunc(remove, func(s string) bool { return shipped[fold(s)] })
	return b.members, remove, checkMembers(b.members)
}

// bootFiles collects members of a kit from an ISO image.
type bootFiles struct {
	from, to *openInput
	members  []kitMember
}

// addKernels adds the kernels and initrds that are new or changed.
func (b *bootFiles) addKernels(ctx context.Context) error {
	live, err := findTree(b.to.iso, "live")
	if err != nil {
		return err
	}
	entries, err := readDir(b.to.iso, live)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isKernel(e.Name()) {
			continue
		}
		file := path.Join(live, e.Name())
		st, err := fs.Stat(b.to.iso, file)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			continue
		}
		if b.from.iso != nil {
			same, err := b.isUnchanged(ctx, file)
			if err != nil {
				return err
			}
			if same {
				continue
			}
		}
		b.add("live/"+e.Name(), file, st.Size(), 0o644, false)
	}
	return nil
}

// isUnchanged reports whether the old image has the same file.
func (b *bootFiles) isUnchanged(ctx context.Context, file string) (bool, error) {
	was, err := findPath(b.from.iso, file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return sameFile(ctx, b.from.iso, was, b.to.iso, file)
}

// addTree adds a whole tree. name is its name on a system partition.
func (b *bootFiles) addTree(ctx context.Context, name string) error {
	root, err := findTree(b.to.iso, name)
	if err != nil || root == "" {
		return err
	}
	return fs.WalkDir(b.to.iso, root, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		target, rewrite := toSyslinux(name + strings.TrimPrefix(file, root))
		if e.IsDir() {
			b.members = append(b.members, kitMember{name: "overlay/" + target})
			return nil
		}
		// FAT32 has no links: the target replaces a link.
		st, err := fs.Stat(b.to.iso, file)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is not a regular file", ErrInput, file)
		}
		if rewrite && st.Size() > maxRewrite {
			return fmt.Errorf("%w: %s has %d bytes, at most %d can be rewritten", ErrInput, file, st.Size(), maxRewrite)
		}
		b.add(target, file, st.Size(), st.Mode(), rewrite)
		return nil
	})
}

// add adds a file of the image under its name on a system partition.
func (b *bootFiles) add(name, file string, size int64, mode fs.FileMode, rewrite bool) {
	m := kitMember{name: "overlay/" + name, mode: 0o644, size: size}
	if mode&0o111 != 0 {
		m.mode = 0o755
	}
	iso := b.to.iso
	m.content = func() (io.Reader, error) {
		f, err := iso.Open(file)
		if err != nil || !rewrite {
			return f, err
		}
		b, err := io.ReadAll(io.LimitReader(f, size))
		if err != nil {
			return nil, err
		}
		return bytes.NewReader(bytes.ReplaceAll(b, []byte("/isolinux/"), []byte("/syslinux/"))), nil
	}
	b.members = append(b.members, m)
}

// toSyslinux returns the name on a system partition of a file of an ISO image, and
// whether its content is rewritten, as that of files directly in isolinux/ is.
func toSyslinux(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "isolinux/")
	if name == "isolinux" {
		return "syslinux", false
	}
	if !ok {
		return name, false
	}
	if fold(rest) == fold("isolinux.cfg") {
		rest = "syslinux.cfg"
	}
	return "syslinux/" + rest, !strings.Contains(rest, "/")
}

// findTree is like findPath, for a directory, and returns "" if it does not exist.
func findTree(fsys fs.FS, name string) (string, error) {
	found, err := findPath(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return found, err
}

// readDir lists a directory; "" is an empty one.
func readDir(fsys fs.FS, name string) ([]fs.DirEntry, error) {
	if name == "" {
		return nil, nil
	}
	return fs.ReadDir(fsys, name)
}

// deletedFiles returns the paths on a system partition that exist in the old ISO image
// and not in the new one: in live/, and anywhere in deleteTrees. Of a directory it
// returns only its own path. Names that differ only in case are the same.
func deletedFiles(from, to *openInput) ([]string, error) {
	if from.iso == nil {
		return nil, nil
	}
	d := &deletions{from: from.iso, to: to.iso}
	for _, tree := range append([]string{"live"}, deleteTrees...) {
		was, err := findTree(d.from, tree)
		if err != nil {
			return nil, err
		}
		is, err := findTree(d.to, tree)
		if err != nil {
			return nil, err
		}
		d.deep, d.shipped = tree != "live", slices.Contains(shippedTrees, tree)
		if err := d.compare(was, is, tree); err != nil {
			return nil, err
		}
	}
	slices.Sort(d.paths)
	return slices.Compact(d.paths), nil
}

// deletions collects paths that exist in one image only.
type deletions struct {
	from, to fs.FS
	paths    []string // on the system partition
	deep     bool     // compare the tree's directories, too
	shipped  bool     // kits contain the whole tree
}

// compare compares a directory of both images. name is its name on a system partition.
func (d *deletions) compare(was, is, name string) error {
	old, err := readDir(d.from, was)
	if err != nil {
		return err
	}
	now, err := readDir(d.to, is)
	if err != nil {
		return err
	}
	have := map[string]fs.DirEntry{}
	for _, e := range now {
		have[fold(e.Name())] = e
	}
	for _, e := range old {
		child := path.Join(name, e.Name())
		n := have[fold(e.Name())]
		if n == nil {
			// A path that is impossible on FAT32 does not exist there.
			if target, _ := toSyslinux(child); checkPath(target) == nil && fold(target) != fold(baseImage) {
				d.paths = append(d.paths, target)
			}
			continue
		}
		if !d.deep {
			continue
		}
		oldName, newName := path.Join(was, e.Name()), path.Join(is, n.Name())
		if d.shipped && isDir(d.from, oldName) != isDir(d.to, newName) {
			return fmt.Errorf("%w: %s is a directory in one image and a file in the other, which no kit can replace", ErrInput, child)
		}
		if e.IsDir() && n.IsDir() { // not links, which could form loops
			if err := d.compare(oldName, newName, child); err != nil {
				return err
			}
		}
	}
	return nil
}

// isDir reports whether a name leads to a directory.
func isDir(fsys fs.FS, name string) bool {
	st, err := fs.Stat(fsys, name)
	return err == nil && st.IsDir()
}

// sameFile reports whether a file of one image equals a file of another.
func sameFile(ctx context.Context, a fs.FS, nameA string, b fs.FS, nameB string) (bool, error) {
	fa, err := a.Open(nameA)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := b.Open(nameB)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	sa, err := fa.Stat()
	if err != nil {
		return false, err
	}
	sb, err := fb.Stat()
	if err != nil {
		return false, err
	}
	if sa.Size() != sb.Size() || !sa.Mode().IsRegular() {
		return false, nil
	}
	return sameContent(ctx, fa, fb)
}

// sameContent reports whether two readers return the same bytes.
func sameContent(ctx context.Context, a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := io.ReadFull(a, x)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		m, err2 := io.ReadFull(b, y)
		if err2 != nil && err2 != io.EOF && err2 != io.ErrUnexpectedEOF {
			return false, err2
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < len(x) {
			return true, nil
		}
	}
}

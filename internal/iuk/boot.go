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

// The parts of an ISO image that a system partition has.
var (
	wholeTrees  = []string{"EFI", "utils"}
	deleteTrees = []string{"EFI", "isolinux", "syslinux", "tails", "utils"}
)

// isKernel tells a kernel or initrd by its name in live/: vmlinuz, vmlinuz2,
// initrd.img, initrd2.img.
func isKernel(name string) bool {
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	if s, ok := strings.CutPrefix(name, "vmlinuz"); ok {
		return digits(s)
	}
	if s, ok := strings.CutPrefix(name, "initrd"); ok {
		s, ok = strings.CutSuffix(s, ".img")
		return ok && digits(s)
	}
	return false
}

// bootMembers gives what of the new ISO image goes into the kit beside the
// difference, and what the kit deletes. Without ISO images that is nothing.
func bootMembers(ctx context.Context, from, to *openInput) ([]kitMember, []string, error) {
	if to.iso == nil {
		return nil, nil, nil
	}
	var members []kitMember
	add := func(name, file string, size int64, mode fs.FileMode, rewrite bool) error {
		m := kitMember{name: "overlay/" + name, mode: 0o644, size: size}
		if mode&0o111 != 0 {
			m.mode = 0o755
		}
		if err := checkPath(name); err != nil {
			return err
		}
		m.content = func() (io.Reader, error) {
			f, err := to.iso.Open(file)
			if err != nil {
				return nil, err
			}
			if !rewrite {
				return f, nil
			}
			b, err := io.ReadAll(io.LimitReader(f, size))
			if err != nil {
				return nil, err
			}
			return bytes.NewReader(bytes.ReplaceAll(b, []byte("/isolinux/"), []byte("/syslinux/"))), nil
		}
		members = append(members, m)
		return nil
	}
	entries, err := readDir(to.iso, "live")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !isKernel(e.Name()) {
			continue
		}
		name := "live/" + e.Name()
		st, err := fs.Stat(to.iso, name)
		if err != nil {
			return nil, nil, err
		}
		if !st.Mode().IsRegular() {
			continue
		}
		if from.iso != nil {
			same, err := sameFile(ctx, from.iso, to.iso, name)
			if err != nil {
				return nil, nil, err
			}
			if same {
				continue
			}
		}
		if err := add(name, name, st.Size(), 0o644, false); err != nil {
			return nil, nil, err
		}
	}
	for _, tree := range append([]string{"isolinux"}, wholeTrees...) {
		if _, err := fs.Stat(to.iso, tree); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err := fs.WalkDir(to.iso, tree, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			target, rewrite := toSyslinux(name)
			if e.IsDir() {
				if err := checkPath(target); err != nil {
					return err
				}
				members = append(members, kitMember{name: "overlay/" + target})
				return nil
			}
			// FAT32 has no links: a link becomes what it leads to.
			st, err := fs.Stat(to.iso, name)
			if err != nil {
				return err
			}
			if !st.Mode().IsRegular() {
				return fmt.Errorf("%w: %s is no regular file", ErrInput, name)
			}
			if rewrite && st.Size() > maxRewrite {
				return fmt.Errorf("%w: %s has %d bytes, at most %d can be rewritten", ErrInput, name, st.Size(), maxRewrite)
			}
			return add(target, name, st.Size(), st.Mode(), rewrite)
		})
		if err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(members, func(a, b kitMember) int { return strings.Compare(a.name, b.name) })
	remove, err := deletedFiles(from, to)
	if err != nil {
		return nil, nil, err
	}
	shipped := map[string]bool{}
	for _, m := range members {
		shipped[fold(strings.TrimPrefix(m.name, "overlay/"))] = true
	}
	remove = slices.DeleteFunc(remove, func(s string) bool { return shipped[fold(s)] })
	return members, remove, nil
}

const maxRewrite = 16 << 20 // bytes of a file of isolinux/

// toSyslinux gives the name on a system partition of a file of an ISO image,
// and whether its content is rewritten: what is directly in isolinux/.
func toSyslinux(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "isolinux/")
	if name == "isolinux" {
		return "syslinux", false
	}
	if !ok {
		return name, false
	}
	if rest == "isolinux.cfg" {
		rest = "syslinux.cfg"
	}
	return "syslinux/" + rest, !strings.Contains(rest, "/")
}

func readDir(fsys fs.FS, name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// deletedFiles gives the paths on a system partition that the old ISO image has
// and the new one has not: in live/, and anywhere in deleteTrees, a directory as
// one. Names that differ in case only are one on FAT32, and stay.
func deletedFiles(from, to *openInput) ([]string, error) {
	if from.iso == nil {
		return nil, nil
	}
	var out []string
	var visit func(dir string, deep bool) error
	visit = func(dir string, deep bool) error {
		old, err := readDir(from.iso, dir)
		if err != nil {
			return err
		}
		now, err := readDir(to.iso, dir)
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, e := range now {
			have[fold(e.Name())] = true
		}
		for _, e := range old {
			name := path.Join(dir, e.Name())
			switch {
			case !have[fold(e.Name())]:
				target, _ := toSyslinux(name)
				// What cannot be on FAT32 is not there.
				if checkPath(target) == nil && fold(target) != fold(baseImage) {
					out = append(out, target)
				}
			case deep && e.IsDir():
				if err := visit(name, true); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := visit("live", false); err != nil {
		return nil, err
	}
	for _, d := range deleteTrees {
		if err := visit(d, true); err != nil {
			return nil, err
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// sameFile compares a file of both images; one that is in one only differs.
func sameFile(ctx context.Context, a, b fs.FS, name string) (bool, error) {
	fa, err := a.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := b.Open(name)
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

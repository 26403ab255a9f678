// Package squashfstest has helpers for tests of SquashFS images: it packs them,
// mounts them with the kernel, and describes the trees in images and on disk in a
// comparable form.
package squashfstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs"
)

// A File describes one path.
type File struct {
	Type    string
	Mode    string // octal permission bits
	Owner   string // uid:gid
	MTime   int64
	Size    int64  // of files and symbolic links
	Content string // SHA-256
	Target  string
	Rdev    string
	Nlink   int    // 0 for directories
	Group   string // the first path, by bytes, of a hard-link group
	Xattrs  string // name=hex, sorted
}

// A Tree is a File for each path from the root, which is ".".
type Tree map[string]File

// Run runs a program and returns its output. The test fails if the program does.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	for try := 1; ; try++ {
		cmd := exec.Command(needs.Program(t, name), args...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return string(out)
		}
		// xorriso sometimes crashes, with any input.
		if try == 3 || !bytes.Contains(out, []byte("UNIX-SIGNAL:  SIGSEGV")) {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
}

// Mount mounts an image with the kernel, until the end of the test.
func Mount(t testing.TB, image string) string {
	t.Helper()
	needs.Root(t, "to mount")
	needs.Programs(t, "mount", "umount")
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "squashfs", "-o", "loop,ro", image, dir).CombinedOutput(); err != nil {
		if _, statErr := os.Stat("/dev/loop-control"); statErr != nil {
			needs.Missing(t, "no loop devices: %v", statErr)
		}
		t.Fatalf("mount %s: %v\n%s", image, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", dir, err, out)
		}
	})
	return dir
}

// Overlay mounts upper over lower, both read-only directories.
func Overlay(t testing.TB, upper, lower string) string {
	t.Helper()
	dir := t.TempDir()
	Run(t, "mount", "-t", "overlay", "-o", "ro,lowerdir="+upper+":"+lower, "overlay", dir)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", dir, err, out)
		}
	})
	return dir
}

// Open opens an image file.
func Open(t testing.TB, image string) *squashfs.Reader {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := squashfs.Open(f, st.Size(), squashfs.Limits{})
	if err != nil {
		t.Fatalf("open %s: %v", image, err)
	}
	return r
}

// Check reads every directory, inode, xattr and fragment of an image and, with
// content, every byte of every file, and returns the first error.
func Check(ctx context.Context, r *squashfs.Reader, content bool) error {
	return r.Walk(ctx, func(name string, n *squashfs.Inode) error {
		if _, err := r.Xattrs(n); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if n.Type != squashfs.TypeFile {
			return nil
		}
		f, err := r.File(n)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if t := f.Tail(); t.Size > 0 {
			if _, err := r.Fragment(t.Fragment); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if !content {
			return nil
		}
		data := make([]byte, squashfs.MaxBlockSize)
		for i := range f.Blocks() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if f.Block(i).OnDisk() == 0 {
				continue // a hole, perhaps of terabytes
			}
			if _, err := f.DecodeBlock(i, data); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if t := f.Tail(); t.Size > 0 {
			if _, err := f.ReadAt(data[:t.Size], n.Size-int64(t.Size)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

// Image describes the contents of an image.
func Image(t testing.TB, r *squashfs.Reader) Tree {
	t.Helper()
	tree := make(Tree)
	groups := make(map[uint32]string)
	counts := make(map[uint32]int)
	numbers := make(map[string]uint32)
	err := r.Walk(t.Context(), func(name string, n *squashfs.Inode) error {
		name = "." + strings.TrimSuffix(name, "/")
		f := File{
			Type:   n.Type.String(),
			Mode:   fmt.Sprintf("%04o", n.Mode),
			Owner:  fmt.Sprintf("%d:%d", n.UID, n.GID),
			MTime:  int64(n.MTime),
			Target: n.Target,
		}
		xattrs, err := r.Xattrs(n)
		if err != nil {
			return err
		}
		f.Xattrs = joinXattrs(xattrs)
		switch n.Type {
		case squashfs.TypeFile:
			file, err := r.File(n)
			if err != nil {
				return err
			}
			h := sha256.New()
			if _, err := io.Copy(h, file); err != nil {
				return err
			}
			f.Content, f.Size = hex.EncodeToString(h.Sum(nil)), n.Size
		case squashfs.TypeSymlink:
			f.Size = n.Size
		case squashfs.TypeBlock, squashfs.TypeChar:
			major, minor := squashfs.SplitDev(n.Rdev)
			f.Rdev = fmt.Sprintf("%d:%d", major, minor)
		}
		if n.Type != squashfs.TypeDir {
			f.Nlink = int(n.Nlink)
			if old, ok := groups[n.Number]; !ok || name < old {
				groups[n.Number] = name
			}
			counts[n.Number]++
			numbers[name] = n.Number
		}
		tree[name] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, number := range numbers {
		f := tree[name]
		if f.Nlink > 1 {
			f.Group = groups[number]
		}
		if f.Nlink != counts[number] {
			t.Errorf("%s: stored link count %d, %d names", name, f.Nlink, counts[number])
		}
		tree[name] = f
	}
	return tree
}

// Dir describes a directory on disk, as the kernel shows it, without the xattrs
// whose name begins with one of drop. Long because it has a case for each type of
// file.
func Dir(t testing.TB, dir string, drop ...string) Tree {
	t.Helper()
	tree := make(Tree)
	groups := make(map[uint64]string)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		f := File{
			Mode:  fmt.Sprintf("%04o", st.Mode&0o7777),
			Owner: fmt.Sprintf("%d:%d", st.Uid, st.Gid),
			MTime: st.Mtim.Sec,
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if rel != "." {
			rel = "./" + rel
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			f.Type = squashfs.TypeDir.String()
		case syscall.S_IFREG:
			f.Type = squashfs.TypeFile.String()
			f.Size = st.Size
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			h := sha256.New()
			_, err = io.Copy(h, file)
			file.Close()
			if err != nil {
				return err
			}
			f.Content = hex.EncodeToString(h.Sum(nil))
		case syscall.S_IFLNK:
			f.Type = squashfs.TypeSymlink.String()
			if f.Target, err = os.Readlink(name); err != nil {
				return err
			}
			f.Size = st.Size
		case syscall.S_IFBLK, syscall.S_IFCHR:
			f.Type = squashfs.TypeBlock.String()
			if st.Mode&syscall.S_IFMT == syscall.S_IFCHR {
				f.Type = squashfs.TypeChar.String()
			}
			f.Rdev = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case syscall.S_IFIFO:
			f.Type = squashfs.TypeFifo.String()
		case syscall.S_IFSOCK:
			f.Type = squashfs.TypeSocket.String()
		}
		if f.Xattrs, err = dirXattrs(name, drop); err != nil {
			return fmt.Errorf("xattrs of %s: %w", name, err)
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			f.Nlink = int(st.Nlink)
			if f.Nlink > 1 {
				if _, ok := groups[st.Ino]; !ok {
					groups[st.Ino] = rel
				}
				f.Group = groups[st.Ino]
			}
		}
		tree[rel] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// WalkDir's order is not that of whole paths' bytes.
	first := make(map[string]string)
	for name, f := range tree {
		if f.Group != "" && (first[f.Group] == "" || name < first[f.Group]) {
			first[f.Group] = name
		}
	}
	for name, f := range tree {
		if f.Group != "" {
			f.Group = first[f.Group]
			tree[name] = f
		}
	}
	return tree
}

func dirXattrs(name string, drop []string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if err == unix.ENOTSUP {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var list []squashfs.Xattr
next:
	for _, key := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if key == "" || strings.HasPrefix(key, "system.") {
			continue
		}
		for _, d := range drop {
			if strings.HasPrefix(key, d) {
				continue next
			}
		}
		value := make([]byte, 64<<10)
		m, err := unix.Lgetxattr(name, key, value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		list = append(list, squashfs.Xattr{Name: key, Value: value[:m]})
	}
	return joinXattrs(list), nil
}

func joinXattrs(list []squashfs.Xattr) string {
	var parts []string
	for _, x := range list {
		v := hex.EncodeToString(x.Value)
		if len(v) > 128 {
			sum := sha256.Sum256(x.Value)
			v = "sha256:" + hex.EncodeToString(sum[:])
		}
		parts = append(parts, x.Name+"="+v)
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}

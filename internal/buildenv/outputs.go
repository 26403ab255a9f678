package buildenv

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kinds of outputs.
const (
	File      = "file"
	Directory = "directory"
	Link      = "link"
)

// An Output is one file that a command left, by its path below the directory.
type Output struct {
	Path       string
	Kind       string
	Executable bool   // of a file: by its owner
	Size       int64  // of a file
	SHA256     string // of a file
	Target     string // of a link
}

// Outputs lists a directory, by path. Anything except files, directories and links is
// an error, in which the directory is called shown.
func Outputs(dir, shown string) ([]Output, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []Output
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		o := Output{Path: p}
		switch d.Type() {
		case 0:
			o.Kind = File
			if err := o.digest(root); err != nil {
				return err
			}
		case fs.ModeDir:
			o.Kind = Directory
		case fs.ModeSymlink:
			o.Kind = Link
			if o.Target, err = root.Readlink(p); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s/%s: %w: found a %s, expected files, directories and symbolic links", shown, p, ErrOutput, special(d.Type()))
		}
		out = append(out, o)
		return nil
	})
	slices.SortFunc(out, func(a, b Output) int { return cmp.Compare(a.Path, b.Path) })
	return out, err
}

func special(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// digest sets the size and digest of a file's content.
func (o *Output) digest(root *os.Root) error {
	f, err := root.Open(o.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h := sha256.New()
	if o.Size, err = io.Copy(h, f); err != nil {
		return err
	}
	o.Executable = st.Mode()&0o100 != 0
	o.SHA256 = hex.EncodeToString(h.Sum(nil))
	return nil
}

// text describes an output in a comparison.
func (o *Output) text() string {
	switch {
	case o.Kind == Link:
		return "link to " + o.Target
	case o.Kind == Directory:
		return Directory
	case o.Executable:
		return "executable sha256:" + o.SHA256
	}
	return "sha256:" + o.SHA256
}

// A Difference is an output that differs between two runs; "" means that a run did not
// make it.
type Difference struct{ Path, First, Second string }

// Compare returns the differences between the outputs of two runs, by path. It ignores
// times, owners and permissions other than to execute.
func Compare(a, b []Output) []Difference {
	all := map[string]*Difference{}
	at := func(p string) *Difference {
		if all[p] == nil {
			all[p] = &Difference{Path: p}
		}
		return all[p]
	}
	for i := range a {
		at(a[i].Path).First = a[i].text()
	}
	for i := range b {
		at(b[i].Path).Second = b[i].text()
	}
	out := []Difference{}
	for _, d := range all {
		if d.First != d.Second {
			out = append(out, *d)
		}
	}
	slices.SortFunc(out, func(a, b Difference) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// Listing returns a text that names every output and its content, and its SHA-256.
func Listing(list []Output) (text, digest string) {
	var b strings.Builder
	for i := range list {
		fmt.Fprintf(&b, "%s  %s\n", list[i].text(), list[i].Path)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return b.String(), hex.EncodeToString(sum[:])
}

// Move moves everything in one directory to another on the same file system, and
// returns the paths of what it moved, also when it fails. It replaces nothing.
func Move(from, to string) ([]string, error) {
	entries, err := os.ReadDir(from)
	if err != nil {
		return nil, err
	}
	var moved []string
	for _, e := range entries {
		p := filepath.Join(to, e.Name())
		if _, err := os.Lstat(p); err == nil {
			return moved, fmt.Errorf("%s: %w: expected an empty directory, found %s in it", to, ErrOutput, e.Name())
		}
		if err := os.Rename(filepath.Join(from, e.Name()), p); err != nil {
			return moved, err
		}
		moved = append(moved, p)
	}
	return moved, os.Remove(from)
}

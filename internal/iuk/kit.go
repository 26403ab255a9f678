package iuk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/squashfs"
)

// kitFile is a file of the kit's overlay.
type kitFile struct {
	path string // on the target
	size int64
}

// openedKit is a kit whose structure was checked.
type openedKit struct {
	fs     fs.FS
	id     cas.Digest  // of everything but the content of the overlay's files
	files  []kitFile   // sorted by path
	dirs   []string    // parents first
	diffs  []string    // names of the SquashFS diffs in live/, sorted
	delete []string    // sorted
	prov   *Provenance // nil if the kit has none
	module []byte      // the new content of Tails.module
}

func (k *openedKit) bootLoader() []string {
	for _, f := range k.files {
		if strings.EqualFold(f.path, "utils/linux/syslinux") {
			return []string{
				"utils/linux/syslinux -d syslinux PARTITION",
				"dd if=utils/mbr/mbr.bin of=DISK bs=440 count=1 conv=notrunc",
			}
		}
	}
	return nil
}

// readMember reads a small file of the kit.
func readMember(kit fs.FS, name string, limit int64) ([]byte, error) {
	f, err := kit.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes: %w", name, limit, ErrKit)
	}
	return b, err
}

// readKit checks a kit's format, control file and overlay.
func readKit(kit fs.FS) (*openedKit, error) {
	k := &openedKit{fs: kit}
	format, err := readMember(kit, "FORMAT", 64)
	if err != nil {
		return nil, fmt.Errorf("kit's format version cannot be determined: %w: %w", err, ErrKit)
	}
	if string(format) != "2" {
		return nil, fmt.Errorf("unsupported format: expected 2, found %q: %w", format, ErrKit)
	}
	control, err := readMember(kit, "control.yml", maxControl)
	if err != nil {
		return nil, fmt.Errorf("read control.yml: %w: %w", err, ErrKit)
	}
	if k.delete, err = parseDeleteFiles(control); err != nil {
		return nil, fmt.Errorf("control.yml: %w: %w", err, ErrKit)
	}
	provenance, err := readMember(kit, "provenance.json", maxControl)
	switch {
	case err == nil:
		if k.prov, err = parseProvenance(provenance); err != nil {
			return nil, fmt.Errorf("provenance.json: %w: %w", err, ErrKit)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read provenance.json: %w: %w", err, ErrKit)
	}
	if err := k.readOverlay(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrKit)
	}
	if err := k.checkDelete(); err != nil {
		return nil, fmt.Errorf("control.yml: %w: %w", err, ErrKit)
	}
	k.module = []byte(path.Base(baseImage) + "\n")
	for _, d := range k.diffs {
		k.module = append(k.module, d+"\n"...)
	}

	h := sha256.New()
	for _, b := range [][]byte{control, provenance} {
		fmt.Fprintf(h, "%d\n", len(b))
		h.Write(b)
	}
	for _, d := range k.dirs {
		fmt.Fprintf(h, "dir %q\n", d)
	}
	for _, f := range k.files {
		fmt.Fprintf(h, "file %d %q\n", f.size, f.path)
	}
	h.Sum(k.id[:0])
	return k, nil
}

// parseDeleteFiles parses control.yml: a mapping with the key delete_files, or
// nothing. It ignores other keys.
func parseDeleteFiles(data []byte) ([]string, error) {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc); err != nil {
		if err == io.EOF {
			return nil, nil
		}
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	m := doc.Content[0]
	if m.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: expected a mapping", m.Line)
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value != "delete_files" {
			continue
		}
		if m.Content[i+1].Tag == "!!null" {
			return nil, nil
		}
		return list(m.Content[i+1], "delete_files", maxDelete, func(n *yaml.Node) (s string, err error) {
			return s, into(&s)(n)
		})
	}
	return nil, nil
}

// readOverlay lists the overlay, which may contain directories and regular files.
func (k *openedKit) readOverlay() error {
	names := overlayNames{}
	if _, err := fs.Stat(k.fs, "overlay"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fs.WalkDir(k.fs, "overlay", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "overlay" {
			if !e.IsDir() {
				return errors.New("overlay is not a directory")
			}
			return nil
		}
		p := strings.TrimPrefix(name, "overlay/")
		if err := names.add(p); err != nil {
			return fmt.Errorf("overlay: %w", err)
		}
		switch {
		case e.IsDir():
			k.dirs = append(k.dirs, p)
		case e.Type().IsRegular():
			fi, err := e.Info()
			if err != nil {
				return err
			}
			if fi.Size() < 0 {
				return fmt.Errorf("overlay: %q: size %d", p, fi.Size())
			}
			k.files = append(k.files, kitFile{p, fi.Size()})
			if isDiff(p) {
				k.diffs = append(k.diffs, path.Base(p))
			}
		default:
			return fmt.Errorf("overlay: %q: type %v is not possible on FAT32", p, e.Type())
		}
		return nil
	})
}

// isDiff reports whether p is a SquashFS image directly in live/ on the target.
func isDiff(p string) bool {
	dir, name := path.Split(fold(p))
	return dir == "LIVE/" && strings.HasSuffix(name, ".SQUASHFS")
}

// checkDelete checks the paths to be deleted. It drops those that differ only in case
// from a path in the overlay: on FAT32 they are the new file.
func (k *openedKit) checkDelete() error {
	exact, folded := make(map[string]bool), make(map[string]bool)
	add := func(p string) {
		for ; p != "."; p = path.Dir(p) {
			exact[p] = true
			folded[fold(p)] = true
		}
	}
	for _, f := range k.files {
		add(f.path)
	}
	for _, d := range k.dirs {
		add(d)
	}
	var keep []string
	for _, p := range k.delete {
		p = strings.TrimSuffix(p, "/")
		if err := checkPath(p); err != nil {
			return fmt.Errorf("delete_files: %w", err)
		}
		for _, protected := range []string{baseImage, moduleFile} {
			if f := fold(protected); f == fold(p) || strings.HasPrefix(f, fold(p)+"/") {
				return fmt.Errorf("delete_files: a kit must not delete %q", p)
			}
		}
		if exact[p] {
			return fmt.Errorf("delete_files: %q is also in the overlay", p)
		}
		if !folded[fold(p)] {
			keep = append(keep, p)
		}
	}
	slices.Sort(keep)
	k.delete = slices.Compact(keep)
	return nil
}

// kitReader is a kit in a SquashFS image.
type kitReader struct {
	*openedKit
	name string // for messages
	r    *squashfs.Reader
	// diffReaders are the readers of diffs.
	diffReaders []*squashfs.Reader
}

// openKitFile opens a kit and checks its format, except for the content of the
// overlay's files. It also checks that the container and its differences have no unused
// bytes.
func openKitFile(ctx context.Context, in Input) (*kitReader, error) {
	k, err := readKitFile(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("open kit %s: %w", in.Name, err)
	}
	return k, nil
}

func readKitFile(ctx context.Context, in Input) (*kitReader, error) {
	r, err := squashfs.Open(in.R, in.Size, squashfs.Limits{MaxEntries: maxKitFiles, MaxDepth: maxKitDepth})
	if err != nil {
		return nil, badImage(err)
	}
	if err := r.CheckLayout(ctx); err != nil {
		return nil, badImage(err)
	}
	k := &kitReader{name: in.Name, r: r}
	if k.openedKit, err = readKit(r.FS()); err != nil {
		return nil, err
	}
	for _, d := range k.diffs {
		r, err := k.openDiff(ctx, "overlay/live/"+d)
		if err != nil {
			return nil, fmt.Errorf("overlay/live/%s: %w", d, err)
		}
		k.diffReaders = append(k.diffReaders, r)
	}
	return k, nil
}

// badImage adds ErrKit to an error about a bad image, but not to a read error.
func badImage(err error) error {
	for _, is := range []error{squashfs.ErrCorrupt, squashfs.ErrNotSquashfs, squashfs.ErrUnsupported, squashfs.ErrLimit} {
		if errors.Is(err, is) {
			return fmt.Errorf("%w: %w", ErrKit, err)
		}
	}
	return err
}

func (k *kitReader) openDiff(ctx context.Context, name string) (*squashfs.Reader, error) {
	f, err := k.fs.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKit, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at, ok := f.(io.ReaderAt)
	if !ok || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", ErrKit)
	}
	if p := k.prov; p != nil && p.Diff.Path == name && p.Diff.Size != st.Size() {
		return nil, fmt.Errorf("%w: provenance.json names a size of %d bytes, found %d", ErrKit, p.Diff.Size, st.Size())
	}
	r, err := squashfs.Open(at, st.Size(), squashfs.Limits{CacheBytes: 1, MetaCacheBytes: 512 << 10})
	if err != nil {
		return nil, badImage(err)
	}
	if err := r.CheckLayout(ctx); err != nil {
		return nil, badImage(err)
	}
	return r, nil
}

// diff returns the kit's only difference.
func (k *kitReader) diff() (*squashfs.Reader, error) {
	if len(k.diffs) != 1 {
		return nil, fmt.Errorf("%w: %d SquashFS files in overlay/live, expected 1", ErrKit, len(k.diffs))
	}
	if name := "overlay/live/" + k.diffs[0]; k.prov != nil && k.prov.Diff.Path != name {
		return nil, fmt.Errorf("%w: difference at %s, provenance.json names %q", ErrKit, name, k.prov.Diff.Path)
	}
	return k.diffReaders[0], nil
}

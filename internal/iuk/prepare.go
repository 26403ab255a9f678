package iuk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/regfile"
)

// prepare writes everything new beside the old, flushes and reads it back, and
// returns the journal. It changes nothing outside the state directory.
func (d *disk) prepare(ctx context.Context, k *openedKit, o ApplyOptions) (*journal, error) {
	fat, cluster, free, err := d.space(o)
	if err != nil {
		return nil, err
	}
	for _, p := range []string{baseImage, moduleFile} {
		if st, err := d.root.Stat(p); err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrTarget)
		} else if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file: %w", p, ErrTarget)
		}
	}
	if k.prov != nil {
		got, _, err := d.sum(ctx, baseImage)
		if err != nil {
			return nil, err
		}
		if want := k.prov.Base.SHA256; got != want {
			return nil, fmt.Errorf("%s: expected SHA-256 %s, found %s: %w", baseImage, want, got, ErrWrongBase)
		}
	}

	// What changes?
	j := &journal{Kit: k.id}
	for _, p := range k.dirs {
		st, err := d.root.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			j.Dirs = append(j.Dirs, p)
		case err != nil:
			return nil, err
		case !st.IsDir():
			return nil, fmt.Errorf("%s: a directory in the kit, a file on the target: %w", p, ErrTarget)
		}
	}
	need := int64(spaceReserve)
	charge := func(size int64) { need += (size + cluster - 1) / cluster * cluster }
	for _, f := range k.files {
		if fat && f.size > maxFATFile {
			return nil, fmt.Errorf("%s: %d bytes are more than FAT32 can hold: %w", f.path, f.size, ErrTarget)
		}
		st, err := d.root.Stat(f.path)
		pf := planned{Path: f.path, Size: f.size}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case !st.Mode().IsRegular():
			return nil, fmt.Errorf("%s: a file in the kit, not one on the target: %w", f.path, ErrTarget)
		default:
			pf.Old = &version{Size: st.Size()}
			if st.Size() == f.size {
				same, err := d.equal(ctx, k, f)
				if err != nil {
					return nil, err
				}
				if same {
					j.Unchanged++
					continue
				}
			}
			charge(pf.Old.Size)
		}
		charge(f.size)
		j.Files = append(j.Files, pf)
	}
	module, err := d.readSmall(moduleFile, maxModule)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(module, k.module) {
		j.Files = append(j.Files, planned{Path: moduleFile, Size: int64(len(k.module)), Old: &version{Size: int64(len(module))}})
		charge(int64(len(module)))
		charge(int64(len(k.module)))
	}
	slices.SortStableFunc(j.Files, func(a, b planned) int {
		if c := rank(a.Path) - rank(b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	if j.Gone, err = d.gone(k); err != nil {
		return nil, err
	}
	if need > free {
		return nil, fmt.Errorf("need %d bytes, %d are free: %w", need, free, ErrNoSpace)
	}

	// Write it all.
	for _, dir := range []string{stateDir, stagedDir, backupDir, trashDir} {
		if err := d.mkdir(dir); err != nil {
			return nil, err
		}
	}
	for i := range j.Files {
		f := &j.Files[i]
		if f.SHA256, err = d.stage(ctx, k, i, f); err != nil {
			return nil, err
		}
		if f.Old == nil {
			continue
		}
		// A copy, not a rename: the old file stays the one that boots until the
		// new one takes its name, and on FAT a power cut during a rename may
		// lose both names.
		src, err := regfile.OpenIn(d.root, f.Path)
		if err != nil {
			return nil, err
		}
		f.Old.SHA256, err = d.write(ctx, slot(backupDir, i), src, f.Old.Size)
		src.Close()
		if err != nil {
			return nil, fmt.Errorf("back up %s: %w", f.Path, err)
		}
	}
	if err := d.sync(); err != nil {
		return nil, err
	}
	if !o.SkipVerify {
		for i, f := range j.Files {
			if err := d.readBack(ctx, slot(stagedDir, i), f.Size, f.SHA256); err != nil {
				return nil, err
			}
			if f.Old != nil {
				if err := d.readBack(ctx, slot(backupDir, i), f.Old.Size, f.Old.SHA256); err != nil {
					return nil, err
				}
			}
		}
	}
	return j, nil
}

// stage writes the new content of file i beside the old.
func (d *disk) stage(ctx context.Context, k *openedKit, i int, f *planned) (cas.Digest, error) {
	var (
		r   io.Reader = bytes.NewReader(k.module)
		err error
	)
	if f.Path != moduleFile {
		var src fs.File
		if src, err = k.fs.Open("overlay/" + f.Path); err != nil {
			return cas.Digest{}, err
		}
		defer src.Close()
		r = src
	}
	sum, err := d.write(ctx, slot(stagedDir, i), r, f.Size)
	if err != nil {
		return cas.Digest{}, fmt.Errorf("write new %s: %w", f.Path, err)
	}
	return sum, nil
}

// equal compares a file of the kit with the one of its name and size on the target.
func (d *disk) equal(ctx context.Context, k *openedKit, f kitFile) (bool, error) {
	a, err := k.fs.Open("overlay/" + f.path)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := regfile.OpenIn(d.root, f.path)
	if err != nil {
		return false, err
	}
	defer b.Close()
	x, y := make([]byte, 128<<10), make([]byte, 128<<10)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := io.ReadFull(a, x)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, fmt.Errorf("read %s of kit: %w", f.path, err)
		}
		m, err2 := io.ReadFull(b, y)
		if err2 != nil && err2 != io.EOF && err2 != io.ErrUnexpectedEOF {
			return false, fmt.Errorf("read %s on target: %w", f.path, err2)
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if err != nil {
			return true, nil
		}
	}
}

// gone lists what is to be deleted and exists: what the kit says, and each diff
// in live/ that is neither the base nor the kit's. Nothing listed is inside
// another.
func (d *disk) gone(k *openedKit) ([]string, error) {
	var all []string
	for _, p := range k.delete {
		if _, err := d.root.Lstat(p); err == nil {
			all = append(all, p)
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return nil, err
		}
	}
	keep := map[string]bool{fold(baseImage): true}
	for _, n := range k.diffs {
		keep[fold("live/"+n)] = true
	}
	entries, err := fs.ReadDir(d.root.FS(), "live")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if p := "live/" + e.Name(); isDiff(p) && !e.IsDir() && !keep[fold(p)] {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(fold(a)+"/", fold(b)+"/") })
	var out []string
	for _, p := range all {
		if k := len(out) - 1; k >= 0 && strings.HasPrefix(fold(p)+"/", fold(out[k])+"/") {
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

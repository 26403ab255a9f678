package iuk

import (
	"bytes"
	"cmp"
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

// prepare writes all new content beside the old, flushes it and reads it back, and
// returns the journal. It changes nothing outside the state directory.
func (d *disk) prepare(ctx context.Context, k *openedKit, o ApplyOptions) (*journal, error) {
	fat, cluster, free, err := d.space(o)
	if err != nil {
		return nil, err
	}
	if err := d.checkTarget(ctx, k); err != nil {
		return nil, err
	}
	p := &planner{d: d, k: k, fat: fat, cluster: cluster, need: spaceReserve}
	j, err := p.plan(ctx)
	if err != nil {
		return nil, err
	}
	if p.need > free {
		return nil, fmt.Errorf("need %d bytes, %d are free: %w", p.need, free, ErrNoSpace)
	}
	if err := d.writeContents(ctx, k, j); err != nil {
		return nil, err
	}
	if err := d.sync(); err != nil {
		return nil, err
	}
	return j, d.readContentsBack(ctx, j)
}

// checkTarget checks that the target is a system partition with the kit's base.
func (d *disk) checkTarget(ctx context.Context, k *openedKit) error {
	for _, p := range []string{baseImage, moduleFile} {
		if st, err := d.root.Stat(p); err != nil {
			return fmt.Errorf("%w: %w", err, ErrTarget)
		} else if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file: %w", p, ErrTarget)
		}
	}
	if k.prov == nil {
		return nil
	}
	got, _, err := d.sum(ctx, baseImage)
	if err != nil {
		return err
	}
	if want := k.prov.Base.SHA256; got != want {
		return fmt.Errorf("%s: expected SHA-256 %s, found %s: %w", baseImage, want, got, ErrWrongBase)
	}
	return nil
}

// planner determines the changes of a kit on a target.
type planner struct {
	d       *disk
	k       *openedKit
	fat     bool
	cluster int64 // bytes
	need    int64 // bytes of free space
}

// charge adds a file to the space needed.
func (p *planner) charge(size int64) { p.need += (size + p.cluster - 1) / p.cluster * p.cluster }

func (p *planner) plan(ctx context.Context) (*journal, error) {
	j := &journal{Kit: p.k.id}
	var err error
	if j.Dirs, err = p.dirs(); err != nil {
		return nil, err
	}
	for _, f := range p.k.files {
		pf, err := p.file(ctx, f)
		if err != nil {
			return nil, err
		}
		if pf == nil {
			j.Unchanged++
		} else {
			j.Files = append(j.Files, *pf)
		}
	}
	module, err := p.d.readSmall(moduleFile, maxModule)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(module, p.k.module) {
		j.Files = append(j.Files, planned{Path: moduleFile, Size: int64(len(p.k.module)), Old: &version{Size: int64(len(module))}})
		p.charge(int64(len(module)))
		p.charge(int64(len(p.k.module)))
	}
	slices.SortStableFunc(j.Files, func(a, b planned) int {
		return cmp.Or(cmp.Compare(rank(a.Path), rank(b.Path)), strings.Compare(a.Path, b.Path))
	})
	j.Gone, err = p.d.gone(p.k)
	return j, err
}

// dirs returns the directories of the kit that the target lacks.
func (p *planner) dirs() ([]string, error) {
	var out []string
	for _, dir := range p.k.dirs {
		st, err := p.d.root.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			out = append(out, dir)
		case err != nil:
			return nil, err
		case !st.IsDir():
			return nil, fmt.Errorf("%s: a directory in the kit, a file on the target: %w", dir, ErrTarget)
		}
	}
	return out, nil
}

// file plans one file of the kit. It returns nil if the target has the same file.
func (p *planner) file(ctx context.Context, f kitFile) (*planned, error) {
	if p.fat && f.size > maxFATFile {
		return nil, fmt.Errorf("%s: a file of %d bytes is not possible on FAT32: %w", f.path, f.size, ErrTarget)
	}
	pf := &planned{Path: f.path, Size: f.size}
	st, err := p.d.root.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: a file in the kit, not one on the target: %w", f.path, ErrTarget)
	default:
		pf.Old = &version{Size: st.Size()}
		if st.Size() == f.size {
			same, err := p.d.equal(ctx, p.k, f)
			if same || err != nil {
				return nil, err
			}
		}
		p.charge(pf.Old.Size)
	}
	p.charge(f.size)
	return pf, nil
}

// writeContents writes the new contents, and copies of the files to be replaced.
func (d *disk) writeContents(ctx context.Context, k *openedKit, j *journal) error {
	for _, dir := range []string{stateDir, stagedDir, backupDir, trashDir} {
		if err := d.mkdir(dir); err != nil {
			return err
		}
	}
	for i := range j.Files {
		f := &j.Files[i]
		var err error
		if f.SHA256, err = d.stage(ctx, k, i, f); err != nil {
			return err
		}
		if f.Old == nil {
			continue
		}
		// A copy, not a rename: the system boots from the old file until the new
		// one takes its name, and on FAT a power cut during a rename may lose both
		// names.
		src, err := regfile.OpenIn(d.root, f.Path)
		if err != nil {
			return err
		}
		f.Old.SHA256, err = d.write(ctx, slot(backupDir, i), src, f.Old.Size)
		src.Close()
		if err != nil {
			return fmt.Errorf("back up %s: %w", f.Path, err)
		}
	}
	return nil
}

// readContentsBack checks what writeContents wrote.
func (d *disk) readContentsBack(ctx context.Context, j *journal) error {
	for i, f := range j.Files {
		if err := d.readBack(ctx, slot(stagedDir, i), f.Size, f.SHA256); err != nil {
			return err
		}
		if f.Old == nil {
			continue
		}
		if err := d.readBack(ctx, slot(backupDir, i), f.Old.Size, f.Old.SHA256); err != nil {
			return err
		}
	}
	return nil
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

// equal compares a file of the kit with the target's file of the same name and size.
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
	same, err := sameContent(ctx, a, b)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", f.path, err)
	}
	return same, nil
}

// gone returns the existing paths that are to be deleted: those in the kit's
// delete_files, and each diff in live/ other than the base and the kit's. None is
// inside another.
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

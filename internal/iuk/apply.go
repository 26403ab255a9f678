package iuk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/regfile"
)

var (
	// ErrKit means that a kit violates the format, or would make a change that kits
	// must not make.
	ErrKit = errors.New("bad kit")
	// ErrTarget means that the target is not a suitable system partition.
	ErrTarget = errors.New("unfit target")
	// ErrWrongBase means that the kit was made for another base image.
	ErrWrongBase = errors.New("kit is for another base image")
	// ErrNoSpace means that the target has too little free space. Nothing was changed.
	ErrNoSpace = errors.New("not enough space on target")
	// ErrReadOnly means that the target is not writable. Nothing was changed.
	ErrReadOnly = errors.New("target is read-only")
	// ErrBusy means that another process applies a kit to the target.
	ErrBusy = errors.New("target is in use by another apply")
	// ErrUnfinished means that the target is between two states. Only Apply with
	// the same kit, or Rollback, is possible.
	ErrUnfinished = errors.New("upgrade is unfinished")
	// ErrNoUpgrade means that there is nothing to roll back.
	ErrNoUpgrade = errors.New("no unfinished upgrade on target")
	// ErrJournal means that the journal, or a file that it names, is damaged.
	ErrJournal = errors.New("journal on target is damaged")
)

// Limits of a kit. Real kits have a few hundred files.
const (
	maxKitFiles   = 20000
	maxKitDepth   = 32
	maxControl    = 1 << 20
	maxDelete     = 10000
	maxJournal    = 32 << 20
	maxModule     = 64 << 10
	maxFATFile    = 1<<32 - 1 // bytes: FAT32 stores sizes in 32 bits
	spaceReserve  = 1 << 20   // bytes that stay free
	msdosMagic    = 0x4d44    // statfs(2), MSDOS_SUPER_MAGIC
	baseImage     = "live/filesystem.squashfs"
	moduleFile    = "live/Tails.module"
	stateDir      = ".iuk-apply" // on the target, during an upgrade
	stagedDir     = stateDir + "/new"
	backupDir     = stateDir + "/old"
	trashDir      = stateDir + "/gone"
	journalFile   = stateDir + "/journal"
	journalFormat = 1
)

// ApplyOptions are for tests of Apply. All other callers use the zero value.
type ApplyOptions struct {
	// fault is called before (done false) and after (done true) each change of
	// the target. An error makes the step fail.
	fault func(op, name string, done bool) error
	// free replaces the look-up of free bytes on the file system.
	free func() (int64, error)
	// syncfs replaces durable.SyncFS.
	syncfs func(*os.File) error
}

// ApplyResult describes what Apply or Rollback did.
type ApplyResult struct {
	// Resumed is set when an unfinished upgrade was found and completed.
	Resumed bool `json:"resumed"`
	// RolledBack is set when the old state was restored.
	RolledBack bool `json:"rolled_back"`
	// Added, Replaced and Deleted are paths on the target, sorted.
	Added    []string `json:"added,omitempty"`
	Replaced []string `json:"replaced,omitempty"`
	Deleted  []string `json:"deleted,omitempty"`
	// Unchanged is the number of files that the target had already.
	Unchanged int `json:"unchanged"`
	// BootLoader are the commands that install the boot loader. Apply does not
	// run them. PARTITION and DISK are placeholders for the devices.
	BootLoader []string `json:"boot_loader,omitempty"`
}

// Apply installs the kit of format 2 in the file kitPath onto the system partition that
// is mounted at target: it copies the kit's overlay/ tree, writes the names of the base image and
// the kit's diffs to live/Tails.module, and deletes the files in delete_files and the
// diffs of earlier kits. APPLY.md describes how it recovers from interruptions.
//
// An error that wraps ErrUnfinished means that the target is between two states.
// After any other error the target is unchanged. Apply completes an unfinished
// upgrade with the same kit.
func Apply(ctx context.Context, kitPath, target string, o ApplyOptions) (*ApplyResult, error) {
	f, err := regfile.Open(kitPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	k, err := openKitFile(ctx, Input{R: f, Size: st.Size(), Name: kitPath})
	if err != nil {
		return nil, err
	}
	res, err := applyKit(ctx, k.openedKit, target, o)
	if err != nil {
		return res, fmt.Errorf("apply %s: %w", kitPath, err)
	}
	return res, nil
}

func applyKit(ctx context.Context, k *openedKit, target string, o ApplyOptions) (*ApplyResult, error) {
	d, err := openTarget(target, o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	j, err := d.readJournal()
	if err != nil {
		return nil, err
	}
	res := &ApplyResult{BootLoader: k.bootLoader()}
	if j != nil {
		if j.Kit != k.id {
			return nil, fmt.Errorf("by another kit (expected %s, found %s): %w", j.Kit.Short(), k.id.Short(), ErrUnfinished)
		}
		res.Resumed = true
	} else {
		// Without a journal, the state directory is left from an apply that was
		// interrupted before the journal, or after the end.
		if err := d.removeAll(stateDir); err != nil {
			return nil, d.refused(err)
		}
		if j, err = d.prepare(ctx, k, o); err != nil {
			// The target is unchanged. If this removal fails, too, the next apply or
			// rollback repeats it.
			return nil, errors.Join(d.refused(err), d.removeAll(stateDir))
		}
		// Until here, an interruption leaves the target unchanged.
		if err := d.commitJournal(j); err != nil {
			return nil, fmt.Errorf("write journal: %w: %w", err, ErrUnfinished)
		}
		// From here on, Apply and Rollback can both continue.
	}
	if err := d.forward(ctx, k, j, res.Resumed); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUnfinished)
	}
	for _, f := range j.Files {
		switch {
		case f.Path == moduleFile:
		case f.Old == nil:
			res.Added = append(res.Added, f.Path)
		default:
			res.Replaced = append(res.Replaced, f.Path)
		}
	}
	res.Deleted = slices.Clone(j.Gone)
	res.Unchanged = j.Unchanged
	slices.Sort(res.Added)
	slices.Sort(res.Replaced)
	if err := d.finish(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUnfinished)
	}
	return res, nil
}

// Rollback restores the state before an unfinished upgrade. It returns ErrNoUpgrade if
// there is no unfinished upgrade, also after a complete one.
func Rollback(ctx context.Context, target string, o ApplyOptions) (*ApplyResult, error) {
	d, err := openTarget(target, o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	j, err := d.readJournal()
	if err != nil {
		return nil, err
	}
	if j == nil {
		if _, err := d.root.Lstat(stateDir); err != nil {
			return nil, ErrNoUpgrade
		}
		if err := d.removeAll(stateDir); err != nil {
			return nil, d.refused(err)
		}
		return &ApplyResult{RolledBack: true}, nil
	}
	if err := d.backward(ctx, j); err != nil {
		return nil, fmt.Errorf("roll back: %w: %w", err, ErrUnfinished)
	}
	if err := d.finish(); err != nil {
		return nil, fmt.Errorf("roll back: %w: %w", err, ErrUnfinished)
	}
	return &ApplyResult{RolledBack: true}, nil
}

// refused adds ErrReadOnly or ErrNoSpace to the system's errors of these kinds.
func (d *disk) refused(err error) error {
	switch {
	case errors.Is(err, ErrReadOnly), errors.Is(err, ErrNoSpace):
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", err, ErrReadOnly)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", err, ErrNoSpace)
	}
	return err
}

// rank orders the files of a kit: first those that nothing uses yet, then those that
// boot, last the one that activates the diff. Files of one rank are flushed before
// the next rank starts.
func rank(p string) int {
	f := fold(p)
	switch {
	case f == fold(moduleFile):
		return 4
	case isDiff(p):
		return 0
	case strings.HasPrefix(f, "LIVE/"): // kernels and initrds
		return 3
	case strings.HasPrefix(f, "SYSLINUX/"), strings.HasPrefix(f, "EFI/"):
		return 2
	}
	return 1
}

// forward installs the new state. With resume, it checks every file that it finds.
func (d *disk) forward(ctx context.Context, k *openedKit, j *journal, resume bool) error {
	for _, dir := range []string{stagedDir, backupDir, trashDir} {
		if err := d.mkdirIfMissing(dir); err != nil {
			return err
		}
	}
	for _, p := range j.Dirs {
		if err := d.mkdirIfMissing(p); err != nil {
			return err
		}
	}
	for i := range j.Files {
		f := &j.Files[i]
		if i > 0 && rank(f.Path) != rank(j.Files[i-1].Path) {
			if err := d.sync(); err != nil {
				return err
			}
		}
		if resume {
			if ok, err := d.has(ctx, f.Path, f.Size, f.SHA256); err != nil {
				return err
			} else if ok {
				continue
			}
			if ok, err := d.has(ctx, slot(stagedDir, i), f.Size, f.SHA256); err != nil {
				return err
			} else if !ok {
				if err := d.restage(ctx, k, i, f); err != nil {
					return err
				}
			}
		}
		if err := d.rename(slot(stagedDir, i), f.Path); err != nil {
			return err
		}
	}
	if err := d.sync(); err != nil {
		return err
	}
	// The new state is complete. Removing old files is the last step, which only moves
	// them to the trash directory, where Rollback finds them.
	for i, p := range j.Gone {
		if _, err := d.root.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := d.rename(p, slot(trashDir, i)); err != nil {
			return err
		}
	}
	return d.sync()
}

// restage writes the new content of file i again, after it was lost.
func (d *disk) restage(ctx context.Context, k *openedKit, i int, f *planned) error {
	if err := d.removeAll(slot(stagedDir, i)); err != nil {
		return err
	}
	sum, err := d.stage(ctx, k, i, f)
	if err != nil {
		return err
	}
	if sum != f.SHA256 {
		return fmt.Errorf("%s in the kit: expected SHA-256 %s as in the journal, found %s: %w", f.Path, f.SHA256, sum, ErrKit)
	}
	return d.sync()
}

// backward restores the old state, in reverse order. It needs no kit.
func (d *disk) backward(ctx context.Context, j *journal) error {
	// Everything is checked first, so that damage changes nothing.
	restore, err := d.filesToRestore(ctx, j)
	if err != nil {
		return err
	}
	back, err := d.deletionsToUndo(j)
	if err != nil {
		return err
	}
	if err := d.mkdirIfMissing(stagedDir); err != nil {
		return err
	}
	for i, p := range slices.Backward(j.Gone) {
		if !back[i] {
			continue
		}
		if err := d.rename(slot(trashDir, i), p); err != nil {
			return err
		}
	}
	if err := d.sync(); err != nil {
		return err
	}
	for i, f := range slices.Backward(j.Files) {
		if i < len(j.Files)-1 && rank(f.Path) != rank(j.Files[i+1].Path) {
			if err := d.sync(); err != nil {
				return err
			}
		}
		switch {
		case f.Old == nil:
			if _, err := d.root.Lstat(f.Path); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			err = d.remove(f.Path)
		case restore[i]:
			err = d.restore(ctx, i, &f)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(j.Dirs) {
		if err := d.removeDir(p); err != nil {
			return err
		}
	}
	return d.sync()
}

// filesToRestore reports which files do not have their old content, and checks that
// all of these have an intact copy of it.
func (d *disk) filesToRestore(ctx context.Context, j *journal) ([]bool, error) {
	restore := make([]bool, len(j.Files))
	for i, f := range j.Files {
		if f.Old == nil {
			continue
		}
		ok, err := d.has(ctx, f.Path, f.Old.Size, f.Old.SHA256)
		if err != nil {
			return nil, err
		}
		if restore[i] = !ok; ok {
			continue
		}
		if ok, err = d.has(ctx, slot(backupDir, i), f.Old.Size, f.Old.SHA256); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("old copy of %s is lost or damaged: %w", f.Path, ErrJournal)
		}
	}
	return restore, nil
}

// deletionsToUndo reports which deleted files are in the trash directory, and checks
// that none is lost.
func (d *disk) deletionsToUndo(j *journal) ([]bool, error) {
	back := make([]bool, len(j.Gone))
	for i, p := range j.Gone {
		if _, err := d.root.Lstat(p); err == nil {
			continue
		}
		if _, err := d.root.Lstat(slot(trashDir, i)); err != nil {
			return nil, fmt.Errorf("deleted %s is lost: %w", p, ErrJournal)
		}
		back[i] = true
	}
	return back, nil
}

// restore gives file i its old content. The backup is copied, not renamed, so that it
// exists until the end.
func (d *disk) restore(ctx context.Context, i int, f *planned) error {
	tmp := slot(stagedDir, i)
	if err := d.removeAll(tmp); err != nil {
		return err
	}
	src, err := regfile.OpenIn(d.root, slot(backupDir, i))
	if err != nil {
		return err
	}
	_, err = d.write(ctx, tmp, src, f.Old.Size)
	src.Close()
	if err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	return d.rename(tmp, f.Path)
}

// finish ends an upgrade or a rollback. It removes the journal first, because the state
// directory has no meaning without it.
func (d *disk) finish() error {
	if err := d.remove(journalFile); err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	return d.removeAll(stateDir)
}

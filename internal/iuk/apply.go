package iuk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/squashfs"
)

var (
	// ErrKit means that a kit breaks the format, or asks for something that no
	// kit may do.
	ErrKit = errors.New("bad kit")
	// ErrTarget means that the target is no system partition that this kit fits.
	ErrTarget = errors.New("unfit target")
	// ErrWrongBase means that the target's base image is not the one that the
	// kit was made for.
	ErrWrongBase = errors.New("kit is for another base image")
	// ErrNoSpace means that the target has not enough free space. Nothing was changed.
	ErrNoSpace = errors.New("not enough space on target")
	// ErrReadOnly means that the target cannot be written. Nothing was changed.
	ErrReadOnly = errors.New("target is read-only")
	// ErrBusy means that another process is at work on the target.
	ErrBusy = errors.New("target is in use by another apply")
	// ErrUnfinished means that the target is between two states: only Apply
	// with the same kit, or Rollback, is possible.
	ErrUnfinished = errors.New("upgrade is unfinished")
	// ErrNoUpgrade means that there is nothing to roll back.
	ErrNoUpgrade = errors.New("no unfinished upgrade on target")
	// ErrJournal means that the journal on the target is damaged.
	ErrJournal = errors.New("journal on target is damaged")
)

// Limits of a kit. Real ones hold a few hundred files.
const (
	maxKitFiles   = 20000
	maxKitDepth   = 32
	maxControl    = 1 << 20
	maxDelete     = 10000
	maxJournal    = 32 << 20
	maxModule     = 64 << 10
	maxFATFile    = 1<<32 - 1 // bytes: FAT32 keeps sizes in 32 bits
	spaceReserve  = 1 << 20   // bytes kept free beyond what is written
	msdosMagic    = 0x4d44    // statfs(2), MSDOS_SUPER_MAGIC
	baseImage     = "live/filesystem.squashfs"
	moduleFile    = "live/Tails.module"
	stateDir      = ".iuk-apply" // on the target, while an upgrade is under way
	stagedDir     = stateDir + "/new"
	backupDir     = stateDir + "/old"
	trashDir      = stateDir + "/gone"
	journalFile   = stateDir + "/journal"
	journalFormat = 1
)

// ApplyOptions changes how a kit is applied. The zero value is what users want.
type ApplyOptions struct {
	// SkipVerify leaves out reading back what was written.
	SkipVerify bool

	// fault is called before (done false) and after (done true) each change
	// of the target. An error makes the step fail.
	fault func(op, name string, done bool) error
	// free replaces asking the file system for its free bytes.
	free func() (int64, error)
	// syncfs replaces durable.SyncFS.
	syncfs func(*os.File) error
}

// ApplyResult says what Apply or Rollback did.
type ApplyResult struct {
	// Resumed is set when an unfinished upgrade was found and completed.
	Resumed bool `json:"resumed"`
	// RolledBack is set when the old state was restored.
	RolledBack bool `json:"rolled_back"`
	// Added, Replaced and Deleted are paths on the target, sorted.
	Added    []string `json:"added,omitempty"`
	Replaced []string `json:"replaced,omitempty"`
	Deleted  []string `json:"deleted,omitempty"`
	// Unchanged is the number of files that already were as the kit has them.
	Unchanged int `json:"unchanged"`
	// BootLoader holds the commands that install the boot loader, which Apply
	// does not run. PARTITION and DISK stand for the devices.
	BootLoader []string `json:"boot_loader,omitempty"`
}

// Apply installs the kit in the image at kitPath. See [ApplyFS].
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
	r, err := squashfs.Open(f, st.Size(), squashfs.Limits{MaxEntries: maxKitFiles, MaxDepth: maxKitDepth})
	if err != nil {
		return nil, fmt.Errorf("open kit %s: %w", kitPath, err)
	}
	res, err := ApplyFS(ctx, r.FS(), target, o)
	if err != nil {
		return res, fmt.Errorf("apply %s: %w", kitPath, err)
	}
	return res, nil
}

// ApplyFS installs a kit of format 2 onto the system partition that is mounted
// at target: the kit's overlay/ tree goes onto it, live/Tails.module names the
// base image and the kit's diffs, and what the kit deletes goes, the diffs of
// earlier kits too. How it stays recoverable is written in APPLY.md.
//
// An error that wraps ErrUnfinished means that the target is between two
// states; after any other the target is as it was. When an unfinished upgrade
// by the same kit is found, ApplyFS completes it.
func ApplyFS(ctx context.Context, kit fs.FS, target string, o ApplyOptions) (*ApplyResult, error) {
	d, err := openTarget(target, o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	j, err := d.readJournal()
	if err != nil {
		return nil, err
	}
	k, err := readKit(kit)
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
		// Whatever is in the state directory belongs to an apply that never
		// came to its journal, or to one that was complete.
		if err := d.removeAll(stateDir); err != nil {
			return nil, d.refused(err)
		}
		if j, err = d.prepare(ctx, k, o); err != nil {
			// The caller gets the state it had. Should the removal fail too, the
			// next apply or rollback repeats it.
			return nil, errors.Join(d.refused(err), d.removeAll(stateDir))
		}
		// If we stop before this, the target is as it was.
		if err := d.commitJournal(j); err != nil {
			return nil, fmt.Errorf("write journal: %w: %w", err, ErrUnfinished)
		}
		// If we stop after it, ApplyFS and Rollback both can go on.
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

// Rollback restores the state before an unfinished upgrade. It returns
// ErrNoUpgrade if there is none, so also after an upgrade that is complete.
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

// kitFile is a file of the kit's overlay.
type kitFile struct {
	path string // on the target
	size int64
}

// openedKit is a kit whose shape was checked.
type openedKit struct {
	fs     fs.FS
	id     cas.Digest // of everything but the content of the overlay's files
	files  []kitFile  // sorted by path
	dirs   []string   // parents first
	diffs  []string   // names of the SquashFS diffs in live/, sorted
	delete []string   // sorted
	base   cas.Digest // zero if the kit does not say
	module []byte     // content of Tails.module afterwards
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
		p, err := parseProvenance(provenance)
		if err != nil {
			return nil, fmt.Errorf("provenance.json: %w: %w", err, ErrKit)
		}
		k.base = p.Base.SHA256
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

// parseDeleteFiles reads control.yml: a mapping with the key delete_files, or
// nothing. Other keys are for others.
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

// checkPath accepts what can be a path on FAT32, relative to its root and clean.
func checkPath(p string) error {
	if p == "" || p != path.Clean(p) || path.IsAbs(p) || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("path %q is not clean and relative", p)
	}
	for e := range strings.SplitSeq(p, "/") {
		if !utf8.ValidString(e) || len(utf16.Encode([]rune(e))) > 255 ||
			strings.HasSuffix(e, ".") || strings.HasSuffix(e, " ") ||
			strings.ContainsFunc(e, func(r rune) bool { return r < 0x20 || r == 0x7f || strings.ContainsRune(`"*:<>?\|`, r) }) {
			return fmt.Errorf("path %q is not possible on FAT32", p)
		}
	}
	if e, _, _ := strings.Cut(p, "/"); fold(e) == fold(stateDir) {
		return fmt.Errorf("path %q is reserved", p)
	}
	return nil
}

// fold gives paths that FAT32 takes for one the same form.
func fold(p string) string { return strings.ToUpper(strings.ToLower(p)) }

// readOverlay lists the overlay, which may hold directories and files only.
func (k *openedKit) readOverlay() error {
	seen := make(map[string]string)
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
		if err := checkPath(p); err != nil {
			return fmt.Errorf("overlay: %w", err)
		}
		if strings.Count(p, "/") >= maxKitDepth {
			return fmt.Errorf("overlay: %q is more than %d levels deep", p, maxKitDepth)
		}
		if len(seen) == maxKitFiles {
			return fmt.Errorf("overlay: more than %d files", maxKitFiles)
		}
		if other, ok := seen[fold(p)]; ok {
			return fmt.Errorf("overlay: %q and %q are one file on FAT32", other, p)
		}
		seen[fold(p)] = p
		if f := fold(p); f == fold(baseImage) || f == fold(moduleFile) {
			return fmt.Errorf("overlay: %q is not a kit's to replace", p)
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

// isDiff says whether p is a SquashFS image directly in live/ on the target.
func isDiff(p string) bool {
	dir, name := path.Split(fold(p))
	return dir == "LIVE/" && strings.HasSuffix(name, ".SQUASHFS")
}

// checkDelete refuses what no kit may delete, and drops what the kit installs
// under a name that differs only in case: to FAT32 that is the new file.
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
				return fmt.Errorf("delete_files: %q is not a kit's to delete", p)
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

// refused names the two errors of a target that cannot be written.
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

// rank orders the files of a kit: first what nothing uses yet, then what boots,
// last what decides. Files of one rank are flushed before the next rank starts.
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
	if !k.base.IsZero() {
		got, _, err := d.sum(ctx, baseImage)
		if err != nil {
			return nil, err
		}
		if got != k.base {
			return nil, fmt.Errorf("%s: expected SHA-256 %s, found %s: %w", baseImage, k.base, got, ErrWrongBase)
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

// forward makes the target new. With resume it trusts nothing it finds.
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
	// The new state is complete. Old files go last, and only to a place from
	// which Rollback can take them.
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

// restage writes file i's new content once more, after it was lost.
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

// backward makes the target old again, in reverse order. It needs no kit.
func (d *disk) backward(ctx context.Context, j *journal) error {
	// All copies first, so that a damaged one changes nothing.
	restore := make([]bool, len(j.Files))
	for i, f := range j.Files {
		if f.Old == nil {
			continue
		}
		ok, err := d.has(ctx, f.Path, f.Old.Size, f.Old.SHA256)
		if err != nil {
			return err
		}
		if restore[i] = !ok; ok {
			continue
		}
		if ok, err = d.has(ctx, slot(backupDir, i), f.Old.Size, f.Old.SHA256); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("old copy of %s is lost or damaged: %w", f.Path, ErrJournal)
		}
	}
	back := make([]bool, len(j.Gone))
	for i, p := range j.Gone {
		if _, err := d.root.Lstat(p); err == nil {
			continue
		}
		if _, err := d.root.Lstat(slot(trashDir, i)); err != nil {
			return fmt.Errorf("deleted %s is lost: %w", p, ErrJournal)
		}
		back[i] = true
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
			if err := d.remove(f.Path); err != nil {
				return err
			}
		case restore[i]:
			// Again a copy, so that the backup survives until the end.
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
			if err := d.rename(tmp, f.Path); err != nil {
				return err
			}
		}
	}
	for _, p := range slices.Backward(j.Dirs) {
		if err := d.removeDir(p); err != nil {
			return err
		}
	}
	return d.sync()
}

// finish ends an upgrade or a rollback: without a journal the state directory
// means nothing, and it goes last.
func (d *disk) finish() error {
	if err := d.remove(journalFile); err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	return d.removeAll(stateDir)
}

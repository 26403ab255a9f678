package backup

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/regfile"
)

// Installation is the installation to back up.
type Installation struct {
	Store   *bolt.Store
	Blobs   cas.Store
	DataDir string
	KeyFile string
	// LogKeyFile is the key of the transparency log; "" or an absent file: none.
	LogKeyFile string
	// Hold prevents collections until release is called; nil: none can run.
	Hold    func(context.Context) (release func(), err error)
	Version string
	Now     func() time.Time
}

// installationKey is the name of the note with the random text that identifies the
// installation.
const installationKey = "installation"

// Create copies an installation to dir, as the first or the next backup. The copy is
// consistent and durable; syncs and freezes may continue during the backup. ErrDirectory,
// ErrFormat, ErrDamaged, ErrNoSpace, ErrBusy.
func Create(ctx context.Context, in Installation, dir string, p *acquire.Progress) (*api.BackupResult, error) {
	id, err := in.id(ctx)
	if err != nil {
		return nil, err
	}
	res, err := in.create(ctx, id, dir, p)
	if errors.Is(err, durable.ErrUnknown) {
		// The state of the backup's disk is unknown, not that of this installation.
		err = errors.New(err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("back up to %s: %w", dir, err)
	}
	return res, nil
}

// id returns the installation's random text, and creates it on first use.
func (in *Installation) id(ctx context.Context) (id string, err error) {
	return in.Store.NameOnce(ctx, installationKey, rand.Text())
}

func (in *Installation) create(ctx context.Context, id, dir string, p *acquire.Progress) (res *api.BackupResult, err error) {
	if err := apart(dir, in.DataDir); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	locked, err := lock(dir, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer locked.Close()
	t, err := openTarget(dir, id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()

	p.SetPhase("waiting for collection")
	release := func() {}
	if in.Hold != nil {
		if release, err = in.Hold(ctx); err != nil {
			return nil, err
		}
	}
	defer func() { release() }()
	b := &backup{in: in, t: t, p: p, faults: map[cas.Digest]string{}, missing: map[cas.Digest]bool{}}
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	release()
	release = func() {}
	if err := t.prune(ctx, b.doc, b.unlisted, p); err != nil {
		return nil, err
	}
	return b.result(), nil
}

// target is the directory of a backup.
type target struct {
	dir   string
	root  *os.Root
	id    string
	old   *document // nil: there is no complete backup
	blobs cas.Store
}

// openTarget opens the directory of a backup for writing, and removes what an interrupted
// run left behind. ErrDirectory.
func openTarget(dir, id string) (_ *target, err error) {
	t := &target{dir: dir, id: id}
	if t.root, err = os.OpenRoot(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if err := t.claim(); err != nil {
		return nil, err
	}
	if t.old, err = readDocument(t.root); err != nil && !errors.Is(err, ErrIncomplete) {
		return nil, err
	}
	if err := t.removeStates(t.old); err != nil {
		return nil, err
	}
	t.blobs, err = casdir.Open(dir, casdir.Options{Mode: 0o400})
	return t, err
}

func (t *target) close() error {
	var err error
	if t.blobs != nil {
		err = t.blobs.Close()
	}
	return errors.Join(err, t.root.Close())
}

// claim marks an empty directory as a backup of this installation, or checks that
// the directory already is such a backup.
func (t *target) claim() error {
	found, err := names(t.dir)
	if err != nil {
		return err
	}
	var others, temporary []string
	for _, n := range found {
		switch {
		case strings.HasPrefix(n, ".") && strings.HasSuffix(n, ".tmp") && (strings.Contains(n, documentName) || strings.Contains(n, markName)):
			temporary = append(temporary, n)
		case slices.Contains([]string{documentName, markName, blobsName, "incoming", "quarantine"}, n), stateRE().MatchString(n):
		default:
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		return fmt.Errorf("%w: it contains other files: %s", ErrDirectory, list(others))
	}
	m, err := readMark(t.root)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(found) > len(temporary):
		return fmt.Errorf("%w: it is not empty and not a backup: %s", ErrDirectory, list(found))
	case errors.Is(err, fs.ErrNotExist):
		data, err := json.Marshal(mark{Format, t.id})
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(t.dir, markName), append(data, '\n'), 0o600); err != nil {
			return err
		}
	case err != nil:
		return err
	case m.Installation != t.id:
		return fmt.Errorf("%w: it is the backup of another installation (%s, this one is %s)", ErrDirectory, m.Installation, t.id)
	}
	for _, n := range temporary {
		if err := t.root.Remove(n); err != nil {
			return err
		}
	}
	return nil
}

// removeStates deletes all states except keep.
func (t *target) removeStates(keep *document) error {
	found, err := names(t.dir)
	if err != nil {
		return err
	}
	for _, n := range found {
		if stateRE().MatchString(n) && (keep == nil || n != keep.State) {
			if err := t.root.RemoveAll(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// newState creates the directory of a new state.
func (t *target) newState(at time.Time) (string, error) {
	base := "state-" + at.Format("20060102T150405Z")
	name := base
	for i := 2; ; i++ {
		err := t.root.Mkdir(name, 0o700)
		if !errors.Is(err, fs.ErrExist) || i > 999 {
			return name, err
		}
		name = fmt.Sprintf("%s-%d", base, i)
	}
}

// prune deletes the files that do not belong to the newest backup.
func (t *target) prune(ctx context.Context, d *document, blobs []cas.Digest, p *acquire.Progress) error {
	p.SetPhase("removing old files")
	if err := t.removeStates(d); err != nil {
		return err
	}
	for _, b := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.root.Remove(casdir.Name(b)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// backup is one run.
type backup struct {
	in    *Installation
	t     *target
	p     *acquire.Progress
	doc   *document
	copy  *bolt.Store // the metadata in the backup
	state string      // path

	copied, copiedBytes int64
	faults              map[cas.Digest]string
	missing             map[cas.Digest]bool // faults of blobs that the backup does not have
	vanished            []cas.Digest
	unlisted            []cas.Digest // blobs in the directory that are not part of the backup
}

func (b *backup) run(ctx context.Context) (err error) {
	now := b.in.Now().UTC().Truncate(time.Second)
	b.doc = &document{Format: Format, Version: b.in.Version, Time: now, Installation: b.t.id}
	if b.doc.State, err = b.t.newState(now); err != nil {
		return err
	}
	b.state = filepath.Join(b.t.dir, b.doc.State)
	if err := b.metadata(ctx); err != nil {
		return err
	}
	// The lock of the copy ends with this function, because only it reads the
	// copy.
	if b.copy, err = bolt.OpenReadOnly(filepath.Join(b.state, metaName)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.copy.Close()) }()
	// Damaged metadata must not replace a good backup.
	if err := b.copy.Damage(); err != nil {
		return err
	}
	if err := b.blobs(ctx); err != nil {
		return err
	}
	if err := b.absent(ctx); err != nil {
		return err
	}
	return b.complete(ctx)
}

// metadata copies everything except the blobs.
func (b *backup) metadata(ctx context.Context) error {
	b.p.SetPhase("copying metadata")
	size, err := b.in.Store.Size(ctx)
	if err != nil {
		return err
	}
	if err := checkSpace(b.t.dir, size); err != nil {
		return err
	}
	f, err := writeSynced(filepath.Join(b.state, metaName), func(w io.Writer) error {
		_, err := b.in.Store.WriteTo(ctx, w)
		return err
	})
	if err != nil {
		return err
	}
	b.doc.Files = append(b.doc.Files, f)
	for _, c := range []struct {
		from, name string
		optional   bool
	}{{b.in.KeyFile, keyName, false}, {b.in.LogKeyFile, logKeyName, true}, {filepath.Join(b.in.DataDir, InstallationFile), InstallationFile, true}} {
		if c.from == "" {
			continue
		}
		data, err := regfile.Read(c.from, maxSmall)
		if c.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		f, err := writeSynced(filepath.Join(b.state, c.name), func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		})
		if err != nil {
			return err
		}
		b.doc.Files = append(b.doc.Files, f)
	}
	return nil
}

// has reports whether the backup already has a blob. A blob of a different size was
// damaged there.
func (b *backup) has(ctx context.Context, info cas.Info) (bool, error) {
	st, err := b.t.blobs.Stat(ctx, info.Digest)
	if errors.Is(err, cas.ErrNotFound) {
		return false, nil
	}
	return err == nil && st.Size == info.Size, err
}

// blobs copies the blobs that the backup does not have.
func (b *backup) blobs(ctx context.Context) error {
	b.p.SetPhase("counting blobs")
	var files, bytes int64
	err := b.in.Blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		has, err := b.has(ctx, info)
		if err == nil && !has {
			files++
			bytes += info.Size
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := checkSpace(b.t.dir, bytes); err != nil {
		return err
	}
	b.p.FilesTotal.Store(files)
	b.p.BytesTotal.Store(bytes)
	b.p.SetPhase("copying blobs")
	c := newCopier(b.t.blobs)
	defer c.discard()
	err = b.in.Blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		has, err := b.has(ctx, info)
		if err != nil || has {
			return err
		}
		return b.blob(ctx, c, info.Digest)
	})
	if err != nil {
		return err
	}
	// A repair moves a blob to the quarantine and back, so look again.
	again := b.vanished
	b.vanished = nil
	for _, d := range again {
		if err := b.blob(ctx, c, d); err != nil {
			return err
		}
	}
	for _, d := range b.vanished {
		if err := b.damaged(ctx, d, "disappeared during the backup"); err != nil {
			return err
		}
	}
	return c.flush(ctx)
}

// unreadable reports whether an error is one that a failing disk returns.
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EUCLEAN)
}

// blob copies one blob. If the blob is damaged, it records that.
func (b *backup) blob(ctx context.Context, c *copier, d cas.Digest) error {
	r, err := b.in.Blobs.Open(ctx, d)
	if errors.Is(err, cas.ErrNotFound) {
		b.vanished = append(b.vanished, d)
		return nil
	} else if unreadable(err) {
		return b.damaged(ctx, d, "cannot be opened: "+err.Error())
	} else if err != nil {
		return err
	}
	defer r.Close()
	err = c.add(ctx, d, r, r.Info().ModTime, func(n int64) { b.p.Bytes.Add(n) })
	if bad := (*damage)(nil); errors.As(err, &bad) {
		return b.damaged(ctx, d, bad.why)
	} else if err != nil {
		return err
	}
	b.copied++
	b.copiedBytes += r.Info().Size
	b.p.Files.Add(1)
	return nil
}

// damaged records a blob that is damaged in the installation, unless it is not
// needed. An intact copy from an earlier backup stays part of this one.
func (b *backup) damaged(ctx context.Context, d cas.Digest, why string) error {
	needed, err := b.needed(ctx, d)
	if err != nil || !needed {
		return err
	}
	b.faults[d] = why
	err = cas.Check(ctx, b.t.blobs, d)
	b.missing[d] = err != nil
	return ctx.Err()
}

// needed reports whether the copied metadata needs a blob.
func (b *backup) needed(ctx context.Context, d cas.Digest) (needed bool, err error) {
	return b.copy.Needed(ctx, d)
}

// absent looks for blobs that are stored according to the metadata but that the
// installation has lost, even if the backup has an earlier copy: otherwise nobody would
// notice until the next fsck.
func (b *backup) absent(ctx context.Context) error {
	b.p.SetPhase("looking for missing blobs")
	var after cas.Digest
	for more := true; more; {
		promised, next, left, err := b.copy.PromisedBlobs(ctx, after, 1000)
		if err != nil {
			return err
		}
		after, more = next, left
		for _, d := range promised {
			if _, known := b.faults[d]; known {
				continue
			}
			if _, err := b.in.Blobs.Stat(ctx, d); errors.Is(err, cas.ErrNotFound) {
				if err := b.damaged(ctx, d, "is missing"); err != nil {
					return err
				}
				continue
			} else if err != nil {
				return err
			}
			if _, err := b.t.blobs.Stat(ctx, d); errors.Is(err, cas.ErrNotFound) {
				b.faults[d], b.missing[d] = "was not copied: it was stored again while the backup ran", true
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// complete lists what belongs to the backup and then declares it complete.
func (b *backup) complete(ctx context.Context) error {
	b.p.SetPhase("completing")
	f, err := writeSynced(filepath.Join(b.state, sumsName), func(w io.Writer) error { return b.writeSums(ctx, w) })
	if err != nil {
		return err
	}
	b.doc.Files = append(b.doc.Files, f)
	for d, missing := range b.missing {
		if missing {
			b.doc.Missing = append(b.doc.Missing, d.String())
		}
	}
	slices.Sort(b.doc.Missing)
	for _, dir := range []string{b.state, b.t.dir} {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(b.doc, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= maxDocument {
		return fmt.Errorf("%d blobs are missing: too many for a backup", len(b.doc.Missing))
	}
	return durable.WriteFile(filepath.Join(b.t.dir, documentName), append(data, '\n'), 0o600)
}

// writeSums writes SHA256SUMS and counts the blobs of the backup: those that the
// installation has, and those that the metadata needs.
func (b *backup) writeSums(ctx context.Context, w io.Writer) error {
	for _, f := range b.doc.Files {
		if _, err := io.WriteString(w, sumLine(f.SHA256, b.doc.State+"/"+f.Name)); err != nil {
			return err
		}
	}
	return b.t.blobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		belongs, err := b.belongs(ctx, info)
		if err != nil {
			return err
		}
		if !belongs {
			b.unlisted = append(b.unlisted, info.Digest)
			return nil
		}
		b.doc.Blobs++
		b.doc.Bytes += info.Size
		_, err = io.WriteString(w, sumLine(info.Digest, casdir.Name(info.Digest)))
		return err
	})
}

func (b *backup) belongs(ctx context.Context, info cas.Info) (bool, error) {
	if _, bad := b.faults[info.Digest]; bad {
		return !b.missing[info.Digest], nil
	}
	st, err := b.in.Blobs.Stat(ctx, info.Digest)
	if err == nil && st.Size == info.Size {
		return true, nil
	} else if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return false, err
	}
	return b.needed(ctx, info.Digest)
}

func (b *backup) result() *api.BackupResult {
	res := &api.BackupResult{
		Dir: b.t.dir, Time: b.doc.Time, Blobs: b.doc.Blobs, Bytes: b.doc.Bytes, Copied: b.copied, CopiedBytes: b.copiedBytes,
		Removed: int64(len(b.unlisted)), Faults: []api.VerifyFault{},
	}
	for d, why := range b.faults {
		if !b.missing[d] {
			why += "; the backup has an intact earlier copy"
			res.Restorable++
		}
		res.Faults = append(res.Faults, api.VerifyFault{Object: "blob " + d.String(), Message: why})
	}
	slices.SortFunc(res.Faults, func(a, b api.VerifyFault) int { return strings.Compare(a.Object, b.Object) })
	if len(res.Faults) > 0 {
		res.Exit = api.ExitVerify
	}
	return res
}

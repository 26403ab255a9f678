package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/regfile"
)

// RestoringFile marks a data directory whose restore is not complete.
const RestoringFile = "restoring"

// restoredMeta is the name of the metadata until the restore is complete.
const restoredMeta = metaName + ".restoring"

// ErrRestoring means that the restore to a data directory was not completed.
var ErrRestoring = errclass.New(errclass.Conflict, "a restore was not completed")

// CheckRestored returns an error that wraps ErrRestoring if a restore to the data
// directory was started and not completed.
func CheckRestored(dataDir string) error {
	_, err := os.Lstat(filepath.Join(dataDir, RestoringFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf("data directory %s: %w", dataDir, ErrRestoring)
}

// Destination is the target of a restore.
type Destination struct {
	DataDir string
	KeyFile string
	// LogKeyFile is the file for the key of the transparency log; "": it is not restored.
	LogKeyFile string
	// AllowDamaged completes the restore without the blobs that are damaged or
	// missing in the backup.
	AllowDamaged bool
	// Prepare, which may be nil, is called with the restored metadata before it gets its
	// name.
	Prepare func(context.Context, *bolt.Store) error
}

// Restore copies the backup in dir to a data directory that is absent or empty, or that
// an interrupted Restore left behind. It verifies every file. The metadata gets its name
// last. If blobs are damaged, the error is ErrDamaged and the result lists them. Other
// errors are ErrDirectory, ErrNoBackup, ErrIncomplete, ErrFormat, ErrNoSpace and ErrBusy.
func Restore(ctx context.Context, dir string, to Destination, p *acquire.Progress) (*api.RestoreResult, error) {
	r := &restore{to: to, p: p, res: &api.RestoreResult{Dir: dir, DataDir: to.DataDir, Faults: []api.VerifyFault{}}}
	if err := r.run(ctx, dir); err != nil {
		return r.res, fmt.Errorf("restore from %s: %w", dir, err)
	}
	return r.res, nil
}

// restore is one run.
type restore struct {
	to   Destination
	p    *acquire.Progress
	from *os.Root
	doc  *document
	res  *api.RestoreResult
}

func (r *restore) run(ctx context.Context, dir string) (err error) {
	if r.from, err = os.OpenRoot(dir); err != nil {
		return err
	}
	defer r.from.Close()
	locked, err := lock(dir, unix.LOCK_SH) // a backup in progress would delete files
	if err != nil {
		return err
	}
	defer locked.Close()
	if r.doc, err = readDocument(r.from); err != nil {
		return err
	}
	r.res.Time = r.doc.Time
	if err := apart(dir, r.to.DataDir); err != nil {
		return err
	}
	keys, err := r.keys()
	if err != nil {
		return err
	}
	claimed, err := r.claim()
	if err != nil {
		return err
	}
	defer claimed.Close()
	if err := r.metadata(ctx); err != nil {
		return err
	}
	if err := r.blobs(ctx); err != nil {
		return err
	}
	return r.complete(ctx, keys)
}

// key is a key of the backup and the file to restore it to.
type key struct {
	file string
	data []byte
}

// keys reads the keys of the backup. It refuses to replace a different key.
func (r *restore) keys() ([]key, error) {
	var keys []key
	for _, k := range []struct{ name, file, what string }{{keyName, r.to.KeyFile, "signing key"}, {logKeyName, r.to.LogKeyFile, "log key"}} {
		f, ok := r.doc.file(k.name)
		if !ok || k.file == "" {
			continue // the key of the log is not in every backup
		}
		data, err := r.small(f)
		if err != nil {
			return nil, err
		}
		there, err := regfile.Read(k.file, maxSmall)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case string(there) != string(data) && filepath.Dir(k.file) != r.to.DataDir: // claim checks keys in the data directory
			return nil, fmt.Errorf("%w: the %s %s differs from that of the backup", ErrDirectory, k.what, k.file)
		}
		keys = append(keys, key{k.file, data})
	}
	return keys, nil
}

// putKeys writes the keys that do not exist yet.
func putKeys(keys []key) error {
	for _, k := range keys {
		if err := os.MkdirAll(filepath.Dir(k.file), 0o700); err != nil {
			return err
		}
		if there, err := regfile.Read(k.file, maxSmall); err == nil && string(there) == string(k.data) {
			continue
		}
		if err := durable.WriteFile(k.file, k.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// small reads a small file of the state and verifies it.
func (r *restore) small(f file) ([]byte, error) {
	name := inState(r.doc.State, f.Name)
	data, err := regfile.ReadIn(r.from, name, maxSmall)
	if err == nil && cas.Sum(data) != f.SHA256 {
		err = fmt.Errorf("%w: %s: SHA-256 %s, expected %s", ErrDamaged, name, cas.Sum(data), f.SHA256)
	}
	return data, missingIsDamage(name, err)
}

// missingIsDamage reports a missing file that the backup lists as damage.
func missingIsDamage(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", ErrDamaged, name)
	}
	return err
}

// claim creates and marks the data directory, or accepts one that an earlier Restore
// marked. The directory is locked until the returned file is closed.
func (r *restore) claim() (_ *os.File, err error) {
	dir := r.to.DataDir
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	f, err := lock(dir, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	found, err := names(dir)
	if err != nil {
		return nil, err
	}
	if slices.Contains(found, RestoringFile) {
		return f, nil
	}
	if len(found) > 0 {
		return nil, fmt.Errorf("%w: the data directory %s is not empty: %s", ErrDirectory, dir, list(found))
	}
	mark, err := os.OpenFile(filepath.Join(dir, RestoringFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return f, errors.Join(mark.Close(), durable.SyncDir(dir))
}

// metadata copies the metadata under another name.
func (r *restore) metadata(ctx context.Context) error {
	r.p.SetPhase("copying metadata")
	want, _ := r.doc.file(metaName)
	name := inState(r.doc.State, metaName)
	from, err := regfile.OpenIn(r.from, name)
	if err != nil {
		return missingIsDamage(name, err)
	}
	defer from.Close()
	to := filepath.Join(r.to.DataDir, restoredMeta)
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := checkSpace(r.to.DataDir, want.Size); err != nil {
		return err
	}
	got, err := writeSynced(to, func(w io.Writer) error {
		_, err := io.Copy(w, &source{ctx: ctx, r: from})
		return err
	})
	if err != nil {
		return err
	}
	if got.SHA256 != want.SHA256 {
		return fmt.Errorf("%w: %s: SHA-256 %s, expected %s", ErrDamaged, name, got.SHA256, want.SHA256)
	}
	return nil
}

// blobs copies the missing blobs.
func (r *restore) blobs(ctx context.Context) (err error) {
	sums, err := r.sums(ctx)
	if err != nil {
		return err
	}
	defer sums.Close()
	to, err := casdir.Open(r.to.DataDir, casdir.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := r.count(ctx, to, sums); err != nil {
		return err
	}
	if _, err := sums.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r.p.SetPhase("copying blobs")
	c := newCopier(to)
	defer c.discard()
	if err := eachBlob(sums, func(d cas.Digest) error { return r.blob(ctx, to, c, d) }); err != nil {
		return err
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	if len(r.res.Faults) > 0 && !r.to.AllowDamaged {
		r.res.Exit = api.ExitVerify
		return fmt.Errorf("%w: %s", ErrDamaged, list(objects(r.res.Faults)))
	}
	for _, m := range r.doc.Missing {
		r.fault("blob "+m, "is not in the backup: it was damaged or missing when the backup was made")
	}
	if len(r.res.Faults) > 0 {
		r.res.Exit = api.ExitPartial
	}
	return nil
}

func objects(faults []api.VerifyFault) (out []string) {
	for _, f := range faults {
		out = append(out, f.Object+" "+f.Message)
	}
	return out
}

func (r *restore) fault(object, message string) {
	r.res.Faults = append(r.res.Faults, api.VerifyFault{Object: object, Message: message})
}

// sums opens SHA256SUMS after verifying it.
func (r *restore) sums(ctx context.Context) (_ *os.File, err error) {
	want, _ := r.doc.file(sumsName)
	name := inState(r.doc.State, sumsName)
	f, err := regfile.OpenIn(r.from, name)
	if err != nil {
		return nil, missingIsDamage(name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	h := sha256.New()
	if _, err := io.Copy(h, &source{ctx: ctx, r: f}); err != nil {
		return nil, err
	}
	if got := cas.Digest(h.Sum(nil)); got != want.SHA256 {
		return nil, fmt.Errorf("%w: %s: SHA-256 %s, expected %s", ErrDamaged, name, got, want.SHA256)
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// count counts the blobs and bytes that are still to be copied, and checks that there is
// enough space.
func (r *restore) count(ctx context.Context, to cas.Reader, sums io.Reader) error {
	r.p.SetPhase("counting blobs")
	var blobs, bytes, files, need int64
	err := eachBlob(sums, func(d cas.Digest) error {
		blobs++
		st, err := r.from.Lstat(casdir.Name(d))
		if err != nil {
			return ctx.Err() // reported when the blob is copied
		}
		bytes += st.Size()
		if _, err := to.Stat(ctx, d); errors.Is(err, cas.ErrNotFound) {
			files++
			need += st.Size()
		} else if err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if blobs != r.doc.Blobs {
		return fmt.Errorf("%w: %s lists %d blobs, %s %d", ErrDamaged, sumsName, blobs, documentName, r.doc.Blobs)
	}
	r.res.Blobs, r.res.Bytes = blobs, bytes
	r.p.FilesTotal.Store(files)
	r.p.BytesTotal.Store(need)
	return checkSpace(r.to.DataDir, need)
}

// blob copies one blob. If the blob is damaged, it records that.
func (r *restore) blob(ctx context.Context, to cas.Reader, c *copier, d cas.Digest) error {
	if _, err := to.Stat(ctx, d); !errors.Is(err, cas.ErrNotFound) {
		return err // nil: it was verified when it was copied
	}
	object := "blob " + d.String()
	f, err := regfile.OpenIn(r.from, casdir.Name(d))
	if errors.Is(err, fs.ErrNotExist) {
		r.fault(object, "is missing in the backup")
		return nil
	} else if err != nil {
		r.fault(object, err.Error())
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	err = c.add(ctx, d, f, st.ModTime(), func(n int64) { r.p.Bytes.Add(n) })
	if bad := (*damage)(nil); errors.As(err, &bad) {
		r.fault(object, bad.why)
		return nil
	}
	r.p.Files.Add(1)
	return err
}

// complete turns the copied files into a data directory.
func (r *restore) complete(ctx context.Context, keys []key) error {
	r.p.SetPhase("completing")
	if err := putKeys(keys); err != nil {
		return err
	}
	if f, ok := r.doc.file(InstallationFile); ok {
		data, err := r.small(f)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(r.to.DataDir, InstallationFile), data, 0o600); err != nil {
			return err
		}
	}
	meta := filepath.Join(r.to.DataDir, restoredMeta)
	if err := r.prepare(ctx, meta); err != nil {
		return err
	}
	if err := os.Rename(meta, filepath.Join(r.to.DataDir, metaName)); err != nil {
		return err
	}
	if err := durable.SyncDir(r.to.DataDir); err != nil {
		return err
	}
	// An interrupted restore may have left temporary files.
	found, err := names(r.to.DataDir)
	if err != nil {
		return err
	}
	for _, n := range found {
		if strings.HasPrefix(n, ".") && strings.HasSuffix(n, ".tmp") {
			if err := os.Remove(filepath.Join(r.to.DataDir, n)); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(filepath.Join(r.to.DataDir, RestoringFile)); err != nil {
		return err
	}
	return durable.SyncDir(r.to.DataDir)
}

// prepare opens the restored metadata, so that a program that does not support it
// fails here.
func (r *restore) prepare(ctx context.Context, meta string) (err error) {
	st, err := bolt.Open(meta, bolt.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if r.to.Prepare == nil {
		return nil
	}
	return r.to.Prepare(ctx, st)
}

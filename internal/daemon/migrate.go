package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/client"
	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/migrate"
	"example.org/snapd/internal/regfile"
)

const (
	// migratingFile marks a data directory whose migration is not complete. It contains
	// the ID of the installation.
	migratingFile = "migrating"
	// migratedMeta is the name of the metadata file until the migration is complete.
	migratedMeta = metaFile + ".migrating"
	// nodeGone is how long a node must be silent to count as stopped.
	nodeGone = 30 * time.Second
	// maxKey bounds the files of keys, in bytes.
	maxKey = 1 << 20
)

// checkMigrated returns migrate.ErrIncomplete if the migration of an installation is not
// complete.
func checkMigrated(ctx context.Context, dir string, st meta.Store) error {
	_, err := os.Lstat(filepath.Join(dir, migratingFile))
	if err == nil {
		return fmt.Errorf("data directory %s: %w", dir, migrate.ErrIncomplete)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st == nil {
		return nil
	}
	switch note, err := st.Note(ctx, meta.MigratingNote); {
	case errors.Is(err, meta.ErrCorrupt):
		return nil // reported as damage
	case err != nil:
		return err
	case note != "":
		id, _, _ := strings.Cut(note, " ")
		return fmt.Errorf("installation %s: %w", id, migrate.ErrIncomplete)
	}
	return nil
}

// Migrate copies the installation of cfg to the places that to configures. No snapd may
// be running with either. Errors are an *api.Error or the error of ctx.
func Migrate(ctx context.Context, cfg, to *config.Config, o Options, progress func(api.Progress)) (*api.MigrateResult, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &migration{cfg: cfg, to: to, o: o, res: &api.MigrateResult{From: cfg.DataDir, To: to.DataDir, Faults: []api.VerifyFault{}}}
	return control.Counted(ctx, "migrate", progress, func(p *acquire.Progress) (*api.MigrateResult, error) {
		m.p = p
		err := m.run(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("migrate to %s: %w", to.DataDir, err)
		}
		return m.res, backupError(err)
	})
}

// migration is one run of Migrate.
type migration struct {
	cfg, to *config.Config
	o       Options
	p       *acquire.Progress
	res     *api.MigrateResult
	id      meta.Identity // of the source
	closers []func() error
	lock    *os.File // the target's data directory, until everything is done
}

func (m *migration) later(f func() error) { m.closers = append(m.closers, f) }

// close closes everything that is open, in reverse order.
func (m *migration) close() (err error) {
	for _, f := range slices.Backward(m.closers) {
		err = errors.Join(err, f())
	}
	m.closers = nil
	return err
}

func (m *migration) run(ctx context.Context) (err error) {
	defer func() {
		err = errors.Join(err, m.close())
		if m.lock != nil {
			err = errors.Join(err, m.lock.Close())
		}
	}()
	if err := m.apart(); err != nil {
		return err
	}
	from, fromBlobs, err := m.source(ctx)
	if err != nil {
		return err
	}
	if m.id, err = migrate.CheckSource(ctx, from, m.p); err != nil {
		return fmt.Errorf("data directory %s: %w", m.cfg.DataDir, err)
	}
	m.res.Installation = m.id.ID
	keys, err := m.keys()
	if err != nil {
		return err
	}
	marked, err := m.directory()
	if err != nil {
		return err
	}
	to, renamed, err := m.metadata(ctx)
	if err != nil {
		return err
	}
	if renamed {
		return m.unmark()
	}
	work := func(ctx context.Context) error {
		complete, err := migrate.Claim(ctx, from, to, m.id, m.blobsAt(), marked)
		if err != nil {
			return err
		}
		if err := m.mark(); err != nil || complete {
			return err
		}
		clock := &migrate.Clock{Now: m.o.Now}
		blobs, err := openRaw(ctx, m.to, to, Options{Now: clock.Time, Log: m.o.Log})
		if err != nil {
			return err
		}
		m.later(blobs.Close)
		if err := m.sameBucket(ctx, fromBlobs, blobs); err != nil {
			return err
		}
		c := &migrate.Copy{From: from, FromBlobs: fromBlobs, To: to, ToBlobs: blobs, Clock: clock, ID: m.id, P: m.p, Result: m.res}
		if err := c.Run(ctx); err != nil {
			return err
		}
		return m.complete(ctx, to, keys)
	}
	if err := meta.Lead(ctx, to, migrate.Lease, "snapd migrate", work); err != nil {
		return err
	}
	all, err := to.Freezes(ctx)
	if err != nil {
		return err
	}
	m.res.Freezes = len(all)
	if err := m.close(); err != nil {
		return err
	}
	return m.rename()
}

// blobsAt returns the location of the target's blobs.
func (m *migration) blobsAt() string {
	if inDirectory(m.to) {
		return "the data directory"
	}
	return m.to.Store.Blobs
}

// apart refuses a target that is the source or a part of it.
func (m *migration) apart() error {
	refused := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{migrate.ErrTarget}, args...)...)
	}
	a, err := filepath.Abs(m.cfg.DataDir)
	if err != nil {
		return err
	}
	b, err := filepath.Abs(m.to.DataDir)
	if err != nil {
		return err
	}
	inside := func(a, b string) bool { return a == b || strings.HasPrefix(a, b+"/") }
	switch {
	case m.to.Store.Serves():
		return fmt.Errorf("%w: store.role of the target is %q, expected %q: an installation starts with a node that signs", errclass.Usage, m.to.Store.Role, config.RoleAll)
	case inside(a, b) || inside(b, a):
		return refused("both configurations have the data directory %s, or one inside the other's: give the target another one", m.to.DataDir)
	case m.to.Store.Postgres() != "" && m.to.Store.Postgres() == m.cfg.Store.Postgres():
		return refused("both configurations name the same database in store.metadata: give the target another one")
	case inDirectory(m.cfg) || inDirectory(m.to):
		return nil
	}
	from, err := location.Parse(m.cfg.Store.Blobs)
	if err != nil {
		return err
	}
	to, err := location.Parse(m.to.Store.Blobs)
	if err != nil {
		return err
	}
	if from.Host == to.Host && from.Bucket == to.Bucket && from.Prefix == to.Prefix {
		return refused("both configurations name the same bucket and prefix in store.blobs: give the target another one")
	}
	return nil
}

// sameBucket refuses a target whose bucket is the source's under another name.
func (m *migration) sameBucket(ctx context.Context, from, to cas.Store) error {
	a, ok := cas.Find[*s3.Store](from)
	b, both := cas.Find[*s3.Store](to)
	if !ok || !both {
		return nil
	}
	same, err := a.Same(ctx, b)
	if err == nil && same {
		err = fmt.Errorf("%w: %s and %s in store.blobs are the same bucket and prefix: give the target another one", migrate.ErrTarget, m.cfg.Store.Blobs, m.to.Store.Blobs)
	}
	return err
}

// source opens the source. It returns ErrRunning if a snapd uses it.
func (m *migration) source(ctx context.Context) (meta.Store, cas.Store, error) {
	running := fmt.Errorf("data directory %s: %w", m.cfg.DataDir, ErrRunning)
	if err := backup.CheckRestored(m.cfg.DataDir); err != nil {
		return nil, nil, err
	}
	if err := checkMigrated(ctx, m.cfg.DataDir, nil); err != nil {
		return nil, nil, err
	}
	if err := client.Local(m.cfg.Server.Socket).Call(ctx, "status", api.Empty{}, nil, nil); !errors.Is(err, client.ErrNoDaemon) {
		return nil, nil, running
	}
	var st meta.Store
	if m.cfg.Store.Postgres() == "" {
		if err := hasMetadata(m.cfg); err != nil {
			return nil, nil, err
		}
		file, err := bolt.OpenReadOnly(filepath.Join(m.cfg.DataDir, metaFile))
		switch {
		case errors.Is(err, meta.ErrLocked):
			return nil, nil, running
		case errors.Is(err, meta.ErrVersion):
			return nil, nil, fmt.Errorf("%w: %w: start snapd with it once, which converts it", migrate.ErrSource, err)
		case err != nil:
			return nil, nil, err
		}
		m.later(file.Close)
		st = file
	} else {
		db, err := openDatabase(ctx, m.cfg, "", true, nil)
		if errors.Is(err, meta.ErrVersion) {
			err = fmt.Errorf("%w: %w: start snapd of this version with it once, which converts it", migrate.ErrSource, err)
		}
		if err != nil {
			return nil, nil, err
		}
		m.later(db.Close)
		nodes, now, err := db.Nodes(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, n := range nodes {
			if now.Sub(n.Seen) < nodeGone {
				return nil, nil, fmt.Errorf("node %s of the source: %w: it was seen %v ago; stop all nodes and wait for %v", n.Name, ErrRunning, now.Sub(n.Seen).Round(time.Second), nodeGone)
			}
		}
		st = db
	}
	blobs, err := openRaw(ctx, m.cfg, st, m.o)
	if err != nil {
		return nil, nil, err
	}
	m.later(blobs.Close)
	return st, blobs, nil
}

// openRaw opens the blob store of a configuration without local copies.
func openRaw(ctx context.Context, cfg *config.Config, st meta.Store, o Options) (cas.Store, error) {
	if inDirectory(cfg) {
		return casdir.Open(cfg.DataDir, casdir.Options{Now: o.Now})
	}
	return openRemote(ctx, cfg, st, o, nil)
}

// directory creates and locks the target's data directory, and reports whether an earlier
// run has marked it. It returns migrate.ErrTarget if the directory is used otherwise.
func (m *migration) directory() (marked bool, err error) {
	dir := m.to.DataDir
	if err := makeDataDir(dir); err != nil {
		return false, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	m.lock = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return false, fmt.Errorf("%w: another migration or restore uses %s", migrate.ErrTarget, dir)
	} else if err != nil {
		return false, fmt.Errorf("lock %s: %w", dir, err)
	}
	data, err := regfile.Read(filepath.Join(dir, migratingFile), maxInstallation)
	if err == nil {
		if id := strings.TrimSpace(string(data)); id != m.id.ID {
			return false, fmt.Errorf("%w: a migration of installation %s to %s was not completed, this one is %s", migrate.ErrTarget, id, dir, m.id.ID)
		}
		return true, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	var found []string
	for _, e := range entries {
		// Ignore the lock of a snapd that found nothing, and the metadata file of a refused
		// run.
		if n := e.Name(); n != "lost+found" && n != lockFile && n != migratedMeta {
			found = append(found, n)
		}
	}
	if len(found) > 0 {
		return false, fmt.Errorf("%w: the data directory %s is not empty: %s", migrate.ErrTarget, dir, strings.Join(found[:min(len(found), 5)], ", "))
	}
	return false, nil
}

// metadata opens the target's metadata. renamed means that an earlier run completed
// everything but the removal of its mark.
func (m *migration) metadata(ctx context.Context) (st meta.Store, renamed bool, err error) {
	if m.to.Store.Postgres() != "" {
		db, err := openDatabase(ctx, m.to, "", false, nil)
		if err != nil {
			return nil, false, err
		}
		m.later(db.Close)
		return db, false, nil
	}
	if _, err := os.Lstat(filepath.Join(m.to.DataDir, metaFile)); err == nil {
		return nil, true, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	file, err := bolt.Open(filepath.Join(m.to.DataDir, migratedMeta), bolt.Options{})
	if err != nil {
		return nil, false, err
	}
	m.later(file.Close)
	return file, false, nil
}

// mark marks the target's data directory as incomplete.
func (m *migration) mark() error {
	return durable.WriteFile(filepath.Join(m.to.DataDir, migratingFile), []byte(m.id.ID+"\n"), 0o600)
}

func (m *migration) unmark() error {
	if err := os.Remove(filepath.Join(m.to.DataDir, migratingFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(m.to.DataDir)
}

// keyCopy is a key with its source and its target.
type keyCopy struct {
	file string
	data []byte
}

// keys reads the keys of the source. It refuses to replace a different key of the target.
func (m *migration) keys() (out []keyCopy, err error) {
	for _, k := range []struct{ what, from, to string }{
		{"signing key", m.cfg.Signing.KeyFile, m.to.Signing.KeyFile}, {"log key", m.cfg.Log.KeyFile, m.to.Log.KeyFile},
	} {
		data, err := regfile.Read(k.from, maxKey)
		if errors.Is(err, fs.ErrNotExist) && k.what == "log key" {
			continue // the log has not started
		} else if err != nil {
			return nil, fmt.Errorf("%s of the source: %w", k.what, err)
		}
		switch there, err := regfile.Read(k.to, maxKey); {
		case errors.Is(err, fs.ErrNotExist):
			out = append(out, keyCopy{k.to, data})
		case err != nil:
			return nil, fmt.Errorf("%s of the target: %w", k.what, err)
		case !bytes.Equal(there, data):
			return nil, fmt.Errorf("%w: the %s %s differs from that of the source, %s", migrate.ErrTarget, k.what, k.to, k.from)
		}
	}
	return out, nil
}

// complete writes the files that a daemon needs beside the stores, and allows it to
// start.
func (m *migration) complete(ctx context.Context, to meta.Store, keys []keyCopy) error {
	for _, k := range keys {
		if err := os.MkdirAll(filepath.Dir(k.file), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(k.file, k.data, 0o600); err != nil {
			return err
		}
	}
	if err := writeInstallation(m.to.DataDir, mark{ID: m.id.ID, Epoch: m.id.Epoch}); err != nil {
		return err
	}
	err := to.AppendAudit(ctx, meta.AuditEntry{
		ID: rand.Text(), Time: m.o.Now().UTC().Truncate(time.Millisecond), Who: "user " + strconv.Itoa(os.Geteuid()), From: "snapd migrate", Verb: "migrate", What: m.cfg.DataDir, Result: api.AuditOK,
	})
	if err != nil {
		return err
	}
	return to.SetNote(ctx, meta.MigratingNote, "")
}

// rename gives the metadata file its final name, and removes the mark.
func (m *migration) rename() error {
	if m.to.Store.Postgres() == "" {
		if err := os.Rename(filepath.Join(m.to.DataDir, migratedMeta), filepath.Join(m.to.DataDir, metaFile)); err != nil {
			return err
		}
		if err := durable.SyncDir(m.to.DataDir); err != nil {
			return err
		}
	}
	return m.unmark()
}

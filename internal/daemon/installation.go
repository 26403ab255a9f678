package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// installationFile marks a data directory that has been used. Its content is also in the
// metadata: so metadata that is missing, older, or from another installation is noticed
// before anything is deleted because of it.
const installationFile = "installation"

// maxInstallation bounds the mark, in bytes.
const maxInstallation = 4 << 10

// mark is the content of the file.
type mark struct {
	ID string `json:"id"`
	// Epoch increases with each start and each clean stop, in the metadata first.
	Epoch int64 `json:"epoch"`
	// BlobsLost lets snapd start although it has no blobs. It is cleared when the first
	// blob exists.
	BlobsLost bool `json:"blobs_lost,omitempty"`
}

// Pages of the manual that errors name.
const (
	pageMetadata = `docs/OPERATE.md, "When meta.db is lost or damaged"`
	pageBlobs    = `docs/OPERATE.md, "When blobs are lost"`
)

// ErrLost means that the data directory was used before, and an irreplaceable
// part of it is missing.
var ErrLost = errors.New("data lost")

// openStore opens the metadata of a data directory. It refuses to start from
// scratch in a used directory, and parts that do not belong together.
func openStore(ctx context.Context, cfg *config.Config, o Options) (_ meta.Store, warnings []string, err error) {
	m, err := readInstallation(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	evidence, err := earlierUse(cfg, m != nil)
	if err != nil {
		return nil, nil, err
	}
	if evidence == "" && m == nil {
		if err := checkForeign(cfg.DataDir); err != nil {
			return nil, nil, err
		}
	}
	var st meta.Store
	if cfg.Store.Postgres() == "" {
		st, err = openFile(cfg, evidence, o.metadataLatency())
	} else {
		st, err = openDatabase(ctx, cfg, evidence, false, o.metadataLatency())
	}
	if err != nil {
		return nil, nil, err
	}
	if err := checkMigrated(ctx, cfg.DataDir, st); err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	warnings, err = checkInstallation(ctx, cfg, st, m, o.Now())
	if errors.Is(err, meta.ErrExists) {
		// Another node has started the installation meanwhile.
		warnings, err = checkInstallation(ctx, cfg, st, m, o.Now())
	}
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	for _, w := range warnings {
		o.Log.Warn(w)
	}
	if err := st.Damage(); err != nil {
		o.Log.Error("the metadata is damaged: run 'snapctl fsck --repair'; if faults remain, restore a backup with 'snapd restore' ("+pageMetadata+")", "err", err)
	}
	return st, warnings, nil
}

// openFile opens the metadata in the data directory. evidence, if not empty, says why
// there must be a file.
func openFile(cfg *config.Config, evidence string, l *latency.Metadata) (*bolt.Store, error) {
	st, err := bolt.Open(filepath.Join(cfg.DataDir, metaFile), bolt.Options{MustExist: evidence != "", Latency: l})
	switch {
	case errors.Is(err, meta.ErrLocked):
		err = fmt.Errorf("data directory %s: %w: %w", cfg.DataDir, ErrRunning, err)
	case errors.Is(err, meta.ErrLost):
		err = fmt.Errorf("%w: %w, but %s; restore a backup with 'snapd restore', or move %s away to start from scratch (%s)", ErrLost, err, evidence, cfg.DataDir, pageMetadata)
	case errors.Is(err, meta.ErrCorrupt):
		err = fmt.Errorf("%w; restore a backup with 'snapd restore', or salvage what is readable with 'snapd salvage' (%s)", err, pageMetadata)
	}
	if err != nil {
		return nil, err
	}
	return st, nil
}

// ErrForeign means that the data directory contains files of another program.
var ErrForeign = errclass.New(errclass.Conflict, "directory belongs to another program")

// foreign are names in the data directories of other programs. A directory that has one
// of them, and is not an installation of ours, belongs to that program: Canonical's snapd
// keeps the snaps of a system in /var/lib/snapd.
var foreign = []struct{ name, program string }{
	{"state.json", "Canonical's snapd"},
	{"snaps", "Canonical's snapd"},
	{"seed", "Canonical's snapd"},
	{"assertions", "Canonical's snapd"},
	{"PG_VERSION", "PostgreSQL"},
	{"pool", "aptly or reprepro"},
	{"dists", "an APT repository"},
	{"repodata", "an rpm-md repository"},
}

// checkForeign refuses a directory that another program uses, with ErrForeign.
func checkForeign(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, metaFile)); err == nil {
		return nil
	}
	for _, f := range foreign {
		switch _, err := os.Lstat(filepath.Join(dir, f.name)); {
		case err == nil:
			return fmt.Errorf("data directory %s: %w: it contains %s of %s; set data_dir to a directory that only snapd uses", dir, ErrForeign, f.name, f.program)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("data directory: %w", err)
		}
	}
	return nil
}

// readInstallation reads the mark, or returns nil if the directory has none.
func readInstallation(dir string) (*mark, error) {
	file := filepath.Join(dir, installationFile)
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInstallation))
	if err != nil {
		return nil, fmt.Errorf("installation mark %s: %w", file, err)
	}
	var m mark
	if err := json.Unmarshal(data, &m); err != nil {
		return &mark{}, nil // not written by snapd
	} else if m.ID == "" {
		return &mark{BlobsLost: m.BlobsLost}, nil // AcceptLostBlobs found no mark, or an unreadable one
	}
	return &m, nil
}

func writeInstallation(dir string, m mark) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, installationFile), append(data, '\n'), 0o600)
}

// earlierUse returns evidence that the data directory had metadata before, or "". A key
// alone is no evidence: it may have been created beforehand.
func earlierUse(cfg *config.Config, marked bool) (string, error) {
	for _, dir := range []string{"blobs", "quarantine"} {
		file, err := firstFile(filepath.Join(cfg.DataDir, dir))
		if err != nil {
			return "", err
		}
		if file != "" {
			return "there are blobs (" + file + ")", nil
		}
	}
	if marked {
		switch _, err := os.Stat(cfg.Signing.KeyFile); {
		case err == nil:
			return fmt.Sprintf("the signing key %s and the mark of an installation exist", cfg.Signing.KeyFile), nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// firstFile returns a file below a directory, or "" if it has none.
func firstFile(dir string) (found string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.IsDir() {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return found, err
}

// checkInstallation compares the mark with the metadata and starts a new epoch.
func checkInstallation(ctx context.Context, cfg *config.Config, st meta.Installation, m *mark, now time.Time) (warnings []string, err error) {
	dir := cfg.DataDir
	known, err := st.Identity(ctx)
	if errors.Is(err, meta.ErrCorrupt) {
		return nil, nil // reported as damage, and nothing is collected
	} else if err != nil {
		return nil, err
	}
	older := false
	switch {
	case m == nil || m.ID == "":
		m = &mark{ID: known.ID, Epoch: known.Epoch, BlobsLost: m != nil && m.BlobsLost}
	case known.ID != "" && known.ID != m.ID:
		return nil, fmt.Errorf("data directory %s: the metadata belongs to installation %s, expected %s (%s): it was copied from another installation",
			dir, known.ID, m.ID, filepath.Join(dir, installationFile))
	case known.Epoch < m.Epoch:
		older = true
		warnings = append(warnings, fmt.Sprintf("the metadata is older than the last run of snapd (epoch %d, expected %d): blobs that it does not know are kept", known.Epoch, m.Epoch))
	}
	if inDirectory(cfg) {
		err := checkBlobs(dir, known.Empty)
		switch {
		case err == nil:
			m.BlobsLost = false
		case !errors.Is(err, ErrLost) || !m.BlobsLost:
			return nil, err
		}
	}
	if known.Torn != "" {
		warnings = append(warnings, "metadata "+known.Torn+" (compare 'snapctl list'; nothing is collected until 'snapctl fsck --repair')")
	}
	if m.ID == "" {
		b := make([]byte, 16)
		rand.Read(b)
		m.ID = hex.EncodeToString(b)
	}
	m.Epoch = max(m.Epoch, known.Epoch)
	var since time.Time
	if older {
		since = now
	}
	return warnings, nextEpoch(ctx, dir, st, m, since)
}

// checkBlobs refuses a directory of blobs that is missing, or empty because it is not
// mounted, if the metadata refers to blobs.
func checkBlobs(dir string, none bool) error {
	if none {
		return nil
	}
	state := "no directory blobs"
	if _, err := os.Stat(filepath.Join(dir, "blobs")); err == nil {
		file, err := firstFile(filepath.Join(dir, "blobs"))
		if err != nil || file != "" {
			return err
		}
		state = "no file in the directory blobs"
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w: %s has %s, but its metadata refers to blobs; mount it; if they are lost, restore a backup with 'snapd restore', or keep this metadata with 'snapd accept-lost-blobs' and then get back what a backup, another snapd or upstream has with 'snapctl fsck --repair' (%s)", ErrLost, dir, state, pageBlobs)
}

// blobsFound clears the mark that AcceptLostBlobs set, if there is a blob.
func blobsFound(dir string) error {
	m, err := readInstallation(dir)
	if err != nil || m == nil || !m.BlobsLost {
		return err
	}
	file, err := firstFile(filepath.Join(dir, "blobs"))
	if err != nil || file == "" {
		return err
	}
	m.BlobsLost = false
	return writeInstallation(dir, *m)
}

// nextEpoch advances the epoch, first in the metadata. A crash in between leaves metadata
// that is newer than the mark, which does not look like a loss.
func nextEpoch(ctx context.Context, dir string, st meta.Installation, m *mark, knownSince time.Time) error {
	m.Epoch++
	err := st.SetEpoch(ctx, m.ID, m.Epoch, knownSince)
	if errors.Is(err, meta.ErrCorrupt) {
		return nil // reported as damage; the epoch advances after the repair
	} else if err != nil {
		return err
	}
	return writeInstallation(dir, *m)
}

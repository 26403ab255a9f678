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

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// installationFile marks a data directory that has been used. It holds what the
// metadata holds too, so that metadata which is gone, older, or another
// installation's is noticed before anything is deleted by it.
const installationFile = "installation"

// maxInstallation bounds the mark, in bytes.
const maxInstallation = 4 << 10

// mark is the contents of the file.
type mark struct {
	ID string `json:"id"`
	// Epoch grows with each start and each clean stop, in the metadata first.
	Epoch int64 `json:"epoch"`
}

// ErrLost means that the data directory was used before, and a part of it that
// nothing can replace is gone.
var ErrLost = errors.New("data lost")

// openStore opens the metadata of a data directory. It refuses to begin anew
// where there was an installation, and one whose parts do not belong together.
func openStore(ctx context.Context, cfg *config.Config, o Options) (*bolt.Store, []string, error) {
	m, err := readInstallation(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	evidence, err := earlierUse(cfg, m != nil)
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(cfg.DataDir, metaFile)
	st, err := bolt.Open(file, bolt.Options{MustExist: evidence != ""})
	switch {
	case errors.Is(err, meta.ErrLocked):
		return nil, nil, fmt.Errorf("data directory %s: %w: %w", cfg.DataDir, ErrRunning, err)
	case errors.Is(err, meta.ErrLost):
		return nil, nil, fmt.Errorf("%w: %w, but %s; restore a backup with 'snapd restore', or move %s away to begin anew", ErrLost, err, evidence, cfg.DataDir)
	case errors.Is(err, meta.ErrCorrupt):
		return nil, nil, fmt.Errorf("%w; restore a backup with 'snapd restore', or keep what can be read with 'snapd salvage'", err)
	case err != nil:
		return nil, nil, err
	}
	warnings, err := checkInstallation(ctx, cfg.DataDir, st, m, o.Now())
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	for _, w := range warnings {
		o.Log.Warn(w)
	}
	if err := st.Damage(); err != nil {
		o.Log.Error("the metadata is damaged (snapctl fsck --repair)", "err", err)
	}
	return st, warnings, nil
}

// readInstallation reads the mark; nil where there is none.
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
	if err := json.Unmarshal(data, &m); err != nil || m.ID == "" {
		// It says nothing any more, but somebody wrote it.
		return &mark{}, nil
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

// earlierUse names what shows that the data directory had metadata before; ""
// where nothing does. A key alone may have been made beforehand.
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
			return fmt.Sprintf("the signing key %s and the mark of an installation are there", cfg.Signing.KeyFile), nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// firstFile finds a file below a directory; "" where there is none.
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

// checkInstallation compares the mark with the metadata and begins a new epoch.
func checkInstallation(ctx context.Context, dir string, st meta.Installation, m *mark, now time.Time) (warnings []string, err error) {
	known, err := st.Identity(ctx)
	if errors.Is(err, meta.ErrCorrupt) {
		return nil, nil // reported as damage, and nothing is collected
	} else if err != nil {
		return nil, err
	}
	older := false
	switch {
	case m == nil || m.ID == "":
		m = &mark{ID: known.ID, Epoch: known.Epoch}
	case known.ID != "" && known.ID != m.ID:
		return nil, fmt.Errorf("data directory %s: the metadata is of installation %s, expected %s (%s): it was copied here from elsewhere",
			dir, known.ID, m.ID, filepath.Join(dir, installationFile))
	case known.Epoch < m.Epoch:
		older = true
		warnings = append(warnings, fmt.Sprintf("the metadata is older than the last run of snapd (epoch %d, expected %d): blobs that it does not know are kept", known.Epoch, m.Epoch))
	}
	if _, err := os.Stat(filepath.Join(dir, "blobs")); errors.Is(err, fs.ErrNotExist) && !known.Empty {
		return nil, fmt.Errorf("%w: %s has no directory blobs, but its metadata refers to blobs; mount it, or restore a backup with 'snapd restore'", ErrLost, dir)
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

// nextEpoch advances the epoch, in the metadata first: a crash between the two
// leaves metadata that is newer than the mark, which is no sign of a loss.
func nextEpoch(ctx context.Context, dir string, st meta.Installation, m *mark, knownSince time.Time) error {
	m.Epoch++
	err := st.SetEpoch(ctx, m.ID, m.Epoch, knownSince)
	if errors.Is(err, meta.ErrCorrupt) {
		return nil // reported as such; the epoch goes on when it is repaired
	} else if err != nil {
		return err
	}
	return writeInstallation(dir, *m)
}

// Salvage puts what can be read of the metadata into a new file, while snapd
// does not run. ErrRunning.
func Salvage(cfg *config.Config, o Options) (*api.SalvageResult, error) {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	kept, entries, err := bolt.Salvage(filepath.Join(cfg.DataDir, metaFile), now())
	if errors.Is(err, meta.ErrLocked) {
		return nil, fmt.Errorf("data directory %s: %w: %w", cfg.DataDir, ErrRunning, err)
	} else if err != nil {
		return nil, err
	}
	return &api.SalvageResult{Kept: kept, Entries: entries}, nil
}

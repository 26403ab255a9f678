package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/regfile"
)

// reportFile is the prefix of the reports of Salvage; a time follows.
const reportFile = metaFile + ".salvaged-"

// maxReport bounds a report, in bytes.
const maxReport = 1 << 20

// Salvage writes the readable metadata to a new file, and a report of the losses beside
// it. snapd must not be running. It may return ErrRunning and ErrLost.
func Salvage(cfg *config.Config, o Options) (*api.SalvageResult, error) {
	if cfg.Store.Postgres() != "" {
		return nil, backup.ErrInDatabase
	}
	if err := hasMetadata(cfg); err != nil {
		return nil, err
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	out := &api.SalvageResult{Time: now().UTC().Truncate(time.Second)}
	file := filepath.Join(cfg.DataDir, metaFile)
	done, err := bolt.Salvage(file, out.Time, func(s *bolt.Salvaged) error {
		out.Kept, out.Report = s.Kept, filepath.Join(cfg.DataDir, reportFile+out.Time.Format(meta.TimestampFormat)+".json")
		for _, name := range slices.Sorted(maps.Keys(s.Entries)) {
			out.Entries += s.Entries[name]
		}
		out.Expected, out.Buckets = lostEntries(s)
		data, err := json.MarshalIndent(out, "", "  ")
		if err != nil {
			return err
		}
		return durable.WriteFile(out.Report, append(data, '\n'), 0o600)
	})
	if errors.Is(err, meta.ErrLocked) {
		return nil, fmt.Errorf("data directory %s: %w: %w", cfg.DataDir, ErrRunning, err)
	} else if errors.Is(err, meta.ErrCorrupt) {
		return nil, fmt.Errorf("%w; restore a backup with 'snapd restore' (%s)", err, pageMetadata)
	} else if err != nil {
		return nil, err
	}
	out.Sound = done.Sound
	return out, nil
}

// lostEntries adds up how many entries there were, and lists the buckets that lost
// some or for which the number is unknown.
func lostEntries(s *bolt.Salvaged) (expected int, lost []api.SalvagedBucket) {
	for _, name := range bolt.Buckets() {
		b := api.SalvagedBucket{Name: name, Entries: s.Entries[name]}
		want, known := s.Expected[name]
		if !known {
			want = b.Entries
		} else {
			b.Expected = &want
		}
		expected += want
		if !known || b.Entries != want {
			lost = append(lost, b)
		}
	}
	return expected, lost
}

// salvaged describes the last salvage of a data directory, for warnings while the
// metadata is damaged; "" if there was none.
func salvaged(dir string) string {
	reports, err := filepath.Glob(filepath.Join(dir, reportFile+"*.json"))
	if err != nil || len(reports) == 0 {
		return ""
	}
	last := slices.Max(reports)
	var r api.SalvageResult
	data, err := regfile.Read(last, maxReport)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return fmt.Sprintf("the metadata was salvaged and is incomplete; the report cannot be read: %v", err)
	}
	least := ""
	if slices.ContainsFunc(r.Buckets, func(b api.SalvagedBucket) bool { return b.Expected == nil }) {
		least = "at least "
	}
	return fmt.Sprintf("the metadata was salvaged on %s and is incomplete: %d of %s%d entries were kept; the report is %s",
		r.Time.Format(time.DateOnly), r.Entries, least, r.Expected, last)
}

// hasMetadata returns ErrLost, with advice, if a data directory has no metadata file.
func hasMetadata(cfg *config.Config) error {
	state := "is empty"
	switch st, err := os.Stat(filepath.Join(cfg.DataDir, metaFile)); {
	case err == nil && (st.Size() > 0 || !st.Mode().IsRegular()):
		return nil
	case errors.Is(err, os.ErrNotExist):
		state = "does not exist"
	case err != nil:
		return err
	}
	m, err := readInstallation(cfg.DataDir)
	if err != nil {
		return err
	}
	evidence, err := earlierUse(cfg, m != nil)
	switch {
	case err != nil:
		return err
	case evidence == "":
		return fmt.Errorf("the metadata %s %s, and nothing shows that snapd has run with this data directory: check data_dir in the configuration",
			filepath.Join(cfg.DataDir, metaFile), state)
	}
	return fmt.Errorf("%w: the metadata %s %s, but %s: restore a backup with 'snapd restore'; without one, see %s",
		ErrLost, filepath.Join(cfg.DataDir, metaFile), state, evidence, pageMetadata)
}

// AcceptLostBlobs allows snapd to start although the metadata refers to blobs and the
// store has none. It returns ErrRunning if snapd is running.
func AcceptLostBlobs(ctx context.Context, cfg *config.Config) (*api.AcceptResult, error) {
	if !inDirectory(cfg) {
		return nil, fmt.Errorf("%w: store.blobs is %s: snapd starts without its objects", errclass.Usage, cfg.Store.Blobs)
	}
	if err := client.Local(cfg.Server.Socket).Call(ctx, "status", api.Empty{}, nil, nil); !errors.Is(err, client.ErrNoDaemon) {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, ErrRunning)
	}
	if cfg.Store.Postgres() == "" {
		if err := hasMetadata(cfg); err != nil {
			return nil, err
		}
	}
	out := &api.AcceptResult{DataDir: cfg.DataDir}
	var err error
	if out.Blob, err = firstFile(filepath.Join(cfg.DataDir, "blobs")); err != nil || out.Blob != "" {
		return out, err
	}
	m, err := readInstallation(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		m = &mark{}
	}
	m.BlobsLost, out.Accepted = true, true
	return out, writeInstallation(cfg.DataDir, *m)
}

package iuk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/regfile"
)

// journal is the plan of an upgrade. It is durable before the first change outside the
// state directory, and is removed after the last one.
type journal struct {
	Format int        `json:"format"`
	Kit    cas.Digest `json:"kit"`
	// Files are in the order of their installation. The index of a file is also its
	// name in the directories of new and old contents.
	Files []planned `json:"files"`
	Dirs  []string  `json:"dirs"` // directories to make, parents first
	Gone  []string  `json:"gone"` // paths to delete; the index is the name in the trash directory
	// Unchanged is the number of files left alone.
	Unchanged int `json:"unchanged"`
}

// planned is a file that an upgrade writes.
type planned struct {
	Path   string     `json:"path"`
	Size   int64      `json:"size"` // bytes
	SHA256 cas.Digest `json:"sha256"`
	Old    *version   `json:"old,omitempty"` // nil if the name is new
}

// version is the old content of a file.
type version struct {
	Size   int64      `json:"size"` // bytes
	SHA256 cas.Digest `json:"sha256"`
}

// slot is the path of file i in one of the state directories: only digits, so that
// FAT needs one directory entry.
func slot(dir string, i int) string { return dir + "/" + strconv.Itoa(i) }

// commitJournal makes the journal durable under its name. The journal ends with its
// own digest, since on FAT a rename does not prove the content.
func (d *disk) commitJournal(j *journal) error {
	j.Format = journalFormat
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	b = fmt.Appendf(b, "%x\n", sha256.Sum256(b))
	if len(b) > maxJournal {
		return fmt.Errorf("journal of %d bytes, expected at most %d", len(b), maxJournal)
	}
	tmp := journalFile + ".new"
	if _, err := d.write(context.Background(), tmp, bytes.NewReader(b), int64(len(b))); err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	if err := d.rename(tmp, journalFile); err != nil {
		return err
	}
	return d.sync()
}

// readJournal returns the journal, or nil if it does not exist.
func (d *disk) readJournal() (*journal, error) {
	f, err := regfile.OpenIn(d.root, journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJournal+1))
	if err != nil {
		return nil, err
	}
	j, err := parseJournal(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", journalFile, err, ErrJournal)
	}
	return j, nil
}

// parseJournal parses a journal. Others may have had access to the stick, so its paths
// are checked like a kit's.
func parseJournal(b []byte) (*journal, error) {
	if len(b) > maxJournal {
		return nil, fmt.Errorf("more than %d bytes", maxJournal)
	}
	const tail = 2*sha256.Size + 1
	if len(b) < tail || b[len(b)-1] != '\n' {
		return nil, fmt.Errorf("it ends early")
	}
	body, want := b[:len(b)-tail], string(b[len(b)-tail:len(b)-1])
	sum := sha256.Sum256(body)
	if got := hex.EncodeToString(sum[:]); got != want {
		return nil, fmt.Errorf("expected SHA-256 %.64q, found %s", want, got)
	}
	var j journal
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, err
	}
	if j.Format != journalFormat {
		return nil, fmt.Errorf("format: expected %d, found %d", journalFormat, j.Format)
	}
	for i, f := range j.Files {
		if err := checkPath(f.Path); err != nil {
			return nil, err
		}
		if f.Size < 0 || f.Old != nil && f.Old.Size < 0 {
			return nil, fmt.Errorf("%s: negative size", f.Path)
		}
		if fold(f.Path) == fold(baseImage) || f.Path == moduleFile && i != len(j.Files)-1 {
			return nil, fmt.Errorf("a kit must not replace %s", f.Path)
		}
	}
	for _, p := range append(append([]string(nil), j.Dirs...), j.Gone...) {
		if err := checkPath(p); err != nil {
			return nil, err
		}
		for q := baseImage; q != "."; q = path.Dir(q) {
			if fold(p) == fold(q) {
				return nil, fmt.Errorf("a kit must not delete %s", p)
			}
		}
	}
	return &j, nil
}

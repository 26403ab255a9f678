// Package backup copies an installation to a directory and back.
//
// A backup contains one consistent state: metadata as seen by one read transaction, every
// blob that this metadata can refer to, the signing key and the mark of the installation.
//
//	backup.json               what is in the backup; written last: without it the backup is incomplete
//	snapd-backup              says that the directory is a backup, and of which installation; written first
//	state-<time>/meta.db      the metadata
//	state-<time>/…            the signing key, the mark of the installation
//	state-<time>/SHA256SUMS   every file of the backup, as sha256sum --check reads it
//	blobs/ab/abcdef…          the blobs, as in a data directory
//
// The next backup to the directory adds new blobs and a new state. Then it
// replaces backup.json, and only after that deletes the old state and the blobs
// that no longer belong to the backup. So an interruption at any point leaves
// either the old backup or the new one.
package backup

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/regfile"
)

var (
	// ErrInDatabase means that the metadata is in a database, and not in a file of this
	// machine.
	ErrInDatabase = errclass.New(errclass.Usage, "the metadata is in PostgreSQL: back up the database with its tools (pg_dump, pg_basebackup), and the data directory besides")
	// ErrDirectory means that a directory cannot be used: it contains other files, or is
	// in an unsuitable place.
	ErrDirectory = errclass.New(errclass.Conflict, "directory refused")
	// ErrNoBackup means that a directory is not a backup.
	ErrNoBackup = errclass.New(errclass.NotFound, "no backup")
	// ErrIncomplete means that a backup was started and not completed.
	ErrIncomplete = errclass.New(errclass.NotFound, "backup is incomplete")
	// ErrFormat means that a newer snapd made the backup.
	ErrFormat = errclass.New(errclass.Unavailable, "backup has a newer format")
	// ErrDamaged means that files of a backup do not have their digests.
	ErrDamaged = errclass.New(errclass.Security, "backup is damaged")
	// ErrNoSpace means that there is too little space for the copy.
	ErrNoSpace = errclass.New(errclass.Transient, "not enough space")
	// ErrBusy means that another backup or restore uses the directory.
	ErrBusy = errclass.New(errclass.Conflict, "in use by another backup or restore")
)

// Format is the newest format that this program reads, and the one it writes.
const Format = 1

// Names in a backup.
const (
	documentName = "backup.json"
	markName     = "snapd-backup"
	sumsName     = "SHA256SUMS"
	metaName     = "meta.db"
	keyName      = "signing-key.asc"
	logKeyName   = "log-key"
	blobsName    = "blobs"
)

// InstallationFile is the mark of an installation in its data directory.
const InstallationFile = "installation"

// stateRE matches the names of states.
var stateRE = lazyregexp.New(`^state-[0-9]{8}T[0-9]{6}Z(-[0-9]{1,3})?$`)

// maxDocument bounds backup.json, in bytes. It lists each missing blob.
const maxDocument = 64 << 20

// maxSmall bounds the signing key and the mark of the installation, in bytes.
const maxSmall = 1 << 20

// document is backup.json.
type document struct {
	Format       int       `json:"format"`
	Version      string    `json:"snapd"` // version of the program that made the backup
	Time         time.Time `json:"time"`  // of the metadata
	Installation string    `json:"installation"`
	State        string    `json:"state"` // name of the directory
	Files        []file    `json:"files"` // in State
	Blobs        int64     `json:"blobs"`
	Bytes        int64     `json:"bytes"`             // total size of the blobs
	Missing      []string  `json:"missing,omitempty"` // blobs that the metadata needs and the installation did not have
}

// file is one file of a state.
type file struct {
	Name   string     `json:"name"`
	Size   int64      `json:"size"`
	SHA256 cas.Digest `json:"sha256"`
}

// mark is the file that marks a directory as a backup.
type mark struct {
	Format       int    `json:"format"`
	Installation string `json:"installation"`
}

// file returns a file of the state.
func (d *document) file(name string) (file, bool) {
	i := slices.IndexFunc(d.Files, func(f file) bool { return f.Name == name })
	if i < 0 {
		return file{}, false
	}
	return d.Files[i], true
}

// readDocument reads backup.json. ErrNoBackup, ErrIncomplete, ErrFormat, ErrDamaged.
func readDocument(root *os.Root) (*document, error) {
	data, err := regfile.ReadIn(root, documentName, maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := root.Lstat(markName); err == nil {
			return nil, fmt.Errorf("%s: %w: it has no %s", root.Name(), ErrIncomplete, documentName)
		}
		return nil, fmt.Errorf("%w in %s: it has no %s", ErrNoBackup, root.Name(), documentName)
	} else if err != nil {
		return nil, err
	}
	// Check the format first: a newer one may have other fields.
	var m mark
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrDamaged, root.Name(), documentName, err)
	}
	if m.Format > Format {
		return nil, fmt.Errorf("%s: %w: format %d, expected at most %d", root.Name(), ErrFormat, m.Format, Format)
	}
	d := new(document)
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrDamaged, root.Name(), documentName, err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrDamaged, root.Name(), documentName, err)
	}
	return d, nil
}

func (d *document) check() error {
	if d.Format < 1 {
		return fmt.Errorf("format %d, expected 1 to %d", d.Format, Format)
	}
	if !stateRE().MatchString(d.State) {
		return fmt.Errorf("state %q: expected a name like state-20261122T160000Z", d.State)
	}
	for _, name := range []string{metaName, keyName, sumsName} {
		if _, ok := d.file(name); !ok {
			return fmt.Errorf("no file %s", name)
		}
	}
	for _, f := range d.Files {
		if !slices.Contains([]string{metaName, keyName, logKeyName, sumsName, InstallationFile}, f.Name) {
			return fmt.Errorf("unexpected file %q", f.Name)
		}
		if f.Size < 0 || f.SHA256.IsZero() {
			return fmt.Errorf("file %s: size %d, SHA-256 %q", f.Name, f.Size, f.SHA256)
		}
	}
	return nil
}

// readMark reads the mark of a backup. fs.ErrNotExist.
func readMark(root *os.Root) (*mark, error) {
	data, err := regfile.ReadIn(root, markName, 1<<16)
	if err != nil {
		return nil, err
	}
	m := new(mark)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrDamaged, root.Name(), markName, err)
	}
	if m.Format > Format {
		return nil, fmt.Errorf("%s: %w: format %d, expected at most %d", root.Name(), ErrFormat, m.Format, Format)
	}
	return m, nil
}

// sumLine is one line of SHA256SUMS.
func sumLine(d cas.Digest, name string) string { return d.String() + "  " + name + "\n" }

// eachBlob calls f for each blob in SHA256SUMS, in the order of the file.
func eachBlob(r io.Reader, f func(cas.Digest) error) error {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		hex, name, ok := strings.Cut(lines.Text(), "  ")
		d, err := cas.ParseDigest(hex)
		if !ok || err != nil {
			return fmt.Errorf("%w: %s: line %d: expected a SHA-256 and a name", ErrDamaged, sumsName, n)
		}
		if !strings.HasPrefix(name, blobsName+"/") {
			continue // a file of the state, which backup.json lists
		}
		if name != casdir.Name(d) {
			return fmt.Errorf("%w: %s: line %d: %q, expected %q", ErrDamaged, sumsName, n, name, casdir.Name(d))
		}
		if err := f(d); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", sumsName, err)
	}
	return nil
}

// inState returns the path of a file of a state.
func inState(state, name string) string { return path.Join(state, name) }

package meta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Dumper reads the contents of a store, in a form that does not depend on the engine. A
// dump does not contain leases, the nodes of a cluster and their changes, the index of
// objects, which belongs to a blob store, and the notes that Dumped excludes.
type Dumper interface {
	// Dump calls f for each row of one committed state. A row and its bytes are valid
	// until f returns. The names of mirrors, suites and indices come first. The facts and
	// blocks of stanzas of a mirror come together, in the order of their numbers, and
	// before its spans. ErrCorrupt.
	Dump(ctx context.Context, f func(*Row) error) error
}

// Loader loads the contents of another store.
type Loader interface {
	// Load replaces everything that Dump lists with the contents of from, which it may
	// read more than once. Until Load returns without an error, the store may be
	// incomplete; then call Load again.
	Load(ctx context.Context, from Dumper) error
}

// Dumped reports whether a note belongs to a dump. The other notes are about one store:
// its identity and its condition.
func Dumped(note string) bool {
	return !slices.Contains([]string{"installation.id", "installation.epoch", "clean", "torn", "known-since", MigratingNote}, note)
}

// MigratingNote is the name of a note of a store into which another store is being
// copied. No daemon uses the store until the copy is complete and the note is empty.
const MigratingNote = "migrating"

// Table is the table of a row.
type Table byte

// The tables, and the fields of their rows. Doc is the JSON of the type in brackets,
// unless the comment says otherwise.
const (
	RowNote         Table = iota // Name, Doc: the value
	RowMirror                    // Mirror
	RowSuite                     // Mirror, Suite
	RowIndex                     // Mirror, Suite, Index, Dirty
	RowSnapshot                  // Mirror, At, Doc (Snapshot)
	RowRemoved                   // Mirror, At
	RowCheck                     // Mirror, Doc (Check)
	RowGeneration                // Mirror, Suite, Gen, Doc (Generation)
	RowGenRef                    // Mirror, Suite, Gen, Kind, Name: the owner, or At: the timestamp of the snapshot
	RowGenCandidate              // Mirror, Suite, Gen
	RowFact                      // Mirror, PID, Block, Doc: as package compact encodes it
	RowBlock                     // Mirror, Block, Size: facts that are left, Doc: as package compact encodes it
	RowSpan                      // Mirror, Suite, Index, PID, Intervals
	RowListed                    // Mirror, Suite, Digest, Path, Size, Gen: the first, Last
	RowPath                      // Mirror, Suite, Path, Digest, At: since when
	RowRef                       // Digest, Kind, Name: the owner; Mirror, Suite, Gen for OwnerGen; without references of packages
	RowCandidate                 // Digest, At: 0 is at once
	RowAlias                     // Kind: algorithm, Doc: the other digest, Digest
	RowFreeze                    // Name, Doc (Frozen)
	RowTombstone                 // Name, Doc (Tombstone)
	RowNode                      // Name, Path, Digest, Size, At: modification
	RowImage                     // Name, Path: variant, Doc (Image)
	RowKit                       // Path, Doc (Kit)
	RowRecording                 // Name, Doc (Recording)
	RowFetch                     // Name, Mirror, Path, Digest, Doc (RecordEntry)
	RowCorrupt                   // Digest, Doc (CorruptBlob)
	RowChannel                   // Name, Doc (Channel)
	RowMove                      // Name, At, Doc (ChannelMove)
	RowToken                     // Name, Doc (Token)
	RowAudit                     // At: number, Doc (AuditEntry)
	RowLogHead                   // Doc (LogHead)
	RowLogTile                   // Size: level, At: number, Doc: the tile
	RowLogName                   // Name, At: number of the entry
	RowLogPending                // Name, Doc: the entry
	RowEvent                     // At: number, Doc (Event)
	RowEventNumber               // At: the highest number of an event that was assigned
	RowDelivery                  // Name: webhook, At: number of the event, Kind: 1 if it is pending, Doc (Delivery)
	rowTables
)

var tableNames = [rowTables]string{
	"notes", "mirrors", "suites", "indices", "snapshots", "removed snapshots", "checks", "generations", "references to generations", "candidates among generations",
	"facts", "stanzas", "spans", "listed digests", "paths", "references to blobs", "collection candidates", "other digests", "freezes", "tombstones", "frozen trees", "images", "kits",
	"recordings", "fetches", "corrupt blobs", "channels", "moves of channels", "tokens", "audit list", "head of the log", "tiles of the log", "names in the log", "pending entries of the log",
	"events", "numbers of events", "deliveries",
}

func (t Table) String() string {
	if t >= rowTables {
		return fmt.Sprintf("table %d", byte(t))
	}
	return tableNames[t]
}

// Row is one row of a dump.
type Row struct {
	Table  Table
	Mirror MirrorName
	Suite  repo.SuiteName
	Index  string
	// Gen and Last are generations of the suite.
	Gen, Last uint32
	// PID is the number of a stanza within its mirror, from 1 on. Block is the number of
	// the first stanza of a block.
	PID, Block PID
	Intervals  []Interval
	Name, Path string
	Digest     cas.Digest
	Kind       byte
	Dirty      bool
	At, Size   int64
	Doc        []byte
}

// Clone returns a copy that stays valid.
func (r *Row) Clone() *Row {
	c := *r
	c.Doc, c.Intervals = bytes.Clone(r.Doc), slices.Clone(r.Intervals)
	return &c
}

// bytes appends all fields, so that no two rows have equal bytes.
func (r *Row) bytes(b []byte) []byte {
	b = append(b, byte(r.Table), r.Kind, 0)
	if r.Dirty {
		b[len(b)-1] = 1
	}
	for _, s := range []string{string(r.Mirror), string(r.Suite), r.Index, r.Name, r.Path} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = append(b, r.Digest[:]...)
	for _, n := range []uint64{uint64(r.Gen), uint64(r.Last), uint64(r.PID), uint64(r.Block), uint64(r.At), uint64(r.Size), uint64(len(r.Intervals))} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, iv := range r.Intervals {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, iv.From), iv.To)
	}
	return append(b, r.Doc...)
}

// Sum describes the rows of a table, independently of their order.
type Sum struct {
	Rows int64
	hash [4]uint64 // sum of their SHA-256, by words
}

// Sums describes a dump, table by table.
type Sums [rowTables]Sum

// SumDump reads a whole dump. It calls count, which may be nil, for each row.
func SumDump(ctx context.Context, d Dumper, count func()) (*Sums, error) {
	s := new(Sums)
	var buf []byte
	err := d.Dump(ctx, func(r *Row) error {
		if r.Table >= rowTables {
			return fmt.Errorf("dump: unknown %v", r.Table)
		}
		buf = r.bytes(buf[:0])
		h := sha256.Sum256(buf)
		t := &s[r.Table]
		t.Rows++
		for i := range t.hash {
			t.hash[i] += binary.BigEndian.Uint64(h[8*i:])
		}
		if count != nil {
			count()
		}
		return ctx.Err()
	})
	return s, err
}

// Rows is the number of all rows.
func (s *Sums) Rows() (n int64) {
	for i := range s {
		n += s[i].Rows
	}
	return n
}

// Differences describes the tables in which a dump differs from another one.
func (s *Sums) Differences(want *Sums) (out []string) {
	for i := range s {
		switch t := Table(i); {
		case s[i].Rows != want[i].Rows:
			out = append(out, fmt.Sprintf("%v: %d rows, expected %d", t, s[i].Rows, want[i].Rows))
		case s[i] != want[i]:
			out = append(out, fmt.Sprintf("%v: other contents in %d rows than in the original", t, s[i].Rows))
		}
	}
	return out
}

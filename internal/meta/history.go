package meta

import (
	"context"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// History answers the questions of freezes, comparisons and searches about the packages
// of current and earlier snapshots. Each method answers from one committed state, unless
// it says otherwise. A method that takes a list returns one of the same length and order,
// so that a page of questions is one round trip.
type History interface {
	// PackagesByName lists, for each name, the packages in a snapshot that have it,
	// including source packages, in the order in which their stanzas arrived. The list of
	// a name without packages is empty.
	PackagesByName(ctx context.Context, s *Snapshot, names []string) ([][]Entry, error)
	// PackagesByDigest lists, for each digest, the packages of a snapshot that have
	// a file with it.
	PackagesByDigest(ctx context.Context, s *Snapshot, digests []cas.Digest) ([][]Entry, error)
	// PackagesByPath finds, for each path, the package in a snapshot that has a file
	// there. If no package has, its Fact is nil.
	PackagesByPath(ctx context.Context, s *Snapshot, paths []string) ([]PathEntry, error)
	// UnusablePackages lists the stanzas of a snapshot that no client can install
	// (repo.KindUnusable), in pages as Writer.Packages lists the others.
	UnusablePackages(ctx context.Context, s *Snapshot, after []byte, limit int) (page []Entry, next []byte, err error)
	// FactsByName lists, for each name, every stanza that a mirror has or had with it.
	FactsByName(ctx context.Context, mirror MirrorName, names []string) ([][]*Fact, error)
	// SourceNames lists, in byte order, at most limit names of source packages after the
	// name after (empty: from the start): of those of which a mirror has or had the
	// stanza, or a package that was built from it.
	SourceNames(ctx context.Context, mirror MirrorName, after string, limit int) ([]string, error)
	// PackageNames lists, in byte order, at most limit package names of a mirror's
	// history that begin with prefix and follow the name after (empty: from the start).
	PackageNames(ctx context.Context, mirror MirrorName, prefix, after string, limit int) ([]string, error)
	// FactsBySource lists, for each name of a source package, the stanzas that a mirror
	// has or had of it and of the packages that were built from it, in the order of
	// arrival.
	FactsBySource(ctx context.Context, mirror MirrorName, names []string) ([][]*Fact, error)
	// Presences returns, for each stanza, where it is and was present.
	Presences(ctx context.Context, stanzas []PID) ([][]Presence, error)
	// FactsByStanza finds the facts of stanzas that a mirror has or had, even if
	// no snapshot contains them; nil if a stanza is unknown.
	FactsByStanza(ctx context.Context, mirror MirrorName, keys []StanzaKey) ([]*Fact, error)
	// OwnersOf lists, for each digest, the packages of any mirror that have or had a
	// file with it.
	OwnersOf(ctx context.Context, digests []cas.Digest) ([][]OwnedFact, error)
	// NewestWith returns, for each list of stanzas, the newest snapshot of a mirror that
	// contains any of them, or nil. It reads in transactions of limited size.
	NewestWith(ctx context.Context, mirror MirrorName, stanzas [][]PID) ([]*Snapshot, error)
	// Stanzas returns upstream's bytes of stanzas. ErrNotFound names the first missing
	// one.
	Stanzas(ctx context.Context, pids []PID) ([][]byte, error)
	// Differences lists the stanzas in only one of two generations of a suite, by
	// index, at a cost proportional to the difference. ErrNotFound if the suite is
	// unknown.
	Differences(ctx context.Context, mirror MirrorName, suite repo.SuiteName, from, to uint32) ([]Difference, error)
	// CountDifferences counts, up to a limit, the stanzas whose presence in an index began
	// or ended between two generations of a suite: at least as many as Differences lists.
	// Its cost grows with the limit only. ErrNotFound if the suite is unknown.
	CountDifferences(ctx context.Context, mirror MirrorName, suite repo.SuiteName, from, to uint32, limit int) (int, error)
	// Versions lists, for each name, every stanza that a mirror has or had with it, and
	// where the stanza is and was present.
	Versions(ctx context.Context, mirror MirrorName, names []string) ([][]Version, error)
	// RecordingEntries lists the files that were fetched through a recording, by
	// mirror and path. ErrNotFound.
	RecordingEntries(ctx context.Context, name string) ([]RecordEntry, error)
	// RecordingTotals returns the number and the bytes of the files that were fetched
	// through each recording: 0 for a recording that does not exist.
	RecordingTotals(ctx context.Context, names []string) ([]RecordingTotal, error)
	// TreeFiles lists, by path, at most limit files of a frozen tree whose paths begin
	// with prefix, after the path after (empty: from the start).
	TreeFiles(ctx context.Context, name FreezeName, prefix, after string, limit int) ([]Node, error)
	// TreeFaults compares the tree of a freeze with its listing, in transactions of
	// limited size. Statements may be added and removed; they are compared with the
	// record of the freeze. ErrNotFound if the freeze is removed in the meantime.
	TreeFaults(ctx context.Context, name FreezeName, listed []Node) ([]TreeFault, error)
}

// RecordingTotal is what was fetched through a recording.
type RecordingTotal struct {
	Files int
	Bytes int64
}

// PathEntry is a package in a snapshot that was found by the path of a file.
type PathEntry struct {
	Entry
	File repo.File
}

// StanzaKey names a stanza by its content.
type StanzaKey struct {
	Name   string   // of the package
	Digest [16]byte // Fact.Digest
}

// OwnedFact is a stanza and the mirror that has it.
type OwnedFact struct {
	*Fact
	Mirror MirrorName
}

// Difference is a stanza that is present in one of two generations.
type Difference struct {
	*Fact
	Index string
	Added bool // present in the later one
}

// Version is a stanza and where it is and was present.
type Version struct {
	*Fact
	Presences []Presence
	// Frozen names the freezes that refer to files of the package directly, not through
	// the generations of a whole mirror.
	Frozen []string
}

// Presence says in which generations of an index a stanza is present.
type Presence struct {
	Place
	Intervals []Interval
}

// Has reports whether a snapshot of the version's mirror contains it.
func (v *Version) Has(s *Snapshot) bool {
	for _, p := range v.Presences {
		if p.In(s) {
			return true
		}
	}
	return false
}

// In reports whether the stanza is present in the index in a snapshot.
func (p *Presence) In(s *Snapshot) bool {
	gen, ok := s.Gen(p.Suite)
	return ok && inIntervals(p.Intervals, gen)
}

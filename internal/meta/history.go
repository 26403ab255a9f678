package meta

import (
	"context"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// History is what freezing, comparing and finding read: the packages of snapshots
// and of the past. Each method answers from one committed state, unless it says
// otherwise. A method that takes a list returns one of the same length and order,
// so that a page of questions is one round trip.
type History interface {
	// PackagesByName lists, for each name, the packages of a snapshot that have it,
	// source packages included, in the order in which their stanzas came. A name
	// that no package has gets an empty list.
	PackagesByName(ctx context.Context, s *Snapshot, names []string) ([][]Entry, error)
	// PackagesByDigest lists, for each digest, the packages of a snapshot that have
	// a file with it.
	PackagesByDigest(ctx context.Context, s *Snapshot, digests []cas.Digest) ([][]Entry, error)
	// PackagesByPath finds, for each path, the package of a snapshot that has a
	// file there; one with a nil Fact where there is none.
	PackagesByPath(ctx context.Context, s *Snapshot, paths []string) ([]PathEntry, error)
	// UnusablePackages lists the stanzas of a snapshot that no client can install
	// (repo.KindUnusable), in pages as Writer.Packages lists the others.
	UnusablePackages(ctx context.Context, s *Snapshot, after []byte, limit int) (page []Entry, next []byte, err error)
	// FactsByName lists, for each name, every stanza that a mirror has or had under
	// it.
	FactsByName(ctx context.Context, mirror string, names []string) ([][]*Fact, error)
	// FactsByStanza finds what is known of stanzas that a mirror has or had, in or
	// out of snapshots; nil where it is not known.
	FactsByStanza(ctx context.Context, mirror string, keys []StanzaKey) ([]*Fact, error)
	// OwnersOf lists, for each digest, the packages of any mirror that have or had a
	// file with it.
	OwnersOf(ctx context.Context, digests []cas.Digest) ([][]OwnedFact, error)
	// NewestWith returns, for each list of stanzas, the newest snapshot of a mirror
	// that has any of them; nil where there is none. It reads in bounded
	// transactions.
	NewestWith(ctx context.Context, mirror string, stanzas [][]PID) ([]*Snapshot, error)
	// Stanzas returns upstream's bytes of stanzas. ErrNotFound names the first that
	// is not there.
	Stanzas(ctx context.Context, pids []PID) ([][]byte, error)
	// Differences lists what is present in only one of two generations of a suite,
	// by index, at a cost that follows the difference. ErrNotFound where the suite
	// is not known.
	Differences(ctx context.Context, mirror string, suite repo.SuiteName, from, to uint32) ([]Difference, error)
	// Versions lists every stanza that a mirror has or had under a name, with where
	// it is and was.
	Versions(ctx context.Context, mirror, name string) ([]Version, error)
	// RecordingEntries lists the files that were fetched through a recording, by
	// mirror and path. ErrNotFound.
	RecordingEntries(ctx context.Context, name string) ([]RecordEntry, error)
	// TreeFiles lists the files of a frozen tree whose paths begin with prefix, by
	// path, after the path after (empty: from the start), at most limit.
	TreeFiles(ctx context.Context, name, prefix, after string, limit int) ([]Node, error)
	// TreeFaults compares the tree of a freeze with its listing, in bounded
	// transactions: a freeze never changes but for statements, which are compared
	// with its record. ErrNotFound where it is removed meanwhile.
	TreeFaults(ctx context.Context, name string, listed []Node) ([]TreeFault, error)
}

// PathEntry is a package of a snapshot that was found by the path of a file.
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
	Mirror string
}

// Difference is a stanza that is present in one of two generations.
type Difference struct {
	*Fact
	Index string
	Added bool // present in the later one
}

// Version is a stanza with where it is and was present.
type Version struct {
	*Fact
	Presences []Presence
	// Frozen names the freezes that hold files of the package by themselves, not
	// through the generations of a whole mirror.
	Frozen []string
}

// Presence tells in which generations of an index a stanza is present.
type Presence struct {
	Place
	Intervals []Interval
}

// Has reports whether a snapshot of the version's mirror has it.
func (v *Version) Has(s *Snapshot) bool {
	for _, p := range v.Presences {
		if gen, ok := s.Gen(p.Suite); ok && inIntervals(p.Intervals, gen) {
			return true
		}
	}
	return false
}

// Package bolt keeps the metadata of one data directory in a bbolt file. It is the
// only package that knows bbolt.
//
// # Model
//
// Cost follows change, not size. Each new signed root of a suite is a
// generation, numbered in order of arrival; a snapshot is a timestamp and the
// generation that each suite had. The facts of a package stanza are stored
// once; a span says in which generations of which index it is present, as
// half-open intervals. Upstream's stanzas themselves are kept in compressed
// blocks, so that a derived index copies them without reading whole indices.
//
//	ids        string            -> u32           mirrors, suites and indices get numbers
//	snapshot   mirror, timestamp   -> JSON Snapshot
//	gone       mirror, timestamp   -> -             removed snapshots (HTTP 410)
//	gen        suite, gen        -> JSON Generation
//	genref     suite, gen, owner -> -             who needs a generation: snapshots, freezes, recordings
//	fact       pid               -> binary Fact
//	para       first pid         -> block of stanzas
//	live       index, para digest-> pid           what the newest generation has
//	span       pid, index        -> intervals of generations
//	began      suite, gen, index, pid -> -        which spans began where, for diff
//	ended      suite, gen, index, pid -> -        which spans ended where, for diff and gc
//	name       mirror, name, pid -> -
//	source     mirror, name of the source package, pid -> -
//	path       mirror, path, pid -> file number
//	ref        digest, owner     -> -             who needs a blob
//	suspect    digest            -> -             blobs that lost a reference, for gc
//	listed     suite, digest     -> what a root lists under by-hash
//	lpath      suite, path       -> digest and the timestamp it appeared, for `latest`
//	alias      algorithm, digest -> SHA-256
//	other      algorithm, SHA-256 -> digest      alias, the other way
//	frozen     name              -> JSON Frozen
//	tombstone  name              -> JSON Tombstone of a removed freeze
//	ftree      name, path        -> digest, size, time
//	channel    name              -> JSON Channel
//	moves      channel, time     -> JSON ChannelMove
//	event      number            -> JSON Event
//	delivery   state, webhook, number of the event -> JSON Delivery
//	recording  name              -> JSON Recording
//	rentry     name, mirror, path, digest -> JSON RecordEntry
//	rotten     digest            -> JSON Corrupt
//
// # Damage
//
// Every value carries a checksum, and the bucket "sums" has a count, a hash and
// the sequence number of each bucket, since a lost key is invisible to checksums:
// a lost reference would read as "unreferenced". Open and Verify read all pages
// and compare; what a transaction meets on its way is ErrCorrupt.
//
// # Collection
//
// A collection removes a blob inside the write transaction that finds no
// reference to it, and not while a batch holds it. So a reference is either
// committed before that transaction, which then finds it, or its writer still
// holds the blob. The writer learns whether the blob is there after it holds it:
// if a collection was first, the blob is missing and is written again or brought
// back. A blob that was written or found without a reference is a candidate from
// before it has its name, so that a writer that dies leaves it to the next
// collection; fsck and scrub find those that are no candidates.
//
// References to package files are made when facts are staged, before anybody
// looks for the files, and last for as long as a generation has the package.
// Holds exist in one process, which is enough while one process owns the data
// directory. A store that several nodes share needs the state of a blob in its
// metadata in their place: the transaction that adds a reference locks the
// blob's row and checks its state, and writes the blob again if it was claimed.
//
// # Staging
//
// A generation is staged in bounded transactions before it is sealed: spans
// already name its number, and no reader looks at a number that no snapshot
// has. A staging that is interrupted is mended by the next one, which compares
// with what is live and reads again every index marked dirty.
package bolt

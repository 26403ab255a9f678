// Package bolt keeps the metadata of one data directory in a bbolt file. It is the
// only package that knows bbolt.
//
// # Model
//
// The metadata grows with what changes, not with the size of a suite. Each new signed
// Release or repomd.xml of a suite is a generation, numbered in order of arrival. A
// snapshot is a timestamp and the generation of each suite at that time. The facts of a
// stanza are stored once; a span says in which generations of which index the stanza is
// present, as half-open intervals. Upstream's bytes of the stanzas are kept in compressed
// blocks, so that a derived index copies them without reading whole indices.
//
//	ids        string            -> u32           mirrors, suites and indices get numbers
//	snapshot   mirror, timestamp   -> JSON Snapshot
//	gone       mirror, timestamp   -> -             removed snapshots (HTTP 410)
//	gen        suite, gen        -> JSON Generation
//	genref     suite, gen, owner -> -             what refers to a generation: snapshots, freezes, recordings
//	fact       pid               -> binary Fact
//	para       first pid         -> block of stanzas
//	live       index, para digest-> pid           the stanzas of the newest generation
//	span       pid, index        -> intervals of generations
//	began      suite, gen, index, pid -> -        which spans began where, for diff
//	ended      suite, gen, index, pid -> -        which spans ended where, for diff and gc
//	name       mirror, name, pid -> -
//	source     mirror, name of the source package, pid -> -
//	path       mirror, path, pid -> file number
//	ref        digest, owner     -> -             what refers to a blob
//	suspect    digest            -> -             collection candidates
//	listed     suite, digest     -> what a Release lists, for by-hash
//	lpath      suite, path       -> digest and the timestamp it appeared, for `latest`
//	alias      algorithm, digest -> SHA-256
//	other      algorithm, SHA-256 -> digest      the reverse of alias
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
// Every value carries a checksum. A lost key is invisible to checksums, and a lost
// reference would read as "unreferenced". So the bucket "sums" contains a count, a hash
// and the sequence number of each bucket. Open and Verify read all pages and compare them
// with the sums; a transaction that meets damage returns ErrCorrupt.
//
// # Collection
//
// A collection deletes a blob in two phases, as package gc describes: a transaction
// claims the candidates that have no reference, the collector removes them from the blob
// store outside of any transaction, and another transaction forgets them. A reference
// that is added in the meantime ends the claim. The collector asks whether a blob is
// still claimed while no batch holds it and none can start to. So a reference is either
// committed before that question, which then finds it, or its writer does not hold the
// blob yet. The writer checks that the blob exists only after it holds it: if the
// collection was first, the blob is missing, and the writer stores or restores it.
//
// A blob without a reference becomes a candidate before it gets its name, so that a
// writer that dies leaves it to the next collection. Fsck and scrub find unreferenced
// blobs that are not candidates.
//
// References to package files are added when facts are staged, before the files are
// looked for, and last for as long as a generation contains the package. Holds exist in
// one process, which is enough while one process owns the data directory. If several
// nodes share the metadata, as in package postgres, a transaction that adds a reference
// locks the row of the blob and ends the claim, and the collector restores a blob that it
// removed too early.
//
// # Staging
//
// A generation is staged in bounded transactions before it is sealed. Spans already
// contain its number, but readers look only at numbers that a snapshot contains. If a
// staging is interrupted, the next one corrects what it left: it compares with the live
// stanzas, and reads every index again that is marked dirty.
package bolt

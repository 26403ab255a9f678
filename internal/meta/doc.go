// Package meta defines snapd's metadata: which snapshots exist, which stanzas each of
// them contained, what was frozen, and which blobs are referenced by what. It contains
// the types, errors and interfaces; the engines that store the metadata are packages
// below it.
//
// # Invariants
//
// The code of snapd refers to these by number.
//
//  1. Blobs are durable before metadata names them; metadata is committed
//     before a snapshot is signed; a signature is checked before the published
//     pointer moves. Readers use the reverse order. Deletion unpublishes first,
//     drops the reference next, the blob last.
//  2. Blobs, snapshots and freezes never change. Writing one again with equal
//     bytes succeeds; with others it is an error. A removed name leaves a
//     tombstone.
//  3. Every byte from outside is verified against a signed or recorded digest
//     before it is parsed, stored under its name, or completed to a client.
//  4. Equal inputs give equal bytes: no clock, map order, locale, umask, path
//     or core count reaches an artefact. Time is a parameter.
//  5. Nothing incomplete is visible: a snapshot appears at once and whole, or
//     not at all.
//  6. What snapd accepts, real clients accept: a Release file, signature or index
//     that apt, gpgv or dnf would refuse is refused by the sync, not served.
//     Signatures by keys that have expired since are judged at the Release's
//     Date, with a warning.
//  7. No network, blob or disk I/O and no unbounded work happens inside a
//     metadata transaction, and a function passed to a transaction may run more
//     than once.
//  8. A failed query is never an answer: "not found" only if the store
//     said so.
package meta

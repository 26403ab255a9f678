// Package postgres keeps metadata in a PostgreSQL database that several nodes
// share. It is the only package that knows PostgreSQL.
//
// # Model
//
// The model is that of package bolt, as relations: migrations/*.sql has the tables.
// Stanzas are numbered within their mirror, whose number is above bit 40 of a PID,
// so that a number alone leads to one partition. Snapshots, generations, freezes
// and recordings are JSON documents, as in package bolt.
//
// # Transactions
//
// A method that writes runs one or several transactions at READ COMMITTED. Each
// first locks the rows of its leases (fencing), so that a takeover waits for it, and
// is run again from the start after a deadlock or a serialization failure. A commit
// whose answer is lost is looked up by the number of its transaction. Methods that
// read with more than one statement do so at REPEATABLE READ.
//
// At READ COMMITTED each statement sees what was committed before it began, so
// what must not change between two statements is locked by the first:
//
//   - A reference to a blob locks the blob's row and ends a claim; a claim locks the
//     row and looks for references in a new statement.
//   - A reference to a generation locks the generation's row, and so does its
//     collection.
//   - What is done with the name of a freeze or recording holds an advisory lock of
//     that name until the transaction ends.
//
// # Changes
//
// Whatever becomes visible or disappears adds a row to the table change, numbered in
// the order of commits: a lock is held from the number to the commit.
package postgres

// Package postgres keeps metadata in a PostgreSQL database that several nodes
// share. It is the only package that knows PostgreSQL.
//
// # Model
//
// The model is that of package bolt, as tables: see migrations/*.sql. Stanzas are
// numbered within their mirror. The number of the mirror is above bit 40 of a PID, so
// that a PID alone leads to one partition. Snapshots, generations, freezes and recordings
// are JSON documents, as in package bolt.
//
// # Transactions
//
// A method that writes runs one or several transactions at READ COMMITTED. Each first
// locks the rows of its leases (fencing), so that a takeover waits for it. After a
// deadlock or a serialization failure it runs again from the start. If the answer to a
// commit is lost, the outcome is looked up by the number of the transaction. Methods that
// read with more than one statement do so at REPEATABLE READ.
//
// At READ COMMITTED each statement sees what was committed before it began. So the first
// statement locks the rows that must not change before the second:
//
//   - A reference to a blob locks the blob's row and ends a claim; a claim locks the
//     row and looks for references in a new statement.
//   - A reference to a generation locks the generation's row, and so does its
//     collection.
//   - An operation on the name of a freeze or recording holds an advisory lock of
//     the name until the transaction ends.
//
// # Changes
//
// Each publication and each removal adds a row to the table change. Rows are numbered in
// the order of commits: a lock is held from the numbering to the commit.
package postgres

// Package fetch gets files from mirrors: over HTTP and HTTPS, or from a
// directory. What comes back has the size and digests that were asked for, or
// it is an error.
//
// Upstreams are slow, wrong, overloaded or hostile. So every body is bounded,
// every wait has an end (connecting, headers, a stalled body, a body that
// trickles, a pause that the host asks for), a slow download gives way to
// requests that wait for a connection, redirects are counted and may not leave
// https, what a server names is not at an address that only we can reach, and
// nothing is decompressed on the way. Passing troubles are retried, with exponential
// back-off and full jitter, on each URL in turn; a body that was cut is resumed
// where that is safe; bytes that are wrong are not asked for again where they
// came from.
//
// HTTP follows RFC 9110; only HTTP/1.1 is spoken, since the limit that
// operators set is on connections to a host.
package fetch

import (
	"fmt"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrNotFound means that no URL has the file (404, 410, no such file).
	ErrNotFound = errclass.New(errclass.NotFound, "not found upstream")
	// ErrDenied means that upstream refuses to give the file (401, 403, 451 and
	// other 4xx). Some object stores answer so for files that do not exist.
	ErrDenied = errclass.New(errclass.Unavailable, "denied by upstream")
	// ErrUnavailable means that upstream could not be reached, or answered with
	// a passing error, until the retries were used up. Trying later may help.
	ErrUnavailable = errclass.New(errclass.Transient, "upstream unavailable")
	// ErrMismatch means that the bytes have another size or digest than
	// expected; see MismatchError.
	ErrMismatch = errclass.New(errclass.Security, "mismatch")
	// ErrTooLarge means that a body of unknown size is larger than allowed.
	ErrTooLarge = errclass.New(errclass.Unavailable, "too large")
	// ErrNotRepository means that a page for people came instead of the file: a
	// login page, a parked domain, an error page with status 200.
	ErrNotRepository = errclass.New(errclass.Unavailable, "not a repository")
	// ErrRefused means that a URL, redirect or answer is of a kind that is not
	// followed: another scheme, https to http, a redirect loop, a path that
	// leaves its directory, a transport encoding.
	ErrRefused = errclass.New(errclass.Unavailable, "refused")
)

// MismatchError says which bytes were wrong. It wraps ErrMismatch.
type MismatchError struct {
	URL      string // without credentials
	What     string // "size" or the digest's name
	Expected string
	Found    string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s of %s: expected %s, found %s", ErrMismatch, e.What, e.URL, e.Expected, e.Found)
}

// Unwrap returns ErrMismatch.
func (e *MismatchError) Unwrap() error { return ErrMismatch }

// Package fetch downloads files from mirrors, over HTTP and HTTPS, or reads them
// from a directory. It returns files with the expected size and digests, or an
// error.
//
// Upstreams are slow, wrong, overloaded or hostile. So every body is bounded and
// every wait has a limit: connecting, headers, a stalled or very slow body, a
// pause that the host asks for. A slow download gives way to requests that wait
// for a connection. Redirects are counted and may not leave https, servers cannot
// refer to addresses that only we can reach, and nothing is decompressed on the
// way. Transient errors are retried with exponential back-off and full jitter, on
// each URL in turn; a download that was cut off is resumed if that is safe; a URL
// that returned wrong bytes is not asked again.
//
// HTTP follows RFC 9110. Only HTTP/1.1 is used, because operators limit the
// number of connections to a host.
package fetch

import (
	"fmt"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrNotFound means that no URL has the file (404, 410, no such file).
	ErrNotFound = errclass.New(errclass.NotFound, "not found upstream")
	// ErrDenied means that upstream refuses to serve the file (401, 403, 451 and
	// other 4xx). Some object stores answer so for files that do not exist.
	ErrDenied = errclass.New(errclass.Unavailable, "denied by upstream")
	// ErrUnavailable means that upstream could not be reached, or answered with
	// transient errors, until all retries were used up. Trying later may help.
	ErrUnavailable = errclass.New(errclass.Transient, "upstream unavailable")
	// ErrCertificate is an ErrUnavailable: the server's certificate is not trusted,
	// has expired or is another host's.
	ErrCertificate = errclass.New(ErrUnavailable, "upstream unavailable")
	// ErrLocal is an ErrUnavailable: a directory or file of a file: URL cannot be
	// read on this machine.
	ErrLocal = errclass.New(ErrUnavailable, "upstream unavailable")
	// ErrMismatch means that the file has another size or digest than expected;
	// see MismatchError.
	ErrMismatch = errclass.New(errclass.Security, "mismatch")
	// ErrTooLarge means that a body of unknown size exceeds its limit.
	ErrTooLarge = errclass.New(errclass.Unavailable, "too large")
	// ErrNotRepository means that the response is a web page instead of the file:
	// a login page, a parked domain, an error page with status 200.
	ErrNotRepository = errclass.New(errclass.Unavailable, "not a repository")
	// ErrRefused means that a URL, redirect or response is of a kind that is not
	// followed: another scheme, https to http, a redirect loop, a path that
	// leaves its directory, a transport encoding.
	ErrRefused = errclass.New(errclass.Unavailable, "refused")
)

// MismatchError says which bytes were wrong. It wraps ErrMismatch.
type MismatchError struct {
	URL      string // without credentials
	What     string // "size" or the name of the digest
	Expected string
	Found    string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s of %s: expected %s, found %s", ErrMismatch, e.What, e.URL, e.Expected, e.Found)
}

// Unwrap returns ErrMismatch.
func (e *MismatchError) Unwrap() error { return ErrMismatch }

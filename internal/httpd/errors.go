package httpd

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// statuses maps errors to the statuses of the public tree; the first row that
// fits counts. Security comes first: it is never hidden by what else went wrong.
// A class stands below those of its sentinels that have a status of their own.
var statuses = []struct {
	is     error // a class, a sentinel, or an error of the standard library
	status int
}{
	// What arrived from upstream was wrong; everything else that does not hold is
	// stored here.
	{repo.ErrMismatch, http.StatusBadGateway},
	{fetch.ErrMismatch, http.StatusBadGateway},
	{cas.ErrMismatch, http.StatusBadGateway},
	{errclass.Security, http.StatusInternalServerError},

	{catalog.ErrRef, http.StatusNotFound},
	{errclass.Usage, http.StatusBadRequest},
	{errclass.Conflict, http.StatusConflict},
	{meta.ErrGone, http.StatusGone},

	// Before "not found": a file that one URL does not have and another did not
	// answer for may be there later.
	{errclass.Transient, http.StatusServiceUnavailable},
	{syscall.ENOSPC, http.StatusServiceUnavailable},
	{syscall.EDQUOT, http.StatusServiceUnavailable},
	{meta.ErrCorrupt, http.StatusServiceUnavailable},
	{errclass.Unavailable, http.StatusBadGateway},

	{errclass.NotFound, http.StatusNotFound},
	{fs.ErrNotExist, http.StatusNotFound},
	{context.Canceled, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable},
}

// statusOf returns the status of an error, and what of it a client may know: nil
// where the error is a fault of this server.
func statusOf(err error) (status int, cause error) {
	for _, s := range statuses {
		switch {
		case !errors.Is(err, s.is):
		case s.is == meta.ErrCorrupt:
			return s.status, nil
		default:
			if cause = errclass.Cause(err, s.is); cause == nil {
				cause = s.is
			}
			return s.status, cause
		}
	}
	return http.StatusInternalServerError, nil
}

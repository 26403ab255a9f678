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

// statuses maps errors to statuses of the public tree. The first matching row applies.
// Security errors come first, so that no other error hides them. A class comes after
// those of its sentinels that have their own status.
var statuses = []struct {
	is     error // a class, a sentinel, or an error of the standard library
	status int
}{
	// Upstream sent wrong data; all other wrong data is in our store.
	{repo.ErrMismatch, http.StatusBadGateway},
	{fetch.ErrMismatch, http.StatusBadGateway},
	{cas.ErrMismatch, http.StatusBadGateway},
	{errclass.Security, http.StatusInternalServerError},

	{catalog.ErrRef, http.StatusNotFound},
	{errclass.Usage, http.StatusBadRequest},
	{errclass.Conflict, http.StatusConflict},
	{meta.ErrGone, http.StatusGone},

	// This row is before "not found": a file that one URL lacks may be available later
	// from another URL that did not answer.
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

// statusOf returns the status for an error and the error that the client may see,
// or nil if the error is a fault of this server.
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

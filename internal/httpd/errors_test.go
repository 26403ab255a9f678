package httpd

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Whose fault an error is decides on the status, and the worst of several counts.
func TestStatusOf(t *testing.T) {
	other := errors.New("something else")
	for _, c := range []struct {
		err    error
		status int
		cause  error
	}{
		{fetch.ErrDenied, http.StatusBadGateway, fetch.ErrDenied},
		{repo.ErrMalformed, http.StatusBadGateway, repo.ErrMalformed},
		{fetch.ErrMismatch, http.StatusBadGateway, fetch.ErrMismatch},
		{cas.ErrCorrupt, http.StatusInternalServerError, cas.ErrCorrupt},
		{acquire.ErrCorruptBlob, http.StatusInternalServerError, acquire.ErrCorruptBlob},
		{repo.ErrFuture, http.StatusInternalServerError, repo.ErrFuture},
		{mirror.ErrClock, http.StatusServiceUnavailable, mirror.ErrClock},
		{acquire.ErrNoSpace, http.StatusServiceUnavailable, acquire.ErrNoSpace},
		{repo.ErrTorn, http.StatusServiceUnavailable, repo.ErrTorn},
		{meta.ErrLocked, http.StatusServiceUnavailable, meta.ErrLocked},
		{meta.ErrCorrupt, http.StatusServiceUnavailable, nil},
		{meta.ErrNotFound, http.StatusNotFound, meta.ErrNotFound},
		{repo.ErrMissing, http.StatusNotFound, repo.ErrMissing},
		{catalog.ErrRef, http.StatusNotFound, catalog.ErrRef},
		{catalog.ErrNameTaken, http.StatusBadRequest, catalog.ErrNameTaken},
		{meta.ErrGone, http.StatusGone, meta.ErrGone},
		{freeze.ErrBusy, http.StatusConflict, freeze.ErrBusy},
		{fmt.Errorf("%w, then %w", fetch.ErrNotFound, sign.ErrBadSignature), http.StatusInternalServerError, sign.ErrBadSignature},
		{fmt.Errorf("%w, then %w", fetch.ErrNotFound, fetch.ErrUnavailable), http.StatusServiceUnavailable, fetch.ErrUnavailable},
		{other, http.StatusInternalServerError, nil},
	} {
		status, cause := statusOf(fmt.Errorf("get x: %w", c.err))
		if status != c.status || cause != c.cause {
			t.Errorf("%v: status %d, cause %v; expected %d, %v", c.err, status, cause, c.status, c.cause)
		}
	}
}

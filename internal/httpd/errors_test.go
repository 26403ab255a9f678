package httpd

import (
	"fmt"
	"net/http"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
)

// What is wrong with an upstream is no fault of this server's, and every such
// error has a code of its own.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   string
		exit   int
		status int
	}{
		{errOtherServer, api.CodeUnsupported, api.ExitFailed, http.StatusConflict},
		{mirror.ErrClock, api.CodeClock, api.ExitFailed, http.StatusServiceUnavailable},
		{repo.ErrFuture, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
		{fmt.Errorf("%w: %w", rpm.ErrLagging, repo.ErrUntrusted), api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
		{repo.ErrTorn, api.CodeUnavailable, api.ExitFailed, http.StatusServiceUnavailable},
		{repo.ErrMissing, api.CodeMissing, api.ExitFailed, http.StatusNotFound},
		{errTaken, api.CodeExists, api.ExitFailed, http.StatusConflict},
		// The worst counts.
		{fmt.Errorf("%w, then %w", fetch.ErrNotFound, sign.ErrBadSignature), api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
		{fmt.Errorf("%w, then %w", fetch.ErrNotFound, fetch.ErrUnavailable), api.CodeUnavailable, api.ExitFailed, http.StatusServiceUnavailable},
		{fmt.Errorf("%w, then %w", errOtherServer, repo.ErrWeak), api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
		{freeze.ErrMissing, api.CodeMissing, api.ExitFailed, http.StatusNotFound},
		{freeze.ErrBusy, api.CodeInUse, api.ExitFailed, http.StatusConflict},
		{meta.ErrGone, api.CodeGone, api.ExitFailed, http.StatusGone},
	} {
		o, ok := new(Server).classify(fmt.Errorf("sync x: %w", c.err))
		if !ok || o.code != c.code || o.exit != c.exit || o.status != c.status {
			t.Errorf("%v: known %t, %s, exit %d, status %d; expected %s, %d, %d", c.err, ok, o.code, o.exit, o.status, c.code, c.exit, c.status)
		}
	}
	if o, ok := new(Server).classify(fmt.Errorf("something else")); ok || o.code != api.CodeInternal {
		t.Errorf("an unknown error: %t, %+v", ok, o)
	}
}

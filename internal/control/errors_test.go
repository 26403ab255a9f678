package control

import (
	"errors"
	"fmt"
	"testing"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
)

// Errors that need different next steps have different codes. Of several errors the worst
// counts.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code string
		exit int
	}{
		{mirror.ErrClock, api.CodeClock, api.ExitFailed},
		{acquire.ErrNoSpace, api.CodeNoSpace, api.ExitFailed},
		{catalog.ErrNoSnapshot, api.CodeNoSnapshot, api.ExitFailed},
		{config.ErrUnknownMirror, api.CodeNotFound, api.ExitFailed},
		{catalog.ErrRef, api.CodeUsage, api.ExitUsage},
		{catalog.ErrNameTaken, api.CodeUsage, api.ExitUsage},
		{errclass.Usage, api.CodeUsage, api.ExitUsage},
		{regfile.ErrNotRegular, api.CodeUsage, api.ExitFailed},
		{query.ErrSyntax, api.CodeUsage, api.ExitUsage},
		{buildlist.ErrMalformed, api.CodeUsage, api.ExitFailed},
		{buildlist.ErrAmbiguous, api.CodeUsage, api.ExitUsage},
		{repo.ErrFuture, api.CodeVerify, api.ExitVerify},
		{repo.ErrRollback, api.CodeRollback, api.ExitVerify},
		{repo.ErrTorn, api.CodeUnavailable, api.ExitFailed},
		{repo.ErrMalformed, api.CodeUnavailable, api.ExitFailed},
		{repo.ErrMissing, api.CodeMissing, api.ExitFailed},
		{fetch.ErrDenied, api.CodeUnavailable, api.ExitFailed},
		{freeze.ErrMissing, api.CodeMissing, api.ExitFailed},
		{freeze.ErrBusy, api.CodeInUse, api.ExitFailed},
		{freeze.ErrRunning, api.CodeRunning, api.ExitFailed},
		{freeze.ErrUsage, api.CodeUsage, api.ExitUsage},
		{meta.ErrTaken, api.CodeExists, api.ExitFailed},
		{meta.ErrInUse, api.CodeInUse, api.ExitFailed},
		{meta.ErrGone, api.CodeGone, api.ExitFailed},
		{meta.ErrExists, api.CodeExists, api.ExitFailed},
		{meta.ErrLocked, api.CodeInUse, api.ExitFailed},
		{backup.ErrDamaged, api.CodeVerify, api.ExitVerify},
		{backup.ErrDirectory, api.CodeExists, api.ExitFailed},
		{backup.ErrNoBackup, api.CodeNotFound, api.ExitFailed},
		{backup.ErrIncomplete, api.CodeMissing, api.ExitFailed},
		{backup.ErrFormat, api.CodeUnsupported, api.ExitFailed},
		{backup.ErrNoSpace, api.CodeNoSpace, api.ExitFailed},
		{backup.ErrBusy, api.CodeInUse, api.ExitFailed},
		{backup.ErrRestoring, api.CodeInUse, api.ExitFailed},
		{fmt.Errorf("%w: %w", rpm.ErrLagging, repo.ErrUntrusted), api.CodeVerify, api.ExitVerify},
		{errors.Join(repo.ErrRollback, sign.ErrBadSignature), api.CodeVerify, api.ExitVerify},
		{errors.Join(repo.ErrRollback, fetch.ErrUnavailable), api.CodeRollback, api.ExitVerify},
		{fmt.Errorf("%w, then %w", fetch.ErrNotFound, sign.ErrBadSignature), api.CodeVerify, api.ExitVerify},
		{fmt.Errorf("%w, then %w", fetch.ErrNotFound, fetch.ErrUnavailable), api.CodeUnavailable, api.ExitFailed},
	} {
		o, ok := classify(fmt.Errorf("sync x: %w", c.err))
		if !ok || o.code != c.code || o.exit != c.exit {
			t.Errorf("%v: known %t, %s, exit %d; expected %s, %d", c.err, ok, o.code, o.exit, c.code, c.exit)
		}
	}
	if e, known := Error(errors.New("something else")); known || e.Code != api.CodeInternal {
		t.Errorf("an unknown error: known %t, %+v", known, e)
	}
}

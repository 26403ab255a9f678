package control

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
)

var (
	// ErrInUse means that something is needed and therefore stays.
	ErrInUse = errclass.New(errclass.Conflict, "in use")
	// ErrTaken means that a recording cannot have a name, since something else has
	// it.
	ErrTaken = errclass.New(errclass.Conflict, "the name is taken")
	// ErrOtherServer means that the indices of a snapshot place packages on another
	// server, so that not all requests come here.
	ErrOtherServer = errclass.New(errclass.Conflict, "packages are on another server")
)

// outcome is the code and exit code of an error.
type outcome struct {
	is   error // a class, a sentinel, or an error of the standard library
	code string
	exit int
}

// outcomes maps errors to codes and exit codes; the first row that fits counts.
// Security comes first: it is never hidden by what else went wrong. A class
// stands below those of its sentinels that have a code of their own.
var outcomes = []outcome{
	{repo.ErrRollback, api.CodeRollback, api.ExitVerify},
	{errclass.Security, api.CodeVerify, api.ExitVerify},

	{buildlist.ErrMalformed, api.CodeUsage, api.ExitFailed},
	{buildlist.ErrTooLarge, api.CodeUsage, api.ExitFailed},
	{regfile.ErrNotRegular, api.CodeUsage, api.ExitFailed},
	{regfile.ErrTooLarge, api.CodeUsage, api.ExitFailed},
	{errclass.Usage, api.CodeUsage, api.ExitUsage},

	{mirror.ErrClock, api.CodeClock, api.ExitFailed},
	{acquire.ErrNoSpace, api.CodeNoSpace, api.ExitFailed},
	{backup.ErrNoSpace, api.CodeNoSpace, api.ExitFailed},
	{syscall.ENOSPC, api.CodeNoSpace, api.ExitFailed},
	{syscall.EDQUOT, api.CodeNoSpace, api.ExitFailed},

	{freeze.ErrNeedsAll, api.CodeNeedsAll, api.ExitFailed},
	{freeze.ErrAmbiguous, api.CodeAmbiguous, api.ExitFailed},
	{freeze.ErrBroken, api.CodeBroken, api.ExitFailed},
	{freeze.ErrEmpty, api.CodeEmpty, api.ExitFailed},
	{freeze.ErrRunning, api.CodeRunning, api.ExitFailed},
	{catalog.ErrNoSnapshot, api.CodeNoSnapshot, api.ExitFailed},
	{meta.ErrGone, api.CodeGone, api.ExitFailed},
	{meta.ErrExists, api.CodeExists, api.ExitFailed},
	{ErrTaken, api.CodeExists, api.ExitFailed},
	{backup.ErrDirectory, api.CodeExists, api.ExitFailed},
	{ErrOtherServer, api.CodeUnsupported, api.ExitFailed},
	{errclass.Conflict, api.CodeInUse, api.ExitFailed},

	{meta.ErrLocked, api.CodeInUse, api.ExitFailed},
	{meta.ErrCorrupt, api.CodeInternal, api.ExitFailed},
	// Before "not found": a file that one URL does not have and another did not
	// answer for may be there later.
	{errclass.Transient, api.CodeUnavailable, api.ExitFailed},
	{backup.ErrFormat, api.CodeUnsupported, api.ExitFailed},
	{errclass.Unavailable, api.CodeUnavailable, api.ExitFailed},

	{freeze.ErrMissing, api.CodeMissing, api.ExitFailed},
	{fetch.ErrNotFound, api.CodeMissing, api.ExitFailed},
	{repo.ErrMissing, api.CodeMissing, api.ExitFailed},
	{backup.ErrIncomplete, api.CodeMissing, api.ExitFailed},
	{errclass.NotFound, api.CodeNotFound, api.ExitFailed},
	{fs.ErrNotExist, api.CodeNotFound, api.ExitFailed},

	{fs.ErrPermission, api.CodeUsage, api.ExitFailed},
	{syscall.EISDIR, api.CodeUsage, api.ExitFailed},
	{context.Canceled, api.CodeInterrupted, api.ExitInterrupted},
	{context.DeadlineExceeded, api.CodeUnavailable, api.ExitFailed},
}

// classify returns the code and exit code of an error; ok is false for unknown
// ones, which are this server's own faults.
func classify(err error) (code string, exit int, ok bool) {
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o.code, o.exit, true
		}
	}
	return api.CodeInternal, api.ExitFailed, false
}

// Error returns err in the form in which clients get it. An *api.Error is passed
// on as it is. known is false for a fault of this program.
func Error(err error) (e *api.Error, known bool) {
	if errors.As(err, &e) {
		return e, true
	}
	code, exit, known := classify(err)
	e = &api.Error{Code: code, Message: remote.Scrub(err.Error()), Exit: exit}
	// A freeze that was refused reports what became of each entry.
	var refused *freeze.ReportError
	if errors.As(err, &refused) {
		e.Hint = refused.Hint
		e.Detail = api.FreezeResult{DryRun: refused.DryRun, Report: refused.Report, Changes: refused.Changes, Broken: refused.Broken}
	}
	return e, known
}

// Error is the function Error; unknown errors of the verb are logged.
func (c *Control) Error(verb string, err error) *api.Error {
	e, known := Error(err)
	if !known {
		c.log.Error("request failed", "verb", verb, "err", err)
	}
	return e
}

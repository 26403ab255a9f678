package httpd

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// ErrUsage marks requests that make no sense, whatever the state.
var ErrUsage = errors.New("usage")

// ErrInUse means that something is needed and therefore stays.
var ErrInUse = errors.New("in use")

// errTaken means that a recording cannot have a name, since something else
// has it.
var errTaken = errors.New("the name is taken")

// errOtherServer means that the indices of a snapshot place packages on another
// server, so that not all requests come here.
var errOtherServer = errors.New("packages are on another server")

// outcome is what a sentinel means outside.
type outcome struct {
	is     error
	code   string
	exit   int
	status int // of the public tree
}

// outcomes maps sentinels to the outside, once; the first that matches counts.
// Security errors come first: they are never hidden by what else went wrong.
var outcomes = []outcome{
	{sign.ErrBadSignature, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{sign.ErrUnknownKey, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{sign.ErrExpired, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{sign.ErrRevoked, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{sign.ErrWeak, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{sign.ErrNoSignature, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{sign.ErrMalformed, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrUntrusted, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrExpired, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrFuture, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrRollback, api.CodeRollback, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrWeak, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrHostile, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{repo.ErrMismatch, api.CodeVerify, api.ExitVerify, http.StatusBadGateway},
	{fetch.ErrMismatch, api.CodeVerify, api.ExitVerify, http.StatusBadGateway},
	{cas.ErrCorrupt, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},
	{cas.ErrMismatch, api.CodeVerify, api.ExitVerify, http.StatusBadGateway},
	{mirror.ErrCorruptBlob, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},

	{freeze.ErrVerify, api.CodeVerify, api.ExitVerify, http.StatusInternalServerError},

	{freeze.ErrUsage, api.CodeUsage, api.ExitUsage, http.StatusBadRequest},
	{freeze.ErrNeedsAll, api.CodeNeedsAll, api.ExitFailed, http.StatusConflict},
	{freeze.ErrAmbiguous, api.CodeAmbiguous, api.ExitFailed, http.StatusConflict},
	{freeze.ErrBroken, api.CodeBroken, api.ExitFailed, http.StatusConflict},
	{ErrUsage, api.CodeUsage, api.ExitUsage, http.StatusBadRequest},
	{mirror.ErrRef, api.CodeUsage, api.ExitUsage, http.StatusNotFound},
	{mirror.ErrNameTaken, api.CodeUsage, api.ExitUsage, http.StatusBadRequest},
	{buildlist.ErrMalformed, api.CodeUsage, api.ExitFailed, http.StatusBadRequest},
	{buildlist.ErrUnrecognised, api.CodeUsage, api.ExitUsage, http.StatusBadRequest},
	{buildlist.ErrAmbiguous, api.CodeUsage, api.ExitUsage, http.StatusBadRequest},
	{buildlist.ErrTooLarge, api.CodeUsage, api.ExitFailed, http.StatusBadRequest},
	{mirror.ErrClock, api.CodeClock, api.ExitFailed, http.StatusServiceUnavailable},
	{mirror.ErrNoSpace, api.CodeNoSpace, api.ExitFailed, http.StatusServiceUnavailable},
	{syscall.ENOSPC, api.CodeNoSpace, api.ExitFailed, http.StatusServiceUnavailable},
	{syscall.EDQUOT, api.CodeNoSpace, api.ExitFailed, http.StatusServiceUnavailable},
	{mirror.ErrNoSnapshot, api.CodeNoSnapshot, api.ExitFailed, http.StatusConflict},
	{freeze.ErrEmpty, api.CodeEmpty, api.ExitFailed, http.StatusConflict},
	{freeze.ErrRunning, api.CodeRunning, api.ExitFailed, http.StatusConflict},
	{freeze.ErrBusy, api.CodeInUse, api.ExitFailed, http.StatusConflict},
	{ErrInUse, api.CodeInUse, api.ExitFailed, http.StatusConflict},
	{mirror.ErrUnknown, api.CodeNotFound, api.ExitFailed, http.StatusNotFound},
	{meta.ErrGone, api.CodeGone, api.ExitFailed, http.StatusGone},
	{errTaken, api.CodeExists, api.ExitFailed, http.StatusConflict},
	{meta.ErrExists, api.CodeExists, api.ExitFailed, http.StatusConflict},
	{meta.ErrLocked, api.CodeInUse, api.ExitFailed, http.StatusServiceUnavailable},
	{meta.ErrCorrupt, api.CodeInternal, api.ExitFailed, http.StatusServiceUnavailable},
	// Before "not found": a file that one URL does not have and another did not
	// answer for may be there later.
	{fetch.ErrUnavailable, api.CodeUnavailable, api.ExitFailed, http.StatusServiceUnavailable},
	{fetch.ErrDenied, api.CodeUnavailable, api.ExitFailed, http.StatusBadGateway},
	{fetch.ErrRefused, api.CodeUnavailable, api.ExitFailed, http.StatusBadGateway},
	{fetch.ErrTooLarge, api.CodeUnavailable, api.ExitFailed, http.StatusBadGateway},
	{fetch.ErrNotRepository, api.CodeUnavailable, api.ExitFailed, http.StatusBadGateway},
	{repo.ErrTorn, api.CodeUnavailable, api.ExitFailed, http.StatusServiceUnavailable},
	{errOtherServer, api.CodeUnsupported, api.ExitFailed, http.StatusConflict},
	{repo.ErrMalformed, api.CodeUnavailable, api.ExitFailed, http.StatusBadGateway},
	{freeze.ErrMissing, api.CodeMissing, api.ExitFailed, http.StatusNotFound},
	{fetch.ErrNotFound, api.CodeMissing, api.ExitFailed, http.StatusNotFound},
	{repo.ErrMissing, api.CodeMissing, api.ExitFailed, http.StatusNotFound},
	{meta.ErrNotFound, api.CodeNotFound, api.ExitFailed, http.StatusNotFound},
	{cas.ErrNotFound, api.CodeNotFound, api.ExitFailed, http.StatusNotFound},
	{fs.ErrNotExist, api.CodeNotFound, api.ExitFailed, http.StatusNotFound},
	{fs.ErrPermission, api.CodeUsage, api.ExitFailed, http.StatusInternalServerError},
	{regfile.ErrNotRegular, api.CodeUsage, api.ExitFailed, http.StatusBadRequest},
	{regfile.ErrTooLarge, api.CodeUsage, api.ExitFailed, http.StatusBadRequest},
	{syscall.EISDIR, api.CodeUsage, api.ExitFailed, http.StatusBadRequest},
	{context.Canceled, api.CodeInterrupted, api.ExitInterrupted, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, api.CodeUnavailable, api.ExitFailed, http.StatusServiceUnavailable},
}

// Outcome tells what a further sentinel means to snapctl.
type Outcome struct {
	Is   error
	Code string // of package api
	Exit int
}

// classify finds the outcome of an error; ok is false for unknown ones, which
// are this server's own faults.
func (s *Server) classify(err error) (o outcome, ok bool) {
	for _, o := range s.cfg.Services.Outcomes {
		if errors.Is(err, o.Is) {
			return outcome{o.Is, o.Code, o.Exit, http.StatusInternalServerError}, true
		}
	}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o, true
		}
	}
	return outcome{nil, api.CodeInternal, api.ExitFailed, http.StatusInternalServerError}, false
}

// apiError puts an error into words for the other side of the control socket.
// An *api.Error passes as it is.
func (s *Server) apiError(verb string, err error) *api.Error {
	var own *api.Error
	if errors.As(err, &own) {
		return own
	}
	o, ok := s.classify(err)
	if !ok {
		s.log.Error("request failed", "verb", verb, "err", err)
	}
	out := &api.Error{Code: o.code, Message: remote.Scrub(err.Error()), Exit: o.exit}
	// A freeze that was refused says what became of each entry.
	var refused *freeze.ReportError
	if errors.As(err, &refused) {
		out.Hint = refused.Hint
		out.Detail = api.FreezeResult{DryRun: refused.DryRun, Report: refused.Report, Changes: refused.Changes, Broken: refused.Broken}
	}
	return out
}

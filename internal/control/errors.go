package control

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
	"example.org/snapd/internal/webhook"
)

// ErrOtherServer means that the indices of a snapshot point to packages on another
// server. A recording would miss the requests for them.
var ErrOtherServer = errclass.New(errclass.Conflict, "packages are on another server")

// outcome is the code, reason and exit code of an error.
type outcome struct {
	is     error // a class, a sentinel, or an error of the standard library
	code   string
	reason string // distinguishes causes that share the code; "" if there is one
	exit   int
}

// outcomes maps errors to codes, reasons and exit codes. The first matching row applies.
// Security errors come first, so that no other error hides them. Among them the most
// serious comes first: a state of upstream that is both old and badly signed must not be
// reported as a rollback, which a user may accept. A class comes after those of its
// sentinels that have their own row.
var outcomes = []outcome{
	{sign.ErrRevoked, api.CodeVerify, "revoked_key", api.ExitVerify},
	{sign.ErrBadSignature, api.CodeVerify, "bad_signature", api.ExitVerify},
	{sign.ErrUnknownKey, api.CodeVerify, "unknown_key", api.ExitVerify},
	{sign.ErrNoSignature, api.CodeVerify, "no_signature", api.ExitVerify},
	{sign.ErrWeak, api.CodeVerify, "weak_signature", api.ExitVerify},
	{sign.ErrMalformed, api.CodeVerify, "malformed_signature", api.ExitVerify},
	{sign.ErrExpired, api.CodeVerify, "expired_key", api.ExitVerify},
	{repo.ErrUntrusted, api.CodeVerify, "untrusted", api.ExitVerify},
	{freeze.ErrVerify, api.CodeVerify, "proof", api.ExitVerify},
	{attest.ErrOther, api.CodeVerify, "other_freeze", api.ExitVerify},
	{cas.ErrCorrupt, api.CodeVerify, "corrupt_blob", api.ExitVerify},
	{acquire.ErrCorruptBlob, api.CodeVerify, "corrupt_blob", api.ExitVerify},
	{backup.ErrDamaged, api.CodeVerify, "damaged_backup", api.ExitVerify},
	{repo.ErrMismatch, api.CodeVerify, "mismatch", api.ExitVerify},
	{fetch.ErrMismatch, api.CodeVerify, "mismatch", api.ExitVerify},
	{cas.ErrMismatch, api.CodeVerify, "mismatch", api.ExitVerify},
	{repo.ErrHostile, api.CodeVerify, "hostile_path", api.ExitVerify},
	{repo.ErrWeak, api.CodeVerify, "weak_digest", api.ExitVerify},
	{repo.ErrFuture, api.CodeVerify, "future", api.ExitVerify},
	{repo.ErrExpired, api.CodeVerify, "expired", api.ExitVerify},
	{repo.ErrRollback, api.CodeRollback, "", api.ExitVerify},
	{errclass.Security, api.CodeVerify, "", api.ExitVerify},

	{ErrToken, api.CodeUnauthorized, "", api.ExitFailed},
	{ErrForbidden, api.CodeForbidden, "", api.ExitFailed},
	{ErrManyTokens, api.CodeRateLimited, "", api.ExitFailed},
	{stream.ErrFormat, api.CodeUsage, "not_export", api.ExitFailed},
	{ErrBody, api.CodeTooLarge, "", api.ExitFailed},
	{ErrKeyReused, api.CodeUsage, "idempotency_key", api.ExitUsage},
	{query.ErrSyntax, api.CodeUsage, "query", api.ExitUsage},
	{attest.ErrMalformed, api.CodeUsage, "attestation", api.ExitFailed},
	{attest.ErrBuilders, api.CodeUsage, "builders", api.ExitUsage},
	{attest.ErrRebuilders, api.CodeUsage, "rebuilders", api.ExitUsage},
	{buildlist.ErrMalformed, api.CodeUsage, "malformed_manifest", api.ExitFailed},
	{buildlist.ErrTooLarge, api.CodeUsage, "too_large", api.ExitFailed},
	{buildlist.ErrAmbiguous, api.CodeUsage, "format", api.ExitUsage},
	{buildlist.ErrUnrecognised, api.CodeUsage, "format", api.ExitUsage},
	{buildlist.ErrEmpty, api.CodeUsage, "empty_manifest", api.ExitUsage},
	{regfile.ErrNotRegular, api.CodeUsage, "not_regular", api.ExitFailed},
	{regfile.ErrTooLarge, api.CodeUsage, "too_large", api.ExitFailed},
	{catalog.ErrRef, api.CodeUsage, "reference", api.ExitUsage},
	{catalog.ErrNameTaken, api.CodeUsage, "name", api.ExitUsage},
	{sequencer.ErrOrigin, api.CodeUsage, "log_origin", api.ExitUsage},
	{tlog.ErrPolicy, api.CodeUsage, "log_policy", api.ExitUsage},
	{tlog.ErrKey, api.CodeUsage, "log_key", api.ExitUsage},
	{mirror.ErrLocal, api.CodeUsage, "local_mirror", api.ExitUsage},
	{mirror.ErrNotLocal, api.CodeUsage, "not_local", api.ExitUsage},
	{repo.ErrNotPackage, api.CodeUsage, "not_package", api.ExitFailed},
	{ErrServes, api.CodeUsage, "role", api.ExitUsage},
	{errclass.Usage, api.CodeUsage, "", api.ExitUsage},

	{mirror.ErrClock, api.CodeClock, "", api.ExitFailed},
	{acquire.ErrNoSpace, api.CodeNoSpace, "", api.ExitFailed},
	{backup.ErrNoSpace, api.CodeNoSpace, "backup", api.ExitFailed},
	{syscall.ENOSPC, api.CodeNoSpace, "", api.ExitFailed},
	{syscall.EDQUOT, api.CodeNoSpace, "", api.ExitFailed},

	{freeze.ErrNeedsAll, api.CodeNeedsAll, "", api.ExitFailed},
	{freeze.ErrTwoContents, api.CodeAmbiguous, "two_contents", api.ExitFailed},
	{ErrVersions, api.CodeAmbiguous, "versions", api.ExitFailed},
	{freeze.ErrAmbiguous, api.CodeAmbiguous, "", api.ExitFailed},
	{freeze.ErrBroken, api.CodeBroken, "", api.ExitFailed},
	{freeze.ErrEmpty, api.CodeEmpty, "", api.ExitFailed},
	{freeze.ErrRunning, api.CodeRunning, "", api.ExitFailed},
	{catalog.ErrNoSnapshot, api.CodeNoSnapshot, "", api.ExitFailed},
	{meta.ErrGone, api.CodeGone, "", api.ExitFailed},
	{meta.ErrExists, api.CodeExists, "", api.ExitFailed},
	{sequencer.ErrNamed, api.CodeExists, "log", api.ExitFailed},
	{meta.ErrTaken, api.CodeExists, "", api.ExitFailed},
	{repo.ErrOtherBytes, api.CodeExists, "other_bytes", api.ExitFailed},
	{backup.ErrDirectory, api.CodeExists, "directory", api.ExitFailed},
	{ErrOtherServer, api.CodeUnsupported, "other_server", api.ExitFailed},
	{meta.ErrLogMoved, api.CodeInUse, "log_moved", api.ExitFailed},
	{freeze.ErrBusy, api.CodeInUse, "busy", api.ExitFailed},
	{freeze.ErrFull, api.CodeInUse, "full", api.ExitFailed},
	{meta.ErrRevoked, api.CodeInUse, "revoked", api.ExitFailed},
	{freeze.ErrLacks, api.CodeInUse, "lacks", api.ExitFailed},
	{freeze.ErrInfoChange, api.CodeInUse, "info_change", api.ExitFailed},
	{catalog.ErrStopped, api.CodeInUse, "stopped", api.ExitFailed},
	{errclass.Conflict, api.CodeInUse, "", api.ExitFailed},

	{meta.ErrLocked, api.CodeInUse, "locked", api.ExitFailed},
	{meta.ErrCorrupt, api.CodeInternal, "metadata", api.ExitFailed},
	// This row is before "not found": a file that one URL lacks may be available later
	// from another URL that did not answer.
	{repo.ErrTorn, api.CodeUnavailable, "torn", api.ExitFailed},
	{fetch.ErrCertificate, api.CodeUnavailable, "certificate", api.ExitFailed},
	{fetch.ErrLocal, api.CodeUnavailable, "local", api.ExitFailed},
	{fetch.ErrUnavailable, api.CodeUnavailable, "unreachable", api.ExitFailed},
	{cas.ErrUnavailable, api.CodeUnavailable, "store", api.ExitFailed},
	{meta.ErrUnreachable, api.CodeUnavailable, "metadata", api.ExitFailed},
	{meta.ErrLeased, api.CodeUnavailable, "leased", api.ExitFailed},
	{meta.ErrFenced, api.CodeUnavailable, "leased", api.ExitFailed},
	{errclass.Transient, api.CodeUnavailable, "", api.ExitFailed},
	{backup.ErrFormat, api.CodeUnsupported, "backup", api.ExitFailed},
	{fetch.ErrNotRepository, api.CodeUnavailable, "not_repository", api.ExitFailed},
	{fetch.ErrRefused, api.CodeUnavailable, "refused", api.ExitFailed},
	{fetch.ErrTooLarge, api.CodeUnavailable, "too_large", api.ExitFailed},
	{fetch.ErrDenied, api.CodeUnavailable, "denied", api.ExitFailed},
	{repo.ErrMalformed, api.CodeUnavailable, "malformed", api.ExitFailed},
	{webhook.ErrNotDelivered, api.CodeUnavailable, "not_delivered", api.ExitFailed},
	{errclass.Unavailable, api.CodeUnavailable, "", api.ExitFailed},

	{freeze.ErrMissing, api.CodeMissing, "", api.ExitFailed},
	{fetch.ErrNotFound, api.CodeMissing, "", api.ExitFailed},
	{repo.ErrMissing, api.CodeMissing, "", api.ExitFailed},
	{backup.ErrIncomplete, api.CodeMissing, "backup", api.ExitFailed},
	{indices.ErrRecipe, api.CodeNotFound, "index_program", api.ExitFailed},
	{indices.ErrBeingMade, api.CodeNotFound, "index_made", api.ExitFailed},
	{cas.ErrNotFound, api.CodeNotFound, "blob", api.ExitFailed},
	{catalog.ErrNoUpstreamIndices, api.CodeNotFound, "no_indices", api.ExitFailed},
	{config.ErrUnknownMirror, api.CodeNotFound, "mirror", api.ExitFailed},
	{mirror.ErrNoPackage, api.CodeNotFound, "package", api.ExitFailed},
	{ErrNoPackage, api.CodeNotFound, "no_package", api.ExitFailed},
	{errclass.NotFound, api.CodeNotFound, "", api.ExitFailed},
	{fs.ErrNotExist, api.CodeNotFound, "", api.ExitFailed},

	{fs.ErrPermission, api.CodeUsage, "permission", api.ExitFailed},
	{syscall.EISDIR, api.CodeUsage, "is_directory", api.ExitFailed},
	{context.Canceled, api.CodeInterrupted, "", api.ExitInterrupted},
	{context.DeadlineExceeded, api.CodeUnavailable, "time", api.ExitFailed},
}

// classify returns the outcome that clients see for an error. ok is false for unknown
// errors, which are faults of this server.
func classify(err error) (o outcome, ok bool) {
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o, true
		}
	}
	return outcome{code: api.CodeInternal, exit: api.ExitFailed}, false
}

// Error returns err in the form that clients get. An *api.Error is returned unchanged.
// known is false for a fault of this program.
func Error(err error) (e *api.Error, known bool) {
	if errors.As(err, &e) {
		return e, true
	}
	o, known := classify(err)
	e = &api.Error{Code: o.code, Reason: o.reason, Message: remote.Scrub(err.Error()), Exit: o.exit}
	// The error of a refused freeze includes the report on each entry.
	var refused *freeze.ReportError
	if errors.As(err, &refused) {
		e.Hint = refused.Hint
		e.Detail = api.FreezeResult{DryRun: refused.DryRun, Report: refused.Report, Changes: refused.Changes, Broken: refused.Broken}
	}
	return e, known
}

// Error is like the function Error, but logs unknown errors of the verb.
func (c *Control) Error(verb string, err error) *api.Error {
	e, known := Error(err)
	if !known {
		c.log.Error("request failed", "verb", verb, "err", err)
	}
	return e
}

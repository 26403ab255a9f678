package freeze

import (
	"errors"
	"fmt"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

var (
	// ErrExists means that another frozen snapshot has the name.
	ErrExists = meta.ErrExists
	// ErrMissing means that packages or their bytes cannot be had.
	ErrMissing = errclass.New(errclass.NotFound, "missing")
	// ErrAmbiguous means that a name and version stand for several contents.
	ErrAmbiguous = errclass.New(errclass.Conflict, "ambiguous")
	// ErrBroken means that the set leaves relations unsatisfied.
	ErrBroken = errclass.New(errclass.Conflict, "unsatisfied relations")
	// ErrNeedsAll means that freezing a whole on-demand mirror would fetch a lot.
	ErrNeedsAll = errclass.New(errclass.Conflict, "packages are still to be fetched")
	// ErrVerify means that a proof does not hold.
	ErrVerify = errclass.New(errclass.Security, "verification failed")
	// ErrEmpty means that a freeze would hold no package.
	ErrEmpty = errclass.New(errclass.Conflict, "nothing to freeze")
	// ErrRunning means that a recording has not been stopped.
	ErrRunning = errclass.New(errclass.Conflict, "is still running")
	// ErrBusy means that a frozen snapshot of that name is being made or imported.
	ErrBusy = errclass.New(errclass.Conflict, "is being made by another command")
	// ErrUsage means that the options contradict each other.
	ErrUsage = errclass.Usage
	// ErrFormat means that a manifest is of a format that this program does not know.
	ErrFormat = errors.New("format")
)

// ReportError is a refused freeze with the resolution of each entry. That of a dry
// run has everything that the dry run found out.
type ReportError struct {
	Err     error
	Hint    string // what to do about it, where this error tells
	DryRun  bool
	Report  *api.Report
	Changes *api.Diff
	Broken  []api.Problem
}

func (e *ReportError) Error() string { return e.Err.Error() }
func (e *ReportError) Unwrap() error { return e.Err }

// TwoContents is the error of a path that has different bytes in one freeze.
// ErrAmbiguous.
func TwoContents(path string, a, b cas.Digest) error {
	return fmt.Errorf("%w: %s has two contents, %s and %s, in one freeze", ErrAmbiguous, path, a, b)
}

// Count is a number with the word for one thing or for several, for messages.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

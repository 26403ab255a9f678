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
	// ErrExists means that a freeze with this name exists.
	ErrExists = meta.ErrExists
	// ErrMissing means that packages or their bytes are unavailable.
	ErrMissing = errclass.New(errclass.NotFound, "missing")
	// ErrAmbiguous means that packages with the same name and version have different
	// contents.
	ErrAmbiguous = errclass.New(errclass.Conflict, "ambiguous")
	// ErrTwoContents is an ErrAmbiguous: one path of a freeze would have two contents.
	ErrTwoContents = errclass.New(ErrAmbiguous, "ambiguous")
	// ErrBroken means that packages of the freeze have unsatisfied dependencies.
	ErrBroken = errclass.New(errclass.Conflict, "unsatisfied relations")
	// ErrNeedsAll means that freezing a whole on-demand mirror would download most of it.
	ErrNeedsAll = errclass.New(errclass.Conflict, "packages are not downloaded yet")
	// ErrVerify means that a verification failed.
	ErrVerify = errclass.New(errclass.Security, "verification failed")
	// ErrEmpty means that a freeze would have no packages.
	ErrEmpty = errclass.New(errclass.Conflict, "nothing to freeze")
	// ErrRunning means that a recording has not been stopped.
	ErrRunning = errclass.New(errclass.Conflict, "is still running")
	// ErrBusy means that a freeze of this name is being made or imported, or a channel is
	// being moved.
	ErrBusy = errclass.New(errclass.Conflict, "is being made by another command")
	// ErrLacks means that a freeze lacks a mirror, suite, component or architecture that
	// clients of a channel use.
	ErrLacks = errclass.New(errclass.Conflict, "it lacks what clients of the channel use")
	// ErrInfoChange means that apt would refuse a channel after a move, because a field
	// of its Release file would change.
	ErrInfoChange = errclass.New(errclass.Conflict, "apt refuses a repository in which these fields change")
	// ErrFull means that a freeze has the maximum number of attestations or of changes of
	// its labels.
	ErrFull = errclass.New(errclass.Conflict, "too many statements")
	// ErrUsage means that options contradict each other.
	ErrUsage = errclass.Usage
	// ErrFormat means that a manifest has an unsupported format.
	ErrFormat = errors.New("format")
)

// ReportError is the error of a refused freeze, with the resolution of each entry. After
// a dry run the report contains everything that the dry run found.
type ReportError struct {
	Err     error
	Hint    string // hint for this error; empty: none
	DryRun  bool
	Report  *api.Report
	Changes *api.Diff
	Broken  []api.Problem
}

func (e *ReportError) Error() string { return e.Err.Error() }
func (e *ReportError) Unwrap() error { return e.Err }

// TwoContents returns the error for a path with two contents in one freeze. It wraps
// ErrTwoContents.
func TwoContents(path string, a, b cas.Digest) error {
	return fmt.Errorf("%w: %s has two contents, %s and %s, in one freeze", ErrTwoContents, path, a, b)
}

// Count returns a number with the singular or plural of a word, for messages.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

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
	// ErrAmbiguous means that a name and version stand for different contents.
	ErrAmbiguous = errclass.New(errclass.Conflict, "ambiguous")
	// ErrTwoContents is an ErrAmbiguous: one path would have different bytes in one
	// freeze.
	ErrTwoContents = errclass.New(ErrAmbiguous, "ambiguous")
	// ErrBroken means that the set has unsatisfied dependencies.
	ErrBroken = errclass.New(errclass.Conflict, "unsatisfied relations")
	// ErrNeedsAll means that freezing a whole on-demand mirror would download a
	// lot.
	ErrNeedsAll = errclass.New(errclass.Conflict, "packages are not downloaded yet")
	// ErrVerify means that a verification failed.
	ErrVerify = errclass.New(errclass.Security, "verification failed")
	// ErrEmpty means that a freeze would have no packages.
	ErrEmpty = errclass.New(errclass.Conflict, "nothing to freeze")
	// ErrRunning means that a recording has not been stopped.
	ErrRunning = errclass.New(errclass.Conflict, "is still running")
	// ErrBusy means that a freeze of this name is being made or imported, or a channel
	// moved.
	ErrBusy = errclass.New(errclass.Conflict, "is being made by another command")
	// ErrLacks means that a freeze has no mirror, suite, component or architecture
	// that clients of a channel use.
	ErrLacks = errclass.New(errclass.Conflict, "it lacks what clients of the channel use")
	// ErrInfoChange means that apt would refuse what a channel is to show, because a
	// field of its Release file differs from what the channel shows.
	ErrInfoChange = errclass.New(errclass.Conflict, "apt refuses a repository in which these fields change")
	// ErrFull means that a freeze has as many attestations, or changes of its labels, as it
	// can have.
	ErrFull = errclass.New(errclass.Conflict, "too many statements")
	// ErrUsage means that options contradict each other.
	ErrUsage = errclass.Usage
	// ErrFormat means that a manifest has an unsupported format.
	ErrFormat = errors.New("format")
)

// ReportError is a refused freeze and how each entry was resolved. After a dry
// run it has everything that the dry run found out.
type ReportError struct {
	Err     error
	Hint    string // hint of this error, if it has one
	DryRun  bool
	Report  *api.Report
	Changes *api.Diff
	Broken  []api.Problem
}

func (e *ReportError) Error() string { return e.Err.Error() }
func (e *ReportError) Unwrap() error { return e.Err }

// TwoContents returns the error for a path with different bytes in one freeze. It
// wraps ErrTwoContents.
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

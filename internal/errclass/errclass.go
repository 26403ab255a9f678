// Package errclass has the few classes that the sentinels of all packages belong
// to, so that HTTP statuses and exit codes are chosen by class, and only where
// that is too coarse by sentinel.
package errclass

import "errors"

// The classes. A sentinel made by New is one of them to errors.Is.
var (
	// NotFound means that what was asked for does not exist.
	NotFound = errors.New("not found")
	// Conflict means that the request does not fit the state of things: something
	// is in the way, is missing, or is still needed.
	Conflict = errors.New("conflict")
	// Usage means that the request makes no sense, whatever the state.
	Usage = errors.New("usage")
	// Security means that a signature, digest or other proof does not hold. It is
	// never retried on the same bytes, and counts before all other classes.
	Security = errors.New("security")
	// Transient means that the same request may succeed later, when a condition of
	// upstream or of this machine has passed.
	Transient = errors.New("transient")
	// Unavailable means that upstream refuses what is needed, or has it in a form
	// that cannot be used.
	Unavailable = errors.New("unavailable")
)

// sentinel is an error value of a class.
type sentinel struct {
	class error
	text  string
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return s.class }

// New makes a sentinel of a class.
func New(class error, text string) error { return &sentinel{class, text} }

// Cause returns the first sentinel of a class that err wraps; class itself where
// err wraps it without one; nil where err is not of the class.
func Cause(err, class error) error {
	if !errors.Is(err, class) {
		return nil
	}
	for err != class {
		if s, ok := err.(*sentinel); ok {
			return s
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, part := range e.Unwrap() {
				if errors.Is(part, class) {
					err = part
					break
				}
			}
		default: // its Is method says so
			return class
		}
	}
	return class
}

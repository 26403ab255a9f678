// Package errclass defines a few classes of errors. The sentinels of all packages
// belong to one of them, so that HTTP statuses and exit codes are chosen by
// class, and by sentinel only if the class is too coarse.
package errclass

import "errors"

//lint:file-ignore ST1012 they are read with the name of the package: errclass.NotFound

// The classes. errors.Is finds the class of a sentinel made by New.
var (
	// NotFound means that the requested object does not exist.
	NotFound = errors.New("not found")
	// Conflict means that the request conflicts with the current state: something blocks
	// it, is missing, or is still needed.
	Conflict = errors.New("conflict")
	// Usage means that the request is invalid in any state.
	Usage = errors.New("usage")
	// Security means that a signature, digest or other proof is wrong. It is
	// never retried on the same bytes, and takes precedence over all other
	// classes.
	Security = errors.New("security")
	// Transient means that the same request may succeed later, after a condition
	// of upstream or of this machine has passed.
	Transient = errors.New("transient")
	// Unavailable means that upstream refuses to serve what is needed, or has it
	// in an unusable form.
	Unavailable = errors.New("unavailable")
)

// sentinel is an error value with a class.
type sentinel struct {
	class error
	text  string
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return s.class }

// New returns a sentinel of a class.
func New(class error, text string) error { return &sentinel{class, text} }

// Cause returns the first sentinel of a class that err wraps. It returns class
// itself if err wraps it without a sentinel, and nil if err is not of the class.
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
		default: // its Is method reports the class
			return class
		}
	}
	return class
}

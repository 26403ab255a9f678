package rpm

import (
	"context"
	"errors"
	"io"
)

// storeError is an error of reading a stored file. The file's digest was verified
// when it was stored, so the error is not about upstream's data, and malformed
// does not change it.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// stored marks the errors of a stored file.
type stored struct{ io.ReadCloser }

func (s stored) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &storeError{err}
	}
	return n, err
}

// isRead reports whether an error comes from reading a stored file or from a
// cancelled context, and not from the content of the file.
func isRead(err error) bool {
	var s *storeError
	return errors.As(err, &s) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

package errclass

import (
	"errors"
	"fmt"
	"testing"
)

func TestCause(t *testing.T) {
	missing, expired := New(NotFound, "missing file"), New(Security, "expired key")
	both := fmt.Errorf("a: %w, b: %w", missing, fmt.Errorf("check: %w", expired))
	for name, c := range map[string]struct{ err, class, want error }{
		"wrapped":    {fmt.Errorf("open x: %w", missing), NotFound, missing},
		"the second": {both, Security, expired},
		"joined":     {errors.Join(errors.New("other"), both), NotFound, missing},
		"bare class": {fmt.Errorf("%w: no name", Usage), Usage, Usage},
		"another":    {both, Conflict, nil},
		"nothing":    {nil, NotFound, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Cause(c.err, c.class); got != c.want {
				t.Errorf("cause %v, expected %v", got, c.want)
			}
		})
	}
	if missing.Error() != "missing file" || !errors.Is(missing, NotFound) || errors.Is(missing, Security) {
		t.Errorf("sentinel %v: class NotFound %t, Security %t", missing, errors.Is(missing, NotFound), errors.Is(missing, Security))
	}
}

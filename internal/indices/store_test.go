package indices

import (
	"math"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
)

// A client that cannot get an index in time gets the error before the index is made:
// because the program is slow, or because others wait for it.
func TestExpected(t *testing.T) {
	r := &recipe{argv: []string{"xz"}, rate: 1 << 20}
	s := &Store{jobs: map[cas.Digest]time.Duration{}}
	at := func(n byte, seconds int64) *plan {
		return &plan{digest: cas.Digest{n}, plain: seconds << 20, recipe: r}
	}
	expect := func(p *plan, want time.Duration) {
		t.Helper()
		if got := s.expected(p); got != want {
			t.Errorf("expected after %v, want %v", got, want)
		}
	}
	expect(at(9, 6), 6*time.Second)
	first := s.job(at(1, 20))
	expect(at(9, 6), 6*time.Second) // one more program may run
	second := s.job(at(2, 40))
	expect(at(9, 6), 36*time.Second)
	expect(at(2, 40), 40*time.Second) // it is one of the two
	first()
	expect(at(9, 6), 6*time.Second)
	second()
	s.job(&plan{digest: cas.Digest{3}, plain: math.MaxInt32})() // a plain index needs no program
	if len(s.jobs) > 0 {
		t.Errorf("jobs are left: %v", s.jobs)
	}
}

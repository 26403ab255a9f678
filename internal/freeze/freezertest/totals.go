package freezertest

import (
	"slices"
	"sync"
	"testing"

	"example.org/snapd/internal/acquire"
)

// Totals records the totals of a progress at several times.
type Totals struct {
	mu   sync.Mutex
	list [][2]int64 // files, bytes
}

// Note records the present totals.
func (s *Totals) Note(p *acquire.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, [2]int64{p.FilesTotal.Load(), p.BytesTotal.Load()})
}

// Are fails the test unless the totals never changed and were reached.
func (s *Totals) Are(t *testing.T, what string, p *acquire.Progress) {
	t.Helper()
	end := [2]int64{p.Files.Load(), p.Bytes.Load()}
	if len(s.list) == 0 || end[0] == 0 || end[1] == 0 || slices.ContainsFunc(s.list, func(n [2]int64) bool { return n != end }) {
		t.Errorf("%s: the end is %v, the totals were %v", what, end, s.list)
	}
}

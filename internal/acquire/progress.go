package acquire

import "sync/atomic"

// Progress counts the work of a long operation, for people who wait. Its
// fields may be read at any time.
type Progress struct {
	phase                                atomic.Value
	Files, FilesTotal, Bytes, BytesTotal atomic.Int64
}

// SetPhase says what is being done now.
func (p *Progress) SetPhase(s string) {
	if p != nil {
		p.phase.Store(s)
	}
}

// Phase returns what is being done now.
func (p *Progress) Phase() string {
	s, _ := p.phase.Load().(string)
	return s
}

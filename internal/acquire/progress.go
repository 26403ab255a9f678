package acquire

import "sync/atomic"

// Progress counts the work of a long operation, for display. Its fields may be read
// concurrently.
type Progress struct {
	phase                                atomic.Value
	Files, FilesTotal, Bytes, BytesTotal atomic.Int64
}

// SetPhase sets the current phase.
func (p *Progress) SetPhase(s string) {
	if p != nil {
		p.phase.Store(s)
	}
}

// Phase returns the current phase.
func (p *Progress) Phase() string {
	s, _ := p.phase.Load().(string)
	return s
}

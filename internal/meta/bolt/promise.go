package bolt

import (
	"errors"

	"example.org/snapd/internal/meta"
)

// promises reports, within one transaction, which package files must be stored: those of
// a complete generation, and those of a suite that was frozen whole. Others are
// downloaded on demand.
type promises struct {
	t        *txn
	whole    map[suiteGen]bool   // frozen whole
	complete map[suiteGen]uint32 // results of completeBefore
}

type suiteGen struct {
	suite meta.SuiteID
	gen   uint32
}

// promises reads what the promises of this transaction depend on.
func (t *txn) promises() (*promises, error) {
	p := &promises{t: t, whole: map[suiteGen]bool{}, complete: map[suiteGen]uint32{}}
	frozen, err := t.Frozens()
	if err != nil {
		return nil, err
	}
	for _, f := range frozen {
		for _, m := range f.Mirrors {
			if !m.Whole {
				continue
			}
			for _, s := range m.Suites {
				if id, ok := t.SuiteID(m.Mirror, s.Suite); ok {
					p.whole[suiteGen{id, s.Gen}] = true
				}
			}
		}
	}
	return p, nil
}

// Blob reports whether a blob with these references must be stored.
func (p *promises) Blob(refs []meta.Ref) (bool, error) {
	for _, r := range refs {
		if promised, err := p.ref(r); promised || err != nil {
			return promised, err
		}
	}
	return false, nil
}

func (p *promises) ref(r meta.Ref) (bool, error) {
	if r.Kind != meta.OwnerPackage || len(r.Owner) != 8 {
		return true, nil
	}
	for _, sp := range p.t.Spans(meta.PID(be64([]byte(r.Owner)))) {
		info, err := p.t.index(sp.Index)
		if err != nil {
			return false, err
		}
		for _, iv := range sp.Intervals {
			if end, err := p.completeBefore(info.sid, iv.To); end > iv.From || err != nil {
				return err == nil, err
			}
		}
		for w := range p.whole {
			if w.suite == info.sid && sp.Has(w.gen) {
				return true, nil
			}
		}
	}
	return false, nil
}

// completeBefore returns the number after the newest generation before gen if that one
// was complete, otherwise 0.
func (p *promises) completeBefore(suite meta.SuiteID, gen uint32) (uint32, error) {
	k := suiteGen{suite, gen}
	if n, known := p.complete[k]; known {
		return n, nil
	}
	var n uint32
	g, err := p.t.genBefore(suite, gen)
	switch {
	case errors.Is(err, meta.ErrNotFound):
	case err != nil:
		return 0, err
	case g.Complete:
		n = g.Gen + 1
	}
	p.complete[k] = n
	return n, nil
}

package bolt

import (
	"errors"

	"example.org/snapd/internal/meta"
)

// Promises answers, within one transaction, which package files must be here:
// those of a generation that was complete, and those of a suite that was frozen
// whole. Other packages come when somebody asks for them.
type Promises struct {
	t        *Tx
	whole    map[suiteGen]bool   // frozen whole
	complete map[suiteGen]uint32 // answers of completeBefore
}

type suiteGen struct {
	suite meta.SuiteID
	gen   uint32
}

// Promises reads what the promises of this transaction rest on.
func (t *Tx) Promises() (*Promises, error) {
	p := &Promises{t: t, whole: map[suiteGen]bool{}, complete: map[suiteGen]uint32{}}
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

// Blob reports whether a blob with these references must be here.
func (p *Promises) Blob(refs []meta.Ref) (bool, error) {
	for _, r := range refs {
		if promised, err := p.ref(r); promised || err != nil {
			return promised, err
		}
	}
	return false, nil
}

func (p *Promises) ref(r meta.Ref) (bool, error) {
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

// completeBefore is the number after the newest generation before gen, if that
// was complete; else 0.
func (p *Promises) completeBefore(suite meta.SuiteID, gen uint32) (uint32, error) {
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

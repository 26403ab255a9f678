package buildlist

import (
	"fmt"
	"strings"
)

// historyFields are the fields read from a transaction in apt's history.log.
func historyFields(name string) bool {
	switch name {
	case "start-date", "end-date", "install", "reinstall", "upgrade", "downgrade", "remove", "purge", "error":
		return true
	}
	return false
}

// replay is the set of packages after a series of transactions, in the order of their
// first occurrence.
type replay struct {
	p     *parser
	state map[string]*replayed
	order []*replayed
}

type replayed struct {
	Entry
	gone bool // removed by the transaction at Line
}

// set records the new state of the package identified by key.
func (r *replay) set(key string, e Entry, gone bool) error {
	if at := r.state[key]; at != nil {
		*at = replayed{e, gone}
		return nil
	}
	if len(r.order) >= MaxEntries {
		return fmt.Errorf("%s:%d: more than %d packages: %w", r.p.file, e.Line, MaxEntries, ErrTooLarge)
	}
	if r.state == nil {
		r.state = make(map[string]*replayed)
	}
	at := &replayed{e, gone}
	r.state[key] = at
	r.order = append(r.order, at)
	return nil
}

// finish adds the remaining packages, and notes the removed ones.
func (r *replay) finish() error {
	for _, at := range r.order {
		if at.gone {
			r.p.note(at.Line, "%s was removed or replaced: skipped", at.Entry.String())
			continue
		}
		if err := r.p.add(at.Entry); err != nil {
			return err
		}
	}
	return nil
}

// aptHistory parses apt's history.log: the packages that its transactions installed or
// upgraded, in their final versions. apt writes the machine's architecture also for
// packages of architecture "all".
func (p *parser) aptHistory() error {
	r := &replay{p: p}
	err := p.eachStanza(p.nextLine, historyFields, func(f stanza) error {
		start, ok := f.get("start-date")
		if !ok {
			return p.malformed(p.line, "a transaction with a Start-Date field", "")
		}
		if msg, ok := f.get("error"); ok {
			p.note(msg.line, "the transaction of %s ended with an error (%s): its packages are listed as it planned them", clip(start.value), clip(msg.value))
		} else if _, ok := f.get("end-date"); !ok {
			p.note(start.line, "the transaction of %s has no end: its packages are listed as it planned them", clip(start.value))
		}
		// A package is in one of the fields of a transaction.
		for _, action := range f {
			switch action.name {
			case "start-date", "end-date", "error":
				continue
			}
			if err := p.historyAction(r, action); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.finish()
}

// historyAction parses "name:arch (version[, new version][, automatic]), …".
func (p *parser) historyAction(r *replay, action field) error {
	gone := action.name == "remove" || action.name == "purge"
	for rest := strings.ReplaceAll(action.value, "\n", " "); rest != ""; {
		item, after, ok := strings.Cut(rest, ")")
		name, versions, ok2 := strings.Cut(item, " (")
		e := Entry{Ecosystem: Deb, Size: -1, Line: action.line, Raw: clip(item + ")")}
		var okArch bool
		if e.Name, e.Arch, okArch = splitArch(name); !ok || !ok2 || !okArch || !debName(e.Name) {
			return p.malformed(action.line, "name:architecture (version)", rest)
		}
		for v := range strings.SplitSeq(versions, ",") {
			if v = strings.TrimSpace(v); v != "automatic" {
				e.Version = v // of an upgrade the second one
			}
		}
		if !debVersion(e.Version) {
			return p.malformed(action.line, "a version of "+clip(name), versions)
		}
		if err := r.set(name, e, gone); err != nil {
			return err
		}
		if rest, ok = strings.CutPrefix(after, ", "); !ok && strings.TrimSpace(after) != "" {
			return p.malformed(action.line, "a comma after "+clip(item)+")", after)
		}
	}
	return nil
}

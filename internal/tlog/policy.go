package tlog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/regfile"
)

// Policy says which logs and which witnesses are trusted (tlog-policy).
type Policy struct {
	Logs      []PolicyLog
	Witnesses []PolicyWitness
	groups    map[string]group
	quorum    string // "": none is needed
}

// PolicyLog is a log line.
type PolicyLog struct {
	Key *VerifierKey
	URL string
}

// PolicyWitness is a witness line.
type PolicyWitness struct {
	Name string // in the policy
	Key  *VerifierKey
	URL  string // the submission prefix
}

// group is satisfied by k of its members.
type group struct {
	k       int
	members []string
}

// maxPolicyLines limits a policy.
const maxPolicyLines = 10_000

// LogPolicy returns a policy that trusts one log and needs no witness.
func LogPolicy(key *VerifierKey) *Policy { return &Policy{Logs: []PolicyLog{{Key: key}}} }

// LoadPolicy reads a policy file. Its error is an ErrPolicy that names the line.
func LoadPolicy(file string) (*Policy, error) {
	data, err := regfile.Read(file, MaxPolicy)
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// ParsePolicy reads a policy. Its error is an ErrPolicy that names the line.
func ParsePolicy(data []byte) (*Policy, error) {
	r := &policyReader{p: &Policy{groups: map[string]group{}}, used: map[string]bool{}}
	lines := strings.Split(string(data), "\n")
	if len(lines) > maxPolicyLines {
		return nil, fmt.Errorf("%w: more than %d lines", ErrPolicy, maxPolicyLines)
	}
	for i, line := range lines {
		if strings.IndexFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) >= 0 {
			return nil, fmt.Errorf("%w: line %d: control character", ErrPolicy, i+1)
		}
		fields := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' })
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := r.line(fields); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrPolicy, i+1, err)
		}
	}
	if !r.decided {
		return nil, fmt.Errorf("%w: no quorum line (\"quorum none\" requires no witness)", ErrPolicy)
	}
	return r.p, nil
}

// policyReader reads the lines of a policy.
type policyReader struct {
	p       *Policy
	used    map[string]bool // names that are members of a group
	decided bool
}

func (r *policyReader) line(f []string) error {
	switch f[0] {
	case "log":
		return r.log(f[1:])
	case "witness":
		return r.witness(f[1:])
	case "group":
		return r.group(f[1:])
	case "quorum":
		if len(f) != 2 {
			return fmt.Errorf("expected quorum NAME")
		}
		if r.decided {
			return fmt.Errorf("a second quorum line")
		}
		if r.decided = true; f[1] == "none" {
			return nil
		}
		r.p.quorum = f[1]
		return r.known(f[1])
	}
	return fmt.Errorf("unknown word %q, expected log, witness, group or quorum", f[0])
}

func (r *policyReader) log(f []string) error {
	if len(f) != 1 && len(f) != 2 {
		return fmt.Errorf("expected log VKEY [URL]")
	}
	k, err := ParseVerifierKey(f[0])
	if err != nil {
		return err
	}
	if k.Cosigns() {
		return fmt.Errorf("%s is the key of a witness, expected the key of a log", k.Name())
	}
	if slices.ContainsFunc(r.p.Logs, func(l PolicyLog) bool { return l.Key.public.Equal(k.public) }) {
		return fmt.Errorf("log %s is listed twice", k.Name())
	}
	l := PolicyLog{Key: k}
	if len(f) == 2 {
		l.URL = f[1]
	}
	r.p.Logs = append(r.p.Logs, l)
	return nil
}

func (r *policyReader) witness(f []string) error {
	if len(f) != 2 && len(f) != 3 {
		return fmt.Errorf("expected witness NAME VKEY [URL]")
	}
	if err := r.unused(f[0]); err != nil {
		return err
	}
	k, err := ParseVerifierKey(f[1])
	if err != nil {
		return err
	}
	if !k.Cosigns() {
		return fmt.Errorf("%s is the key of a log, expected the key of a witness", k.Name())
	}
	if slices.ContainsFunc(r.p.Witnesses, func(w PolicyWitness) bool { return w.Key.public.Equal(k.public) }) {
		return fmt.Errorf("the key of witness %s is listed twice", f[0])
	}
	w := PolicyWitness{Name: f[0], Key: k}
	if len(f) == 3 {
		w.URL = strings.TrimRight(f[2], "/")
	}
	r.p.Witnesses = append(r.p.Witnesses, w)
	return nil
}

func (r *policyReader) group(f []string) error {
	if len(f) < 3 {
		return fmt.Errorf("expected group NAME all|any|K NAME…")
	}
	if err := r.unused(f[0]); err != nil {
		return err
	}
	g := group{members: f[2:]}
	switch f[1] {
	case "all":
		g.k = len(g.members)
	case "any":
		g.k = 1
	default:
		k, err := strconv.Atoi(f[1])
		if err != nil || k < 1 || k > len(g.members) || strconv.Itoa(k) != f[1] {
			return fmt.Errorf("group %s: %q of %d members, expected all, any or a number", f[0], f[1], len(g.members))
		}
		g.k = k
	}
	for _, m := range g.members {
		if err := r.known(m); err != nil {
			return err
		}
		if r.used[m] {
			return fmt.Errorf("%s is a member twice", m)
		}
		r.used[m] = true
	}
	r.p.groups[f[0]] = g
	return nil
}

func (r *policyReader) has(name string) bool {
	_, ok := r.p.groups[name]
	return ok || slices.ContainsFunc(r.p.Witnesses, func(w PolicyWitness) bool { return w.Name == name })
}

func (r *policyReader) known(name string) error {
	if !r.has(name) {
		return fmt.Errorf("%q is neither a witness nor a group of an earlier line", name)
	}
	return nil
}

func (r *policyReader) unused(name string) error {
	if name == "none" || r.has(name) {
		return fmt.Errorf("the name %q is reserved or used twice", name)
	}
	return nil
}

// Satisfied reports whether the witnesses with these names are a quorum.
func (p *Policy) Satisfied(names []string) bool { return p.quorum == "" || p.counts(p.quorum, names) }

func (p *Policy) counts(name string, names []string) bool {
	g, ok := p.groups[name]
	if !ok {
		return slices.Contains(names, name)
	}
	n := 0
	for _, m := range g.members {
		if p.counts(m, names) {
			n++
		}
	}
	return n >= g.k
}

// Checked is a checkpoint that satisfies a policy.
type Checked struct {
	Checkpoint *Checkpoint
	Log        *VerifierKey
	Witnesses  []string // names of the witnesses that cosigned
}

// Check checks that a checkpoint is signed by a log of the policy and cosigned by a
// quorum. If not, it returns ErrProof.
func (p *Policy) Check(checkpoint []byte) (*Checked, error) {
	c, err := ParseCheckpoint(checkpoint)
	if err != nil {
		return nil, err
	}
	out := &Checked{Checkpoint: c}
	for _, l := range p.Logs {
		if l.Key.Name() == c.Origin {
			if _, err = OpenCheckpoint(checkpoint, l.Key); err == nil {
				out.Log = l.Key
				break
			}
		}
	}
	switch {
	case out.Log != nil:
	case err != nil:
		return nil, err
	default:
		return nil, fmt.Errorf("%w: checkpoint of log %s, which the policy does not name (%s)", ErrProof, excerpt.Of(c.Origin), p.logNames())
	}
	if out.Witnesses, err = p.CosignedBy(checkpoint); err != nil {
		return nil, err
	}
	if !p.Satisfied(out.Witnesses) {
		by := strings.Join(out.Witnesses, ", ")
		if by == "" {
			by = "none"
		}
		return nil, fmt.Errorf("%w: checkpoint of %s at %d entries: found cosignatures by %s, expected the quorum %s", ErrProof, c.Origin, c.Size, by, p.quorum)
	}
	return out, nil
}

func (p *Policy) logNames() string {
	var names []string
	for _, l := range p.Logs {
		names = append(names, l.Key.Name())
	}
	return strings.Join(names, ", ")
}

// CosignedBy returns the names of the witnesses in the policy that cosigned a checkpoint.
// It returns ErrProof if one of their cosignatures is wrong.
func (p *Policy) CosignedBy(checkpoint []byte) (names []string, err error) {
	for _, w := range p.Witnesses {
		_, err := note.Open(checkpoint, note.VerifierList(w.Key))
		switch err.(type) {
		case nil:
			names = append(names, w.Name)
		case *note.UnverifiedNoteError:
		default:
			return nil, fmt.Errorf("%w: cosignature by witness %s: %w", ErrProof, w.Name, err)
		}
	}
	return names, nil
}

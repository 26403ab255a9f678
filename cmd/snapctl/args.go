package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/lazyregexp"
)

// A line is a parsed command line. The parser requires options before arguments, but
// snapctl accepts them in any order.
type line struct {
	path    []*verb  // the root, groups and the verb
	global  []string // options of every verb, --name=value or --name
	options []string // options of this verb, the same
	args    []string
	help    bool
	version bool
	seen    map[string]bool // names of the options that were given
}

// name returns the verb with its groups: "record start".
func (l *line) name() string {
	var names []string
	for _, v := range l.path[1:] {
		names = append(names, v.name)
	}
	return strings.Join(names, " ")
}

func (l *line) json() bool { return slices.Contains(l.global, "--json") }

// verb returns the innermost verb on the line.
func (l *line) verb() *verb { return l.path[len(l.path)-1] }

// parseLine parses args. It never returns a nil line: after an error, the line contains
// the part that was parsed.
func parseLine(root *verb, args []string) (*line, error) {
	l := &line{path: []*verb{root}, seen: map[string]bool{}}
	// --json determines how errors are printed, so look for it first, at any position.
	for _, a := range args {
		if a == "--" {
			break
		}
		if a == "--json" {
			l.global = append(l.global, a)
			l.seen["json"] = true
			break
		}
	}
	var last *option // the option whose value the previous argument was
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			for _, a := range args[i+1:] {
				if err := l.positional(a, nil); err != nil {
					return l, err
				}
			}
			return l, nil
		case a == "-h" || a == "--help":
			l.help = true
			last = nil
		case a == "--version" && len(l.path) == 1:
			l.version = true
		case len(a) > 1 && a[0] == '-':
			o, rest, err := l.option(a, args[i+1:])
			if err != nil {
				return l, err
			}
			i += len(args) - i - 1 - len(rest)
			last = o
		default:
			if err := l.positional(a, last); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

// option parses one option. If its value is the next argument, option removes it from
// rest.
func (l *line) option(a string, rest []string) (*option, []string, error) {
	name, value, has := strings.Cut(strings.TrimPrefix(a, "--"), "=")
	o, global := l.find(name)
	if o == nil || !strings.HasPrefix(a, "--") {
		shown, _, _ := strings.Cut(a, "=")
		msg := fmt.Sprintf("unknown option %s", shown)
		if near := nearest(strings.TrimLeft(name, "-"), l.optionNames()); near != "" {
			msg += fmt.Sprintf(" (did you mean --%s?)", near)
		}
		return nil, rest, &usageError{verb: l.name(), msg: msg}
	}
	if l.seen[name] && !o.many && name != "json" {
		return nil, rest, &usageError{verb: l.name(), msg: fmt.Sprintf("option --%s is given twice", name)}
	}
	l.seen[name] = true
	text := "--" + name
	switch {
	case o.value == "" && has && value != "true" && value != "false":
		return nil, rest, &usageError{verb: l.name(), msg: fmt.Sprintf("option --%s takes no value, found %q", name, value)}
	case o.value == "" && has && value == "false":
		if name == "json" {
			l.global = slices.DeleteFunc(l.global, func(s string) bool { return s == "--json" })
		}
		return o, rest, nil
	case o.value == "":
	case has:
		text += "=" + value
	case o.optional:
		// More values may follow: see positional.
		l.options = append(l.options, text+"=")
		return o, rest, nil
	case len(rest) == 0:
		return nil, rest, &usageError{verb: l.name(), msg: fmt.Sprintf("option --%s needs a value: %s", name, o.value)}
	default:
		value = rest[0]
		text += "=" + value
		rest = rest[1:]
	}
	if len(o.choices) > 0 && !slices.Contains(o.choices, value) {
		return nil, rest, &usageError{verb: l.name(), msg: fmt.Sprintf("--%s %q: expected %s", name, value, orList(o.choices))}
	}
	if o.value != "" && value == "" && !o.optional {
		return nil, rest, &usageError{verb: l.name(), msg: fmt.Sprintf("option --%s needs a value: %s", name, o.value)}
	}
	switch {
	case !global:
		l.options = append(l.options, text)
	case name != "json" || !l.json():
		l.global = append(l.global, text)
	}
	return o, rest, nil
}

// find looks an option up in the verb and among the global options.
func (l *line) find(name string) (o *option, global bool) {
	v := l.verb()
	for i := range v.options {
		if v.options[i].name == name {
			return &v.options[i], false
		}
	}
	for i := range globals {
		if globals[i].name == name {
			return &globals[i], true
		}
	}
	return nil, false
}

func (l *line) optionNames() []string {
	out := []string{"help"}
	for _, o := range append(slices.Clone(l.verb().options), globals...) {
		out = append(out, o.name)
	}
	return out
}

// positional handles a word that is not an option: the name of a verb, an argument, or,
// once there are enough arguments, another value of a repeatable option.
func (l *line) positional(a string, last *option) error {
	v := l.verb()
	if len(v.verbs) > 0 && len(l.args) == 0 {
		var names []string
		for _, s := range v.verbs {
			if s.name == a {
				l.path = append(l.path, s)
				return nil
			}
			if !s.hidden {
				names = append(names, s.name)
			}
		}
		if v.run != nil { // a verb with arguments, as in "attest NAME"
			l.args = append(l.args, a)
			return nil
		}
		msg := fmt.Sprintf("unknown command %q", strings.TrimSpace(l.name()+" "+a))
		if near := nearest(a, names); near != "" {
			msg += fmt.Sprintf(" (did you mean %q?)", near)
		}
		return &usageError{verb: l.name(), msg: msg}
	}
	if last != nil && last.many && v.max >= 0 && len(l.args) >= v.max {
		text := "--" + last.name + "="
		if last.optional && len(l.options) > 0 && l.options[len(l.options)-1] == text {
			l.options[len(l.options)-1] += a
		} else {
			l.options = append(l.options, text+a)
		}
		return nil
	}
	l.args = append(l.args, a)
	return nil
}

// check returns an error if the line has missing or excess arguments or options.
func (l *line) check() error {
	v := l.verb()
	if v.run == nil {
		var names []string
		for _, s := range v.verbs {
			if !s.hidden {
				names = append(names, s.name)
			}
		}
		if len(l.path) == 1 {
			return &usageError{msg: "expected a command"}
		}
		return &usageError{verb: l.name(), msg: fmt.Sprintf("%s needs a command: %s", l.name(), orList(names))}
	}
	for _, o := range v.options {
		if o.required && !l.seen[o.name] {
			return &usageError{verb: l.name(), msg: fmt.Sprintf("%s needs --%s %s", l.name(), o.name, o.value)}
		}
	}
	switch n := len(l.args); {
	case n < v.min:
		words := strings.Fields(v.args)
		return &usageError{verb: l.name(), msg: fmt.Sprintf("%s needs %s", l.name(), strings.Join(words[min(n, len(words)-1):min(v.min, len(words))], " and "))}
	case v.max >= 0 && n > v.max:
		return &usageError{verb: l.name(), msg: fmt.Sprintf("%s: unexpected argument %q", l.name(), l.args[v.max])}
	}
	return nil
}

// canonical returns the line in the order that the parser requires.
func (l *line) canonical() []string {
	out := append([]string{"snapctl"}, l.global...)
	for _, v := range l.path[1:] {
		out = append(out, v.name)
	}
	out = append(out, l.options...)
	out = append(out, "--")
	return append(out, l.args...)
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// nearest returns the candidate that a mistyped word probably means, or "".
func nearest(word string, words []string) string {
	best, dist := "", 3
	for _, w := range words {
		if d := distance(word, w); d < dist && d < max(len(w), 2) {
			best, dist = w, d
		}
	}
	return best
}

// distance returns the Levenshtein distance.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, cost)
		}
	}
	return row[len(b)]
}

// timeForms are the accepted ISO 8601 formats of a timestamp, extended and basic.
// Without an offset the time is UTC.
var timeForms = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02",
	"20060102T150405Z0700", "20060102T1504Z0700", "20060102T150405", "20060102",
}

// parseTime parses a timestamp.
func parseTime(s string) (time.Time, error) {
	for _, f := range timeForms {
		if t, err := time.Parse(f, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: expected a form like 2026-11-22 or 2026-11-22T16:00:00Z", s)
}

// timestamp returns the time in an option, or nil if the option is absent.
func (c *call) timestamp(name string) (*time.Time, error) {
	s := c.str(name)
	if s == "" {
		return nil, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return nil, c.usagef("--%s: %v", name, err)
	}
	return &t, nil
}

// checkName refuses names that no freeze, recording or mirror can have.
func (c *call) checkName(what, s string) error {
	if !config.ValidName(s) {
		return c.usagef("%s %q: expected letters, digits and .+~_- (at most 100, the first a letter or digit)", what, s)
	}
	if s == "latest" {
		return c.usagef("%s %q: the name is reserved", what, s)
	}
	return nil
}

// checkRef refuses strings that cannot be a snapshot or a freeze: NAME, M@T or
// M@latest.
func (c *call) checkRef(s string) error {
	name, at, dated := strings.Cut(s, "@")
	if !config.ValidName(name) || name == "latest" {
		return c.usagef("%q is not a snapshot: expected the name of a freeze, MIRROR@TIME or MIRROR@latest", s)
	}
	if dated && at != "latest" {
		if _, err := parseTime(at); err != nil {
			return c.usagef("%s: %v", s, err)
		}
	}
	return nil
}

// checkSnapshot refuses strings that cannot be a snapshot of a mirror: M@T or
// M@latest.
func (c *call) checkSnapshot(s string) error {
	if !strings.Contains(s, "@") {
		return c.usagef("%q is not a snapshot: expected MIRROR@TIME or MIRROR@latest", s)
	}
	return c.checkRef(s)
}

var digestRE = lazyregexp.New(`^(sha256:)?[0-9a-f]{64}$`)

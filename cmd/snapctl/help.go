package main

import (
	"context"
	"fmt"
	"strings"

	"example.org/snapd/internal/api"
)

func helpVerb() *verb {
	return &verb{
		result: new(api.TextResult),
		name:   "help", args: "[COMMAND...]", max: -1,
		usage:    "show help for a command",
		examples: []string{"snapctl help freeze", "snapctl help record start"},
		run: func(_ context.Context, c *call) error {
			path, err := verbPath(root(), c.Args().Slice())
			if err != nil {
				return err
			}
			show(c.ui, &api.TextResult{Text: helpText(path)}, func(r *api.TextResult) { c.ui.text(r.Text) })
			return nil
		},
	}
}

// verbPath resolves names, starting at root.
func verbPath(root *verb, names []string) ([]*verb, error) {
	l := &line{path: []*verb{root}}
	for _, n := range names {
		if len(l.verb().verbs) == 0 {
			return nil, &usageError{verb: "", msg: fmt.Sprintf("%s has no command %q", l.name(), n)}
		}
		if err := l.positional(n, nil); err != nil {
			return nil, err
		}
	}
	return l.path, nil
}

// helpText returns the help of the last verb of a path.
func helpText(path []*verb) string {
	var b strings.Builder
	v := path[len(path)-1]
	var names []string
	for _, p := range path {
		names = append(names, p.name)
	}
	name := strings.Join(names, " ")
	b.WriteString(fmt.Sprintf("%s - %s\n\nUsage: %s\n", name, v.usage, synopsis(name, v)))
	if v.about != "" {
		b.WriteString("\n" + v.about + "\n")
	}
	if len(v.verbs) > 0 {
		b.WriteString("\nCommands:\n")
		var rows [][2]string
		for _, s := range v.verbs {
			if !s.hidden {
				rows = append(rows, [2]string{s.name, s.usage})
			}
		}
		columns(&b, rows)
	}
	if len(v.options) > 0 {
		b.WriteString("\nOptions:\n")
		var rows [][2]string
		for _, o := range v.options {
			rows = append(rows, [2]string{o.form(), o.usage})
		}
		columns(&b, rows)
	}
	b.WriteString("\nGlobal options:\n")
	var rows [][2]string
	for _, o := range globals {
		rows = append(rows, [2]string{o.form(), o.usage})
	}
	columns(&b, append(rows, [2]string{"--help", "show help for the command"}))
	b.WriteString("\nExamples:\n")
	for _, e := range v.examples {
		b.WriteString("  " + e + "\n")
	}
	if len(path) == 1 {
		b.WriteString("\nExit codes: 0 ok, 1 failed, 2 usage, 3 partly done, 4 verification failed,\n130 interrupted.\n")
	}
	return b.String()
}

// lineWidth is the longest line of help, in characters. Examples are not wrapped,
// so that they can be copied.
const lineWidth = 80

// columns prints words and their descriptions, which wrap below themselves.
func columns(b *strings.Builder, rows [][2]string) {
	left := 0
	for _, r := range rows {
		left = max(left, len(r[0]))
	}
	left += 4
	for _, r := range rows {
		at, _ := fmt.Fprintf(b, "  %-*s", left-2, r[0])
		for i, word := range strings.Fields(r[1]) {
			switch {
			case i == 0:
			case at+1+len(word) > lineWidth:
				b.WriteString("\n" + strings.Repeat(" ", left))
				at = left
			default:
				b.WriteByte(' ')
				at++
			}
			b.WriteString(word)
			at += len(word)
		}
		b.WriteByte('\n')
	}
}

// form returns the spelling of an option.
func (o option) form() string {
	s := "--" + o.name
	switch {
	case o.optional:
		s += "[=" + o.value + "]"
	case o.value != "":
		s += " " + o.value
	}
	if o.many {
		s += "..."
	}
	return s
}

// synopsis returns the usage line of a verb.
func synopsis(name string, v *verb) string {
	const commands = "COMMAND [OPTIONS] [ARGUMENTS]"
	if len(v.verbs) > 0 && v.run == nil {
		return name + " " + commands
	}
	if v.args != "" {
		name += " " + v.args
	}
	if len(v.options) > 0 {
		name += " [OPTIONS]"
	}
	if len(v.verbs) > 0 {
		name += " | " + commands
	}
	return name
}

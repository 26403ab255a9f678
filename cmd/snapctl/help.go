package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"example.org/snapd/internal/api"
)

func helpVerb() *verb {
	return &verb{
		result: new(api.TextResult),
		name:   "help", args: "[COMMAND...]", max: -1,
		usage:    "explain a command",
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

// verbPath walks names down from root.
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

// helpText explains the last verb of a path.
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
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	if len(v.verbs) > 0 {
		b.WriteString("\nCommands:\n")
		for _, s := range v.verbs {
			if !s.hidden {
				fmt.Fprintf(w, "  %s\t%s\n", s.name, s.usage)
			}
		}
		w.Flush()
	}
	if len(v.options) > 0 {
		b.WriteString("\nOptions:\n")
		for _, o := range v.options {
			fmt.Fprintf(w, "  %s\t%s\n", o.form(), o.usage)
		}
		w.Flush()
	}
	b.WriteString("\nEvery command takes:\n")
	for _, o := range globals {
		fmt.Fprintf(w, "  %s\t%s\n", o.form(), o.usage)
	}
	fmt.Fprintf(w, "  --help\texplain the command\n")
	w.Flush()
	b.WriteString("\nExamples:\n")
	for _, e := range v.examples {
		b.WriteString("  " + e + "\n")
	}
	if len(path) == 1 {
		b.WriteString("\nExit codes: 0 ok, 1 failed, 2 usage, 3 partly done, 4 verification failed,\n130 interrupted.\n")
	}
	return b.String()
}

// form is how an option is written.
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

// synopsis is a verb's usage line.
func synopsis(name string, v *verb) string {
	switch {
	case len(v.verbs) > 0:
		return name + " COMMAND [OPTIONS] [ARGUMENTS]"
	case v.args == "" && len(v.options) == 0:
		return name
	case v.args == "":
		return name + " [OPTIONS]"
	case len(v.options) == 0:
		return name + " " + v.args
	}
	return name + " " + v.args + " [OPTIONS]"
}

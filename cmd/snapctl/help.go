package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
)

func helpVerb() *verb {
	return &verb{
		name: "help", args: "[COMMAND...]", max: -1,
		usage:    "explain a command",
		examples: []string{"snapctl help freeze", "snapctl help record start"},
		run: func(_ context.Context, c *call) error {
			path, err := verbPath(root(), c.Args().Slice())
			if err != nil {
				return err
			}
			c.ui.help(path)
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

// help explains the last verb of a path.
func (u *ui) help(path []*verb) {
	v := path[len(path)-1]
	var names []string
	for _, p := range path {
		names = append(names, p.name)
	}
	name := strings.Join(names, " ")
	u.text(fmt.Sprintf("%s - %s\n\nUsage: %s\n", name, v.usage, synopsis(name, v)))
	if v.about != "" {
		u.text("\n" + v.about + "\n")
	}
	w := tabwriter.NewWriter(u.out, 0, 8, 2, ' ', 0)
	if len(v.verbs) > 0 {
		u.text("\nCommands:\n")
		for _, s := range v.verbs {
			if !s.hidden {
				fmt.Fprintf(w, "  %s\t%s\n", s.name, s.usage)
			}
		}
		w.Flush()
	}
	if len(v.options) > 0 {
		u.text("\nOptions:\n")
		for _, o := range v.options {
			fmt.Fprintf(w, "  %s\t%s\n", o.form(), o.usage)
		}
		w.Flush()
	}
	u.text("\nEvery command takes:\n")
	for _, o := range globals {
		fmt.Fprintf(w, "  %s\t%s\n", o.form(), o.usage)
	}
	fmt.Fprintf(w, "  --help\texplain the command\n")
	w.Flush()
	u.text("\nExamples:\n")
	for _, e := range v.examples {
		u.text("  " + e + "\n")
	}
	if len(path) == 1 {
		u.text("\nExit codes: 0 ok, 1 failed, 2 usage, 3 partly done, 4 verification failed,\n130 interrupted.\n")
	}
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

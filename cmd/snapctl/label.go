package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
)

func labelVerb() *verb {
	return &verb{
		name: "label", args: "NAME [K=V...]", min: 1, max: -1,
		usage: "change the labels and the description of a freeze",
		about: `The labels and the description of a freeze can change, because they are not part
of its manifest. The server signs each change as a statement and adds it to its
transparency log; earlier statements remain.

A key has at most 63 letters, digits and ._/-; a value at most 255 bytes.`,
		examples: []string{
			"snapctl label 4.1 tested=yes ticket=1234",
			"snapctl label 4.1 --remove ticket",
			`snapctl label 4.1 --description 'what 4.1 shipped with'`,
		},
		options: []option{
			{name: "remove", value: "K", many: true, usage: "remove this label"},
			{name: "description", value: "TEXT", usage: "replace the description"},
			{name: "no-description", usage: "remove the description"},
		},
		result: new(api.LabelResult),
		run: func(ctx context.Context, c *call) error {
			req := api.LabelRequest{Name: c.arg(0), Remove: c.list("remove")}
			if err := c.checkName("name", req.Name); err != nil {
				return err
			}
			var err error
			if req.Labels, err = c.labels(c.Args().Slice()[1:]); err != nil {
				return err
			}
			text, none := c.str("description"), c.on("no-description")
			switch {
			case text != "" && none:
				return c.usagef("--description and --no-description cannot be combined")
			case text != "" || none:
				req.Description = &text
			case len(req.Labels)+len(req.Remove) == 0:
				return c.usagef("label needs K=V, --remove K or --description TEXT")
			}
			var r api.LabelResult
			if err := c.ask(ctx, "label", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.labelled)
			return nil
		},
	}
}

// labels parses labels of the form K=V. It returns nil for an empty list.
func (c *call) labels(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, c.usagef("label %q: expected K=V", s)
		}
		if _, twice := out[k]; twice {
			return nil, c.usagef("label %s is given twice", k)
		}
		out[k] = v
	}
	return out, nil
}

// labelsText writes labels on one line, by key.
func labelsText(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, " ")
}

func (u *ui) labelled(r *api.LabelResult) {
	if !r.Changed {
		u.printf("%s has these labels already\n", r.Name)
	}
	u.fields("Frozen", r.Name, "Labels", labelsText(r.Labels))
	u.description(r.Description)
}

// description prints the description of a freeze.
func (u *ui) description(text string) {
	if text != "" {
		u.text("Description:\n  " + strings.ReplaceAll(cleanLines(text), "\n", "\n  ") + "\n")
	}
}

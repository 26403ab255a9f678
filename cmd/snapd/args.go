package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// optionsFirst reorders a command line, which may be in any order, for the parser:
// options of the program, the command, options of the command, arguments.
func optionsFirst(args []string, global []cli.Flag, commands []*cli.Command) []string {
	var command *cli.Command
	var before, own, rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			if k := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == a }); command == nil && len(rest) == 0 && k >= 0 {
				command = commands[k]
			} else {
				rest = append(rest, a)
			}
			continue
		}
		name, _, value := strings.Cut(strings.TrimLeft(a, "-"), "=")
		to := &before
		f := find(global, name)
		if f == nil && command != nil {
			f, to = find(command.Flags, name), &own // the command rejects unknown options
		}
		*to = append(*to, a)
		if _, takes := f.(*cli.StringFlag); takes && !value && i+1 < len(args) {
			i++
			*to = append(*to, args[i])
		}
	}
	if command == nil {
		return slices.Concat(before, rest)
	}
	return slices.Concat(before, []string{command.Name}, own, rest)
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// hasOption reports whether a switch is set.
func hasOption(args []string, name string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if a == name || a == name+"=true" {
			return true
		}
	}
	return false
}

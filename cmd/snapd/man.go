package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"example.org/snapd"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/manpage"
)

// configPage is the name of the page about the configuration.
const configPage = "frozen-snapd.toml"

func manCommand(out *output) *cli.Command {
	return &cli.Command{
		Name: "man", HideHelpCommand: true, OnUsageError: usage,
		Usage: "print the manual page, or write the pages of snapd and its configuration to a directory",
		Flags: []cli.Flag{&cli.StringFlag{Name: "output", Usage: "write snapd.8 and " + configPage + ".5 into `DIR`"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 0 {
				return usagef("man: expected no arguments, found %d", c.NArg())
			}
			res := &api.TextResult{}
			dir := c.String("output")
			if dir == "" {
				res.Text = manPage(c.App)
			} else {
				for name, text := range map[string]string{"snapd.8": manPage(c.App), configPage + ".5": manConfig()} {
					file := filepath.Join(dir, name)
					if err := os.MkdirAll(dir, 0o755); err != nil {
						return err
					}
					if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
						return err
					}
				}
				res.Files = []string{filepath.Join(dir, "snapd.8"), filepath.Join(dir, configPage+".5")}
			}
			out.result(res, func() {
				fmt.Fprint(out.out, res.Text)
				for _, f := range res.Files {
					fmt.Fprintf(out.out, "wrote %s\n", f)
				}
			})
			return nil
		},
	}
}

// manPage is snapd(8).
func manPage(app *cli.App) string {
	p := manpage.New("snapd", 8, "System Administration")
	p.Section("NAME")
	fmt.Fprintf(p, "snapd \\- %s\n", manpage.Escape(app.Usage))
	p.Section("SYNOPSIS")
	fmt.Fprintf(p, ".B snapd\n%s\n", manpage.Escape("[--config FILE] [COMMAND]"))
	p.Section("DESCRIPTION")
	p.Text(`Without a command, snapd runs in the foreground: it syncs the configured mirrors, serves
their snapshots and the freezes over HTTP, and answers snapctl at its
control socket.

This program is not Canonical's snapd, which manages snaps. Its package is called
frozen-snapd, and so are its unit, user and directories.`)
	p.Section("OPTIONS")
	manFlags(p, app.Flags)
	p.Section("COMMANDS")
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		p.Subsection(strings.TrimSpace(c.Name + " " + c.ArgsUsage))
		p.Line(strings.ToUpper(c.Usage[:1]) + c.Usage[1:] + ".")
		if c.Description != "" {
			p.WriteString(".PP\n")
			p.Text(c.Description)
		}
		manFlags(p, c.Flags)
	}
	p.Section("SIGNALS")
	p.Item("stop: transfers get ten seconds to end", "SIGTERM", "SIGINT")
	p.Item("read the configuration again: mirrors and limits take effect at once, other keys at the next start; a file with an error changes nothing", "SIGHUP")
	p.Section("EXIT STATUS")
	p.Line("0 ok, 1 failed, 2 usage, 3 partly done, 4 damaged data, 130 interrupted.")
	p.Section("FILES")
	p.Item("the configuration", "/etc/frozen-snapd/config.toml")
	p.Item("blobs, metadata and the signing key", "/var/lib/frozen-snapd")
	p.Item("the control socket of the service", "/run/frozen-snapd/snapd.sock")
	p.Section("SEE ALSO")
	p.WriteString(".BR snapctl (1),\n.BR frozen\\-snapd.toml (5)\n")
	return p.String()
}

func manFlags(p *manpage.Page, flags []cli.Flag) {
	for _, f := range flags {
		name := "--" + f.Names()[0]
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			p.Item("", name)
			continue
		}
		about := doc.GetUsage()
		if doc.TakesValue() {
			// The name of the value is in backquotes in the text.
			value := "VALUE"
			if a, rest, ok := strings.Cut(about, "`"); ok {
				if v, b, ok := strings.Cut(rest, "`"); ok {
					value, about = v, a+v+b
				}
			}
			name += " " + value
			if d := doc.GetDefaultText(); d != "" {
				about += " (default " + d + ")"
			}
		}
		p.Item(about, name)
	}
}

// manConfig is the page of the configuration's format.
func manConfig() string {
	p := manpage.New(configPage, 5, "File Formats")
	p.Section("NAME")
	fmt.Fprintf(p, "%s \\- configuration of snapd\n", manpage.Escape(configPage))
	p.Section("DESCRIPTION")
	p.Config(snapd.ExampleConfig)
	p.Section("SEE ALSO")
	p.WriteString(".BR snapd (8),\n.BR snapctl (1)\n")
	return p.String()
}

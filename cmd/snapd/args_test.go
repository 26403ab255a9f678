package main

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Options may precede or follow the command and its arguments.
func TestOptionsFirst(t *testing.T) {
	global := []cli.Flag{&cli.StringFlag{Name: "config"}, &cli.BoolFlag{Name: "json"}}
	commands := []*cli.Command{{Name: "restore", Flags: []cli.Flag{&cli.BoolFlag{Name: "allow-damaged"}}}}
	for in, want := range map[string]string{
		"":                               "",
		"--config c":                     "--config c",
		"--config c restore d":           "--config c restore d",
		"restore d --config c --json":    "--config c --json restore d",
		"restore d --allow-damaged":      "restore --allow-damaged d",
		"restore --config=c d --help":    "--config=c restore --help d",
		"restore -- --json":              "restore -- --json",
		"--config restore restore d":     "--config restore restore d",
		"frobnicate restore --json":      "--json frobnicate restore",
		"restore restore --unknown -x":   "restore --unknown -x restore",
		"--unknown restore d --config":   "--unknown --config restore d",
		"--config c --allow-damaged x":   "--config c --allow-damaged x",
		"restore --json=false d -config": "--json=false -config restore d",
	} {
		if got := strings.Join(optionsFirst(strings.Fields(in), global, commands), " "); got != want {
			t.Errorf("%q: %q, expected %q", in, got, want)
		}
	}
	for _, c := range []struct {
		args string
		want bool
	}{{"restore --json d", true}, {"restore d", false}, {"restore -- --json", false}, {"--json=true", true}} {
		if got := hasOption(strings.Fields(c.args), "--json"); got != c.want {
			t.Errorf("%q: %t", c.args, got)
		}
	}
}

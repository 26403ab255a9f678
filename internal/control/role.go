package control

import (
	"fmt"
	"slices"

	"example.org/snapd/internal/errclass"
)

// ErrServes means that a change was requested from a node with the role "serve".
var ErrServes = errclass.New(errclass.Usage, "this node only serves")

// reading lists the verbs that a node with the role "serve" answers. They change nothing
// that nodes share.
var reading = []string{
	"status", "reload", "mirror/list", "mirror/show", "list", "show", "packages", "find", "diff", "sources", "verify", "export", "sbom",
	"export/tar", "image/list", "image/get", "record/show", "record/list", "key/show", "log/show", "log/verify", "log/entries",
	"channel/list", "channel/show", "channel/history", "jobs", "jobs/show", "jobs/cancel", "audit", "token/list",
	"webhook/list", "webhook/log",
}

// Permit returns ErrServes for a verb that this node does not answer.
func (c *Control) Permit(verb string) error {
	if !c.cfg.Conf.Store.Serves() || slices.Contains(reading, verb) {
		return nil
	}
	return fmt.Errorf("%s: %w: its role is %q", verb, ErrServes, c.cfg.Conf.Store.Role)
}

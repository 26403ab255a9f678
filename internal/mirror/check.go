package mirror

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// checks judges the listed files that are not read into records, while the others are
// read.
type checks struct {
	eg       *errgroup.Group
	warnings [][]string // by group
}

// checkGroups starts to judge the listed files that are not package indices, as the
// format's client would.
func (s *suiteSync) checkGroups(ctx context.Context) *checks {
	eg, ctx := errgroup.WithContext(ctx)
	c := &checks{eg: eg, warnings: make([][]string, len(s.groups))}
	todo := make([]int, 0, len(s.groups))
	for i, g := range s.groups {
		if s.stored[i] == nil || g.Packages {
			continue
		}
		if old := groupOf(s.last, g.Index); old != nil && !old.Packages && old.Variant.SHA256 == s.stored[i].SHA256 {
			c.warnings[i] = warningsOf(s.last, g.Index)
			continue
		}
		todo = append(todo, i)
	}
	eg.Go(func() error {
		for _, i := range todo {
			if err := s.checkGroup(ctx, s.groups[i], *s.stored[i], &c.warnings[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return c
}

// checkGroup judges one group.
func (s *suiteSync) checkGroup(ctx context.Context, g repo.Group, variant repo.Listed, warnings *[]string) error {
	found, err := s.f.CheckIndex(ctx, s.root, g, variant, s.openStored)
	if err != nil {
		return fmt.Errorf("index %s%s: %w", s.dir, variant.Path, err)
	}
	for _, w := range found {
		*warnings = append(*warnings, g.Index+": "+w)
	}
	return nil
}

// warningsOf returns the warnings of an earlier generation about one listed file.
func warningsOf(g *meta.Generation, index string) (out []string) {
	for _, w := range g.Warnings {
		if strings.HasPrefix(w, index+": ") {
			out = append(out, w)
		}
	}
	return out
}

// wait returns the warnings, in the order of the groups.
func (c *checks) wait() (out []string, err error) {
	if err := c.eg.Wait(); err != nil {
		return nil, err
	}
	for _, w := range c.warnings {
		out = append(out, w...)
	}
	return out, nil
}

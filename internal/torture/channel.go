package main

import (
	"context"
	"fmt"
	"net/http"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/tlog"
)

// checkChannels checks that the freeze of each channel exists, that the channel's signed
// documents are served, and that its last log entry names the same freeze.
func (s *system) checkChannels(ctx context.Context) error {
	all, err := s.store.Channels(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if _, err := s.store.Freeze(ctx, c.Freeze); err != nil {
			return fmt.Errorf("channel %s: %w", c.Name, err)
		}
		for _, d := range c.Documents {
			status, body, err := s.get(ctx, "/channel/"+c.Name+"/"+d.Path)
			if err != nil || status != http.StatusOK || cas.Sum(body) != d.Digest {
				return fmt.Errorf("channel %s: %s: status %d, %v", c.Name, d.Path, status, err)
			}
		}
		leaf := &tlog.Channel{Name: c.Name, Freeze: string(c.Freeze), Timestamp: meta.FormatTimestamp(c.Moved)}
		want, err := tlog.Encode(leaf)
		if err != nil {
			return err
		}
		n, err := s.store.LogNamed(ctx, leaf.Subjects())
		if err != nil {
			return err
		}
		last := ""
		err = s.tlog.Entries(ctx, n[0], func(i int64, line []byte) error {
			if i == n[0] {
				last = string(line)
			}
			return nil
		})
		if err != nil || last != string(want) {
			return fmt.Errorf("channel %s: the log says %s, expected %s: %v", c.Name, last, want, err)
		}
	}
	return nil
}

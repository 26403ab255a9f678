package control

import (
	"context"
	"errors"
	"fmt"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/tlog"
)

// logPage bounds the entries of one answer.
const logPage = 1000

// LogStatus describes the transparency log, and the entry of a freeze.
func (c *Control) LogStatus(ctx context.Context, req *api.LogRequest) (*api.LogStatus, error) {
	if c.cfg.TLog == nil {
		return nil, fmt.Errorf("transparency log: %w", meta.ErrNotFound)
	}
	s, err := c.cfg.TLog.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := &api.LogStatus{
		Origin: s.Origin, Key: s.Key, Size: s.Size, Root: s.Root, Witnessed: s.Witnessed(), Quorum: s.Quorum, Refused: s.Refused, Damage: s.Damage,
	}
	for _, w := range s.Witnesses {
		out.Witnesses = append(out.Witnesses, api.LogWitness{Name: w.Name, URL: w.URL, Size: w.Size, Error: w.Error})
	}
	if req.Name == "" {
		return out, nil
	}
	leaf, p, err := c.cfg.TLog.Proof(ctx, tlog.FreezeSubject(req.Name))
	if err != nil {
		return nil, fmt.Errorf("freeze %s: %w", req.Name, err)
	}
	out.Entry = &api.LogEntry{Index: p.Index, Entry: string(leaf), Proof: string(p.Encode())}
	return out, nil
}

// VerifyLog recomputes the whole log.
func (c *Control) VerifyLog(ctx context.Context, _ *api.Empty) (*api.LogStatus, error) {
	if _, err := c.cfg.TLog.Verify(ctx); err != nil {
		return nil, err
	}
	out, err := c.LogStatus(ctx, &api.LogRequest{})
	if err == nil {
		out.Verified = true
	}
	return out, err
}

// errPage stops reading when a page is full.
var errPage = errors.New("page is full")

// LogEntries returns a page of entries.
func (c *Control) LogEntries(ctx context.Context, req *api.LogEntriesRequest) (*api.LogEntries, error) {
	out := &api.LogEntries{Entries: []string{}, Next: max(req.From, 0)}
	err := c.cfg.TLog.Entries(ctx, out.Next, func(n int64, entry []byte) error {
		if len(out.Entries) == logPage {
			return errPage
		}
		out.Entries = append(out.Entries, string(entry))
		out.Next = n + 1
		return nil
	})
	if err != nil && !errors.Is(err, errPage) {
		return nil, err
	}
	s, err := c.cfg.TLog.Status(ctx)
	if err != nil {
		return nil, err
	}
	out.Size = s.Size
	return out, nil
}

// logWarnings returns the conditions of the log that Status shows.
func logWarnings(s *api.LogStatus) []string {
	switch {
	case s.Refused != "":
		return []string{s.Refused}
	case s.Damage != "":
		return []string{"transparency log: " + s.Damage + " (snapctl fsck --repair)"}
	case !s.Quorum:
		return []string{"transparency log: witnessed: " + s.Witnessed + ", fewer than the policy's quorum"}
	}
	return nil
}

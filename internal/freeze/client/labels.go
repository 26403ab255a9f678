package client

import (
	"context"
	"fmt"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// Labels returns the labels of a freeze, which the caller must not change, and the number
// of the statement that sets them: 0 if the freeze never had labels.
func (c *Client) Labels(ctx context.Context, f *meta.Frozen) (l freeze.Labels, number int, err error) {
	file, number, ok := freeze.NewestLabels(f)
	if !ok {
		return l, 0, nil
	}
	if l, ok := c.labels.get(file.SHA256); ok {
		return l, number, nil
	}
	data, err := cas.ReadAll(ctx, c.blobs, file.SHA256, freeze.MaxSignature)
	if err != nil {
		return l, number, fmt.Errorf("labels of %s: %w", f.Name, err)
	}
	var s freeze.Statement
	if err := canonical.Unmarshal(data, &s); err != nil {
		return l, number, fmt.Errorf("labels of %s: %s: %w", f.Name, file.Path, err)
	}
	l = freeze.Labels{Labels: s.Labels, Description: s.Description}
	c.labels.put(file.SHA256, l)
	return l, number, nil
}

package control

import (
	"context"
	"fmt"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/sign"
)

const (
	// away is the time since a node was last seen after which it counts as gone.
	away = time.Minute
	// maxSkew is the difference between the clocks of a node and of the database, in
	// seconds, above which there is a warning.
	maxSkew = 60
)

// sharedStatus adds the leases and the nodes that share the metadata.
func (c *Control) sharedStatus(ctx context.Context, out *api.Status) error {
	out.Role = c.cfg.Conf.Store.Role
	if h, ok := cas.Find[cas.Health](c.blobs()); ok {
		if since, err := h.Trouble(ctx); err != nil {
			out.Warnings = append(out.Warnings, fmt.Sprintf("the object store has not answered since %s: %v", since.UTC().Format(time.RFC3339), err))
		}
	}
	shared, err := c.Cluster(ctx)
	if err != nil {
		return err
	}
	out.Leases, out.Nodes = shared.Leases, shared.Nodes
	if c.cfg.Shared == nil {
		return nil
	}
	out.Node = c.cfg.Node
	for _, n := range out.Nodes {
		if n.Up {
			out.Warnings = append(out.Warnings, c.nodeWarnings(n)...)
		}
	}
	if n := c.cfg.Shared.State().Lost; n > 0 {
		out.Warnings = append(out.Warnings, "the database lost commits since this node started: compare 'snapctl list' with what you expect, and run 'snapctl fsck'")
	}
	return nil
}

// Cluster describes the leases and the nodes that share the metadata.
type Cluster struct {
	Leases []api.LeaseStatus // held now
	Nodes  []api.NodeStatus  // empty if nothing is shared
}

// Cluster describes the nodes that share the metadata.
func (c *Control) Cluster(ctx context.Context) (*Cluster, error) {
	out := &Cluster{}
	leases, err := c.st.LeaseStates(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		if l.Held {
			out.Leases = append(out.Leases, api.LeaseStatus{Name: l.Name, Holder: l.Who, Epoch: l.Epoch, Expires: l.Expires})
		}
	}
	if c.cfg.Shared == nil {
		return out, nil
	}
	nodes, now, err := c.cfg.Shared.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, api.NodeStatus{
			Name: n.Name, Role: n.Role, Version: n.Version, Key: n.Key, Started: n.Started, Seen: n.Seen, Up: now.Sub(n.Seen) < away,
			Lag: n.Lag, Skew: n.Skew, CacheBytes: n.Cache, CacheSize: n.CacheSize,
		})
	}
	return out, nil
}

// nodeWarnings returns what is wrong with a node.
func (c *Control) nodeWarnings(n api.NodeStatus) (out []string) {
	if n.Skew > maxSkew || n.Skew < -maxSkew {
		out = append(out, fmt.Sprintf("the clock of node %s is %.0f seconds ahead of the database's: set it", n.Name, n.Skew))
	}
	if own := c.cfg.Signer.Fingerprint(); sign.Fingerprint(n.Key) != own {
		out = append(out, fmt.Sprintf("node %s signs with %s, this one with %s: give all nodes the same key", n.Name, n.Key, own))
	}
	return out
}

package catalog

import (
	"context"
	"net"
	"slices"
	"strings"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
)

// Upstream is a mirror that an upstream URL may belong to.
type Upstream struct {
	Mirror meta.MirrorName
	Path   string // relative to the mirror
}

// Upstreams returns the mirrors that have a base URL above a host and path, the longest
// base first. http and https URLs are the same upstream.
func (c *Catalog) Upstreams(host, p string) []Upstream {
	type hit struct {
		Upstream
		base int
	}
	var hits []hit
	for _, m := range c.Mirrors() {
		for _, b := range m.BaseURLs() {
			if b.Host() == "" || !sameHost(b, host) {
				continue
			}
			base := strings.TrimRight(b.Path(), "/")
			if rest, ok := strings.CutPrefix(p, base+"/"); ok && rest != "" {
				hits = append(hits, hit{Upstream{m.Name, rest}, len(base)})
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return b.base - a.base })
	out := make([]Upstream, len(hits))
	for i, h := range hits {
		out[i] = h.Upstream
	}
	return out
}

// sameHost compares the host of a configured URL with that of a request with the
// given scheme, ignoring default ports.
func sameHost(u remote.URL, host string) bool {
	strip := func(h, port string) string {
		if name, p, err := net.SplitHostPort(h); err == nil && p == port {
			return name
		}
		return h
	}
	port := "80"
	if u.Scheme() == "https" {
		port = "443"
	}
	return strings.EqualFold(strip(u.Host(), port), strip(host, "80"))
}

// AlternateBases returns the base URLs where the indices of a snapshot place
// packages outside the mirror. Clients fetch those packages there, not from this
// server.
func (c *Catalog) AlternateBases(ctx context.Context, snap *meta.Snapshot) ([]string, error) {
	gens, err := c.cfg.Meta.Generations(ctx, snap)
	var out []string
	for _, g := range gens {
		for _, b := range g.AlternateBases {
			if !slices.Contains(out, b) {
				out = append(out, b)
			}
		}
	}
	return out, err
}

package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
)

// frozenRef finds a freeze by its name, or the freeze that a channel shows.
func (p *pages) frozenRef(ctx context.Context, name meta.FreezeName) (catalog.Ref, error) {
	if !config.ValidName(string(name)) {
		return catalog.Ref{}, fmt.Errorf("freeze: %w", meta.ErrNotFound)
	}
	ref, err := p.s.catalog.ResolveRef(ctx, string(name))
	if err == nil && ref.Frozen == nil {
		err = fmt.Errorf("freeze %s: %w", name, meta.ErrNotFound)
	}
	return ref, err
}

func (p *pages) freeze(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	ref, err := p.frozenRef(ctx, meta.FreezeName(vars["name"]))
	if err != nil {
		return page{}, err
	}
	name := ref.Frozen.Name
	manifest := p.s.cfg.Freezer.Manifest(name)
	shown, err := p.s.control.ShowFreeze(ctx, ref.Frozen, manifest)
	if err != nil {
		return page{}, err
	}
	base := "/frozen/" + url.PathEscape(string(name)) + "/"
	links := []link{
		{"/freeze/" + url.PathEscape(string(name)) + "/proof", "proof"}, {base, "files"}, {base + "manifest.json", "manifest.json"}, {base + "manifest.json.asc", "signature"},
		{base + "provenance.json", "provenance.json"},
	}
	configs, err := p.clientConfigs(ctx, ref, base)
	if err != nil {
		return page{}, err
	}
	for _, c := range configs {
		links = append(links, link{c.Href, c.Title})
	}
	links = append(links, link{base + "key.asc", "key"})
	if f := ref.Frozen.ProvSignature; !f.SHA256.IsZero() {
		links = append(links, link{base + f.Path, "signature of provenance.json"})
	}
	for _, st := range ref.Frozen.Statements {
		if freeze.IsComparison(st.Path) {
			digest := st.SHA256.String()
			links = append(links, link{"/freeze/" + url.PathEscape(string(name)) + "/comparison/" + digest, "differences of a rebuilt image, " + digest[:8]})
			continue
		}
		links = append(links, link{fileHref(base, st.Path), st.Path})
	}
	before, err := p.s.control.FreezeBefore(ctx, ref.Frozen)
	if err != nil {
		return page{}, err
	}
	q := r.URL.Query()
	from, err := client.ParsePosition(q.Get("from"))
	if err != nil {
		return page{}, err
	}
	asked, err := pageQuery(q)
	if err != nil {
		return page{}, err
	}
	rows, next, err := p.frozenRows(ctx, name, manifest, asked, from)
	return page{"freeze.html", string(name), map[string]any{"Frozen": shown, "Before": before, "Links": links, "Configs": configs, "Query": q.Get("q"), "Packages": rows, "Next": next, "Short": next != "" && len(rows) < pageFrozen},
		&api.FreezePage{Freeze: shown, Before: before, Packages: packagesOf(rows), Next: next}}, err
}

// clientConfig is a file that configures apt or dnf, to be copied from the page.
type clientConfig struct{ Href, Title, Text string }

// clientConfigs returns the client files of a freeze. A file that cannot be made, for
// example because the key is lost, has no text: the rest of the page is still useful.
func (p *pages) clientConfigs(ctx context.Context, ref catalog.Ref, base string) (out []clientConfig, err error) {
	for _, c := range p.s.catalog.ClientConfigs(ref.Frozen) {
		config := clientConfig{Href: base + c.Path, Title: c.Title}
		res, err := p.s.control.Sources(ctx, &api.SourcesRequest{Ref: string(ref.Frozen.Name), Format: c.Kind})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		} else if err == nil {
			config.Text = res.Text
		}
		out = append(out, config)
	}
	return out, nil
}

// frozenRows returns a page of the packages of a freeze that match a query, and the
// position of the next page, empty at the end.
func (p *pages) frozenRows(ctx context.Context, name meta.FreezeName, manifest *client.Manifest, q *query.Query, from client.Position) (rows []packageRow, next string, err error) {
	base := "/frozen/" + url.PathEscape(string(name)) + "/"
	read := 0
	var last client.Position
	err = manifest.EachRead(ctx, q, from, func(r *client.Read) error {
		if r.Splits(&last) && (len(rows) >= pageFrozen || read >= readLimit(q)) {
			next = r.Position.String()
			return errEnough
		}
		read, last = read+1, r.Position
		if r.Asked {
			rows = append(rows, rowOf(r.Package, base+url.PathEscape(r.Mirror)+"/", false))
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, "", err
	}
	names := make([]string, len(rows))
	for i := range rows {
		names[i] = rows[i].Name
	}
	known, err := p.s.meta.KnownNames(ctx, names)
	for i := range rows {
		rows[i].Known = known[rows[i].Name]
	}
	return rows, next, err
}

// proof shows the evidence for a freeze, and verifies its signature and its entry in the
// transparency log.
func (p *pages) proof(ctx context.Context, _ *http.Request, vars map[string]string) (page, error) {
	ref, err := p.frozenRef(ctx, meta.FreezeName(vars["name"]))
	if err != nil {
		return page{}, err
	}
	out, err := p.s.cfg.Freezer.Summary(ctx, ref.Frozen)
	if err != nil {
		return page{}, err
	}
	out.Before, err = p.s.control.FreezeBefore(ctx, ref.Frozen)
	return page{"proof.html", "Proof of " + out.Name, map[string]any{"Proof": out}, out}, err
}

// comparison shows what differs between the published image of a freeze and one that was
// built again.
func (p *pages) comparison(ctx context.Context, _ *http.Request, vars map[string]string) (page, error) {
	ref, err := p.frozenRef(ctx, meta.FreezeName(vars["name"]))
	if err != nil {
		return page{}, err
	}
	digest, err := cas.ParseDigest(vars["digest"])
	if err != nil {
		return page{}, fmt.Errorf("comparison: %w", meta.ErrNotFound)
	}
	r, err := p.s.cfg.Freezer.Comparison(ctx, ref.Frozen, digest)
	if err != nil {
		return page{}, err
	}
	name := ref.Frozen.Name
	return page{"comparison.html", "Differences of a rebuilt image of " + string(name), map[string]any{
		"Name": name, "Compare": r, "File": fileHref("/frozen/"+url.PathEscape(string(name))+"/", freeze.ComparisonPath(digest)),
	}, r}, nil
}

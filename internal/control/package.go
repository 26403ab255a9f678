package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/meta"
)

var (
	// ErrNoPackage means that a snapshot or freeze has no such package.
	ErrNoPackage = errclass.New(errclass.NotFound, "no such package")
	// ErrVersions means that a package has several versions in a snapshot or freeze.
	ErrVersions = errclass.New(errclass.Conflict, "several versions")
)

// maxPackage bounds NAME[:ARCH][=VERSION] in a request, in bytes.
const maxPackage = 1024

// showPackage describes one version of a package, NAME[:ARCH][=VERSION], in a snapshot or
// freeze. Without an architecture, it describes a source package only if no binary
// package has the name. It returns ErrNoPackage or ErrVersions if not exactly one version
// matches.
func (c *Control) showPackage(ctx context.Context, ref catalog.Ref, text string) (*api.ShownPackage, error) {
	name, version, versioned := strings.Cut(text, "=")
	name, arch, atArch := strings.Cut(name, ":")
	if name == "" || versioned && version == "" || atArch && arch == "" || len(text) > maxPackage {
		return nil, fmt.Errorf("%w: package %q: expected NAME[:ARCH][=VERSION]", errclass.Usage, excerpt.Of(text))
	}
	named, err := c.cfg.Freezer.Named(ctx, ref, name)
	if err != nil {
		return nil, err
	}
	found, err := c.chosen(named, arch, version)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0 && len(named) == 0:
		return nil, fmt.Errorf("package %s in %s: %w", excerpt.Of(name), ref, ErrNoPackage)
	case len(found) == 0:
		return nil, fmt.Errorf("package %s in %s: %w: it has %s", excerpt.Of(text), ref, ErrNoPackage, versionsOf(named))
	}
	if i := slices.IndexFunc(found, func(n client.Named) bool { return n.Version != found[0].Version }); i >= 0 {
		return nil, fmt.Errorf("package %s in %s: %w: %s", excerpt.Of(text), ref, ErrVersions, versionsOf(found))
	}
	slices.SortStableFunc(found, func(a, b client.Named) int {
		return cmp.Or(strings.Compare(a.Mirror, b.Mirror), strings.Compare(a.Arch, b.Arch))
	})
	out := &api.ShownPackage{Ref: ref.String(), Stanzas: []api.PackageDetail{}}
	for _, n := range found {
		d := api.PackageDetail{Package: n.Package, Places: n.Places, Fields: n.Fields, Here: true, Seen: []api.Seen{}}
		if ref.Frozen != nil {
			d.Frozen = []string{string(ref.Frozen.Name)}
		}
		if d.Here, err = c.stored(ctx, n.Files); err != nil {
			return nil, err
		}
		out.Stanzas = append(out.Stanzas, d)
	}
	return out, c.addPast(ctx, name, found, out.Stanzas)
}

// chosen returns the packages with an architecture and a version. Either may be empty,
// which matches any.
func (c *Control) chosen(named []client.Named, arch, version string) (found []client.Named, err error) {
	var sources []client.Named
	for _, n := range named {
		format, err := c.cfg.Formats.Of(n.Type)
		if err != nil {
			return nil, err
		}
		switch {
		case arch != "" && n.Arch != arch || version != "" && n.Version != version:
		case n.Arch == format.SourceArch() && arch == "":
			sources = append(sources, n)
		default:
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		found = sources
	}
	return found, nil
}

// maxVersions is how many versions of a package an error lists.
const maxVersions = 20

// versionsOf lists the versions of packages in an error, each with its architectures.
func versionsOf(named []client.Named) string {
	type at struct {
		mirror  meta.MirrorName
		version string
	}
	archs := map[at][]string{}
	var order []at
	for _, n := range named {
		k := at{meta.MirrorName(n.Mirror), n.Version}
		if archs[k] == nil {
			order = append(order, k)
		}
		if !slices.Contains(archs[k], n.Arch) {
			archs[k] = append(archs[k], n.Arch)
		}
	}
	slices.SortFunc(order, func(a, b at) int {
		return cmp.Or(strings.Compare(string(a.mirror), string(b.mirror)), strings.Compare(a.version, b.version))
	})
	var out []string
	for _, k := range order[:min(len(order), maxVersions)] {
		out = append(out, fmt.Sprintf("%s (%s, mirror %s)", k.version, strings.Join(archs[k], " "), k.mirror))
	}
	if more := len(order) - maxVersions; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// stored reports whether the bytes of all files are stored.
func (c *Control) stored(ctx context.Context, files []api.File) (bool, error) {
	for _, f := range files {
		d, err := cas.ParseDigest(f.SHA256)
		if err != nil {
			return false, err
		}
		if _, err := c.blobs().Stat(ctx, d); errors.Is(err, cas.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, nil
}

// addPast adds the snapshots, freezes and channels that contain packages.
func (c *Control) addPast(ctx context.Context, name string, named []client.Named, details []api.PackageDetail) error {
	frozen, err := c.st.Freezes(ctx)
	if err != nil {
		return err
	}
	channels, err := c.st.Channels(ctx)
	if err != nil {
		return err
	}
	of := map[string][]int{} // indices of details, by mirror
	for i := range details {
		of[details[i].Mirror] = append(of[details[i].Mirror], i)
	}
	for mirror, list := range of {
		if err := c.addPastOf(ctx, meta.MirrorName(mirror), name, named, details, list, wholeStates(frozen, meta.MirrorName(mirror))); err != nil {
			return err
		}
	}
	now := c.now()
	for i := range details {
		d := &details[i]
		d.Frozen, d.Channels = append([]string{}, sortedSet(d.Frozen)...), []string{}
		for _, ch := range channels {
			if slices.ContainsFunc(d.Frozen, func(f string) bool { return ch.Shows(meta.FreezeName(f), now) }) {
				d.Channels = append(d.Channels, ch.Name)
			}
		}
	}
	return nil
}

// addPastOf adds, to the details with indices in list, the snapshots of a mirror and the
// freezes that contain the package.
func (c *Control) addPastOf(ctx context.Context, mirror meta.MirrorName, name string, named []client.Named, details []api.PackageDetail, list []int, whole []wholeState) error {
	lists, err := c.st.Versions(ctx, mirror, []string{name})
	if err != nil {
		return err
	}
	versions := lists[0]
	known := map[int]*meta.Version{}
	for _, i := range list {
		for v := range versions {
			if versions[v].Digest != named[i].Digest {
				continue
			}
			known[i] = &versions[v]
			details[i].Frozen = append(details[i].Frozen, versions[v].Frozen...)
			for _, w := range whole {
				if versions[v].Has(w.state) {
					details[i].Frozen = append(details[i].Frozen, w.freeze)
				}
			}
		}
	}
	open := map[int]bool{} // the snapshot before had it
	return c.eachSnapshot(ctx, mirror, func(snap *meta.Snapshot) bool {
		for i, v := range known {
			has := v.Has(snap)
			switch {
			case has && open[i]:
				details[i].Seen[len(details[i].Seen)-1].First = snap.Timestamp
			case has:
				details[i].Seen = append(details[i].Seen, api.Seen{First: snap.Timestamp, Last: snap.Timestamp})
			}
			open[i] = has
		}
		return true
	})
}

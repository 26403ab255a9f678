package plan

import (
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/repo"
)

// prioritizer is implemented by formats whose suites have priorities, as apt's
// NotAutomatic sets them.
type prioritizer interface {
	// Priority returns the priority of packages in a suite with this root.
	Priority(root *repo.Root) int
}

// defaultPriority is the priority of suites without a priority.
const defaultPriority = 500

// unversioned reports whether an entry has no version.
func unversioned(e *buildlist.Entry) bool {
	return e.Version == "" && e.Name != "" && e.Path == "" && !namesBytes(e)
}

// candidates returns the packages of one name that the package manager would install: for
// each architecture the newest version in the suites with the highest priority. It
// chooses within each mirror or, with across, within all mirrors of one type. reason says
// between which versions it chose, if there were several.
func (p *Planner) candidates(ctx context.Context, picks []*Pick, across bool) (best []*Pick, reason string, err error) {
	groups := map[string][]*Pick{}
	var order []string
	for _, o := range picks {
		k := string(o.From.Mirror)
		if across {
			k = o.From.Type
		}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], o)
	}
	var reasons []string
	for _, k := range order {
		f, err := p.cfg.Formats.Of(groups[k][0].From.Type)
		if err != nil {
			return nil, "", err
		}
		ranked := make([]rankedPick, 0, len(groups[k]))
		for _, o := range groups[k] {
			prio, err := p.priority(ctx, f, o)
			if err != nil {
				return nil, "", err
			}
			ranked = append(ranked, rankedPick{o, prio})
		}
		kept, why := newestOf(f, ranked)
		best = append(best, kept...)
		if why != "" {
			reasons = append(reasons, why)
		}
	}
	return best, strings.Join(reasons, "; "), nil
}

type rankedPick struct {
	*Pick
	priority int
}

// newestOf chooses within one group. Packages for all architectures compete with the
// packages of each architecture.
func newestOf(f Format, picks []rankedPick) (best []*Pick, reason string) {
	var archs []string
	for _, p := range picks {
		if p.Arch != f.AnyArch() && !slices.Contains(archs, p.Arch) {
			archs = append(archs, p.Arch)
		}
	}
	if len(archs) == 0 {
		archs = []string{f.AnyArch()}
	}
	for _, arch := range archs {
		top := -1
		for i, p := range picks {
			if p.Arch != arch && p.Arch != f.AnyArch() {
				continue
			}
			if top < 0 || p.priority > picks[top].priority ||
				p.priority == picks[top].priority && f.Compare(p.Version, picks[top].Version) > 0 {
				top = i
			}
		}
		for _, p := range picks {
			if (p.Arch == arch || p.Arch == f.AnyArch()) &&
				f.Compare(p.Version, picks[top].Version) == 0 && !slices.Contains(best, p.Pick) {
				best = append(best, p.Pick)
			}
		}
	}
	return best, versionsText(f, picks, best)
}

// versionsText says between which versions the choice was, or returns "" for only one
// version.
func versionsText(f Format, picks []rankedPick, best []*Pick) string {
	var versions []string
	low := false
	for _, p := range picks {
		if !slices.Contains(versions, p.Version) {
			versions = append(versions, p.Version)
		}
		low = low || f.Compare(p.Version, best[0].Version) > 0
	}
	if len(versions) < 2 {
		return ""
	}
	slices.SortFunc(versions, func(a, b string) int { return f.Compare(b, a) })
	word := "the newest of "
	if low {
		word = "the newest by the priority of its suite of "
	}
	return best[0].Version + " is " + word + strings.Join(clip(versions, 10), ", ")
}

// priority returns the highest priority of a package's places.
func (p *Planner) priority(ctx context.Context, f Format, o *Pick) (int, error) {
	rank, ok := f.(prioritizer)
	if !ok {
		return defaultPriority, nil
	}
	best := 0
	for _, place := range o.Places {
		gen, ok := o.From.Gen(place.Suite)
		if !ok {
			continue
		}
		root, _, _, err := p.cat.Root(ctx, o.From.Mirror, o.From.Type, place.Suite, gen)
		if err != nil {
			return 0, err
		}
		best = max(best, rank.Priority(root))
	}
	return best, nil
}
